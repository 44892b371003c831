"""What one scheduler takes with many workers, whose tasks sleep.

    python -m benchmarks.scheduling.many_workers [--workers 10 100 1000]
        [--seconds 10] [--tasks 4] [--quick] [--json FILE]

The scheduler runs in this process, with its client, and the workers in others, 100 in
each, with a thread of their own. They all share this machine's cores, so that delays at
many workers are those of the workers too. Every worker gets --tasks tasks that sleep
--seconds. CPU ms: of this process, for each task. delay: from the end of a task on a
worker until the next one begins there, without which the run would take --tasks times
--seconds. MB: resident, of this process at the end.
"""

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from statistics import fmean

import dask
import psutil
from distributed import Client, LocalCluster, Worker, as_completed, get_worker

from alloop.workers.cluster_plan import DASK_SETTINGS
from benchmarks.common import Row, make_parser, make_table, show, write_json
from benchmarks.durability.processes import child_environment

START = "from benchmarks.scheduling.many_workers import serve; serve(*{})"


def serve(address: str, count: int) -> None:
    """Run workers in this process until their scheduler is gone."""
    asyncio.run(_serve(address, count))


async def _serve(address: str, count: int) -> None:
    with dask.config.set(DASK_SETTINGS):
        workers = [Worker(address, nthreads=1, dashboard=False) for _ in range(count)]
        for first in range(0, count, 50):  # handshakes in steps, as jobs start
            await asyncio.gather(*workers[first : first + 50])
        await asyncio.gather(*(worker.finished() for worker in workers))


def sleep_task(seconds: float) -> tuple[str, float, float]:
    """Sleep; return the worker's name and when the task began and ended."""
    began = time.time()
    time.sleep(seconds)
    return str(get_worker().address), began, time.time()


def measure_workers(count: int, seconds: float, tasks: int) -> Row:
    """Return the figures of one number of workers."""
    settings = {**DASK_SETTINGS, "distributed.scheduler.worker-saturation": 1.0}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", START.format((cluster.scheduler_address, part))],
                env=child_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for part in _parts(count)
        ]
        try:
            client.wait_for_workers(count, timeout=600)
            return _run_tasks(client, count, seconds, tasks)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _parts(count: int) -> list[int]:
    """Return the workers of each process, 100 at most: they share its interpreter."""
    return [min(100, count - first) for first in range(0, count, 100)]


def _run_tasks(client: Client, count: int, seconds: float, tasks: int) -> Row:
    this = psutil.Process()
    cpu, wall = time.process_time(), time.perf_counter()
    futures = [
        client.submit(sleep_task, seconds, pure=False, key=("labels", str(number)))
        for number in range(count * tasks)
    ]
    spans = defaultdict(list)
    for future, result in as_completed(futures, loop=client.loop, with_results=True):
        worker, began, ended = result
        spans[worker].append((began, ended))
        future.release()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    delays = [
        after[0] - before[1]
        for row in spans.values()
        for before, after in zip(sorted(row), sorted(row)[1:], strict=False)
    ]
    total = count * tasks
    return {
        "workers": count,
        "tasks": total,
        "CPU ms a task": 1e3 * cpu / total,
        "delay, ms": 1e3 * fmean(delays),
        "largest delay, s": max(delays),
        "wall s": wall,
        "ideal s": tasks * seconds,
        "CPU of a core": cpu / wall,
        "MB": this.memory_info().rss / 1e6,
    }


def main() -> None:
    """Measure each number of workers, show."""
    parser = make_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tasks", type=int, default=4)
    options = parser.parse_args()
    if options.quick:
        options.workers, options.seconds, options.tasks = [4], 0.2, 3
    rows = []
    for count in options.workers:
        rows.append(measure_workers(count, options.seconds, options.tasks))
        show(rows[-1])
    show(make_table("one scheduler", rows))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
