"""Half of the workers killed again and again while a campaign runs.

    python -m benchmarks.durability.worker_losses [--minutes 30] [--every 120]
        [--workers 4] [--label 5] [--quick] [--json FILE] [--folder DIR]

A toy campaign whose labels take --label seconds runs on --workers processes that Dask
starts again when they die. Every --every seconds half of them get SIGKILL, for
--minutes; then it may end. The same campaign, undisturbed and in one process, is the
truth. Of the labels of the dataset, lost: begun and never ended; finished and made
again: ended more than once; cut off: ended by a kill, each of which costs what it had
run for, a label's time at most. The first frames of a molecule are one task with labels
of its own, which begins anew.
"""

import os
import random
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alloop.campaign import Campaign
from alloop.history.reader import read_history
from benchmarks.common import Row, make_parser, make_table, show, write_json
from benchmarks.durability.comparison import (
    campaign_contents,
    count_duplicates,
    store_contents,
)
from benchmarks.durability.processes import find_workers
from benchmarks.durability.toy_campaign import (
    LABEL_LOG,
    LABEL_SECONDS,
    read_label_log,
    write_campaign,
)


@dataclass
class Killer:
    """A thread's work: kills half of the workers at intervals.

    times: of all kills, s since 1970; killed: processes.
    """

    every: float
    minutes: float
    times: list[float] = field(default_factory=list)
    killed: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Kill until the time is over or the campaign has ended."""
        numbers, until = random.Random(0), time.monotonic() + 60 * self.minutes
        while not self.ended.wait(self.every) and time.monotonic() < until:
            workers = find_workers(os.getpid())
            for process in numbers.sample(workers, len(workers) // 2):
                process.send_signal(signal.SIGKILL)
                self.killed += 1
            self.times.append(time.time())


def labels_within(minutes: float, workers: int, label: float) -> dict[str, int]:
    """Return a budget that keeps the workers busy for so long."""
    count = round(60 * minutes * workers / label)
    return {"cheap": max(16, count * 3 // 4), "expensive": max(7, count // 4)}


def _write_untried(folder: Path, **sections: Any) -> Path:
    """Write the campaign without trials of forces, which label a second frame."""
    path = write_campaign(folder, 0.0, **sections)
    tree = yaml.safe_load(path.read_text())
    for level in tree["levels"].values():
        level["gate"] = {"slope": 0.0}
    path.write_text(yaml.safe_dump(tree))
    return path


def measure_losses(folder: Path, options: Any) -> Row:
    """Run both campaigns; return what became of the one whose workers were killed."""
    budget = labels_within(options.minutes, options.workers, options.label)
    explore = {"walkers": 8, "batch": 8, "steps": 20, "piece": 10, "stride": 5}
    sections = {
        "budget": budget,
        "explore": {**explore, "temperature": [400, 600]},
        "training": {"kind": "asteroid", "every": max(2, budget["expensive"] // 4)},
    }
    alone = _write_untried(folder / "alone", **sections)
    Campaign.from_yaml(alone).run()
    cluster = {"kind": "local", "workers": options.workers}
    path = _write_untried(folder / "killed", cluster=cluster, **sections)
    log, killer = folder / "labels.log", Killer(options.every, options.minutes)
    os.environ |= {LABEL_LOG: str(log), LABEL_SECONDS: str(options.label)}
    thread = threading.Thread(target=killer.run)
    began = time.monotonic()
    thread.start()
    code = Campaign.from_yaml(path).run().exit_code
    killer.ended.set()
    thread.join()
    history = read_history(path.with_name("toy.zarr"))
    same = campaign_contents(history) == store_contents(alone.with_name("toy.zarr"))
    stored = {frame for _, frame in history.label_index.labels}
    counts = read_label_log(log)
    begun: dict[str, int] = {}
    ended: dict[str, int] = {}
    for key, number in counts.items():
        word, _, frame = key.split()
        if frame in stored:
            (begun if word == "begun" else ended)[key.partition(" ")[2]] = number
    cut = sum(begun.values()) - sum(ended.values())
    return {
        "exit code": code,
        "minutes": (time.monotonic() - began) / 60,
        "labels": len(history.label_index.labels),
        "kills": len(killer.times),
        "processes killed": killer.killed,
        "lost": len(begun.keys() - ended.keys()),
        "finished and made again": sum(n - 1 for n in ended.values()),
        "cut off": cut,
        "committed twice": count_duplicates(history),
        "s lost, at most": cut * options.label,
        "same dataset": same,
    }


def main() -> None:
    """Run both campaigns, compare, show."""
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=120.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--label", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, help="for the stores")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.every, options.label = 0.5, 8.0, 1.0
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        row = measure_losses(Path(folder), options)
    show(make_table("half of the workers killed", [row]))
    write_json(options.json, {"rows": [row]})


if __name__ == "__main__":
    main()
