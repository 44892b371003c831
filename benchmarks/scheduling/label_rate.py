"""Labels a second that one driver and one Dask scheduler can handle.

    python -m benchmarks.scheduling.label_rate [--labels 2000] [--quick]
        [--json FILE] [--folder DIR]

driver: a campaign whose labels cost nothing, without what its work takes: learn,
decide, commit (synced), act. scheduler: tasks that do nothing, on two workers, sent,
awaited and released; scheduler and client share the driver's process. CPU ms: of that
process, for each label or task; per s: what fits into a second of one core, and of the
clock.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from alloop import config
from alloop.driver.opening import store_attributes
from alloop.driver.oversight import Oversight
from alloop.driver.run import CampaignRun, RunObserver
from alloop.history.fold_updater import FoldUpdater
from alloop.history.reader import CODEC
from alloop.store.archive import Archive
from alloop.workers.cluster_plan import ClusterPlan
from alloop.workers.connection import Connection, connect_cluster
from alloop.workers.pools import InlinePool
from alloop.workers.tasks import TaskResult, perform_command
from benchmarks.common import Row, make_parser, make_table, show, write_json
from benchmarks.durability.toy_campaign import write_campaign


def main() -> None:
    """Measure both, show."""
    parser = make_parser(__doc__)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="for the store")
    options = parser.parse_args()
    count = 200 if options.quick else options.labels
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = [_driver_row(Path(folder), count), _scheduler_row(count)]
    show(make_table("one driver", rows))
    write_json(options.json, {"rows": rows})


class _Clock:
    """CPU and wall seconds, without those that were excluded."""

    def __init__(self) -> None:
        self._begun, self.out = _now(), (0.0, 0.0)

    def work(self, *args: Any) -> TaskResult:
        """Do what a worker does, not counted."""
        begun = _now()
        done = perform_command(*args)
        cpu, wall = _since(begun)
        self.out = (self.out[0] + cpu, self.out[1] + wall)
        return done

    def row(self, what: str, count: int) -> Row:
        """Return the figures for each of `count` things."""
        spent = zip(_since(self._begun), self.out, strict=True)
        cpu, wall = (total - out for total, out in spent)
        return {
            "what": what,
            "number": count,
            "CPU ms each": 1e3 * cpu / count,
            "per CPU s": count / cpu,
            "per s": count / wall,
        }


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = _now()
    return cpu - begun[0], wall - begun[1]


def _driver_row(folder: Path, count: int) -> Row:
    path = write_campaign(folder)
    tree = yaml.safe_load(path.read_text())
    tree["seeds"]["cheap"], tree["budget"] = count, {"cheap": count, "expensive": 3}
    path.write_text(yaml.safe_dump(tree))
    setup = config.load_campaign(path)
    archive = Archive.create(setup.store, attrs=store_attributes(setup), codec=CODEC)
    with archive:
        keeper, clock = FoldUpdater(archive), _Clock()
        pool = InlinePool(setup.worker_settings, work=clock.work)
        oversight = Oversight(setup, lambda: "rate", -1, print)
        CampaignRun(setup, archive, keeper, pool, RunObserver(), oversight).run_loop()
        return clock.row("driver: labels", count)


def _do_nothing(number: int) -> int:
    return number


def _scheduler_row(count: int) -> Row:
    link = connect_cluster(ClusterPlan(workers=2))
    try:
        _run_tasks(link, 10)
        clock = _Clock()
        _run_tasks(link, count)
        return clock.row("scheduler: tasks", count)
    finally:
        link.close()


def _run_tasks(link: Connection, count: int) -> None:
    from distributed import as_completed

    ask = (link.client.submit(_do_nothing, i, pure=False) for i in range(count))
    for future, _ in as_completed(list(ask), loop=link.client.loop, with_results=True):
        future.release()


if __name__ == "__main__":
    main()
