"""What a live page costs the driver that it watches.

    python -m benchmarks.durability.watching [--pairs 6] [--every 2] [--labels 600]
        [--quick] [--json FILE]

A toy campaign runs in one process, alone and with `alloop watch` beside it, whose page
is asked for every --every seconds (a browser does so every thirty), in turn. driver:
CPU seconds of the campaign's process, start included. The watcher has a processor of
its own where there are two; its CPU seconds are told too.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks.common import (
    Row,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)
from benchmarks.durability.toy_campaign import write_campaign

_SLEEP = 0.02  # s that a label takes


def driver_seconds(path: Path) -> float:
    """Run a campaign in a process; return its CPU seconds."""
    command = [sys.executable, "-m", "alloop", "run", str(path), "--quiet", "--trust"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"the campaign ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def watched_seconds(path: Path, every: float) -> tuple[float, float, int]:
    """Run a watched campaign.

    Returns CPU seconds of its driver and of the watcher, and the number of pages.
    """
    store, ended, pages = path.with_name("toy.zarr"), threading.Event(), 0
    seconds: list[float] = []

    def drive() -> None:
        seconds.append(driver_seconds(path))
        ended.set()

    thread = threading.Thread(target=drive)
    thread.start()
    while not (store / "zarr.json").exists():
        time.sleep(0.01)
    command = [sys.executable, "-m", "alloop", "watch", str(store)]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = watcher.stdout.readline().strip() if watcher.stdout else ""
    while not ended.is_set():
        with urlopen(address, timeout=60) as answer:
            answer.read()
        pages += 1
        ended.wait(every)
    thread.join()
    watcher.terminate()
    _, _, usage = os.wait4(watcher.pid, 0)
    watcher.returncode = 0
    return seconds[0], usage.ru_utime + usage.ru_stime, pages


def main() -> None:
    """Run the pairs, compare, show."""
    parser = make_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--labels", type=int, default=600)
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.labels = 1, 60
    budget = {"cheap": options.labels * 3 // 4, "expensive": options.labels // 4}
    rows: list[Row] = []
    for _ in range(options.pairs):
        with tempfile.TemporaryDirectory() as folder:
            alone, watched = (
                write_campaign(Path(folder) / name, _SLEEP, budget=budget)
                for name in ("alone", "watched")
            )
            plain = driver_seconds(alone)
            driver, watcher, pages = watched_seconds(watched, options.every)
        row: Row = {"alone s": plain, "driver s": driver, "ratio": driver / plain}
        rows.append({**row, "watcher s": watcher, "pages": pages})
    show(make_table("CPU seconds", rows))
    ratio = median_range(row["ratio"] for row in rows)
    show(make_table("driver, watched over alone", [ratio]))
    write_json(options.json, {"rows": rows, "ratio": ratio})


if __name__ == "__main__":
    main()
