"""Cost of a store, its driver and its readers as a campaign grows.

    python -m benchmarks.store.growth [--quick] [--json FILE] [--records N ...]
        [--folder DIR] [--candidates N] [--train N]

runs the campaign of `benchmarks.store.synthetic_campaign`, whose labels cost nothing:
ten frames and 0.9 labels a record, so that 100000 records are a million frames; a
million labels fit an ordinary disk with `--records 1112000 --candidates 20 --train
10000`: two frames a record, and a training by 10000 records. Each
record is committed and folded in as a driver does; every thousand records the columns
are filled and the fold is kept. Then whatever opens a store does so, each in a process
of its own. Times are of the processor; files are written without waiting for the disk,
see `benchmarks.store.commits_and_reads`. The rows of a size are kept in `--folder` as
soon as they are known, and a benchmark that was stopped goes on behind them.

Of the driver, by record, and of its whole process:

    commit   append a record                  learn   state, labels and history
    columns  fill them                        folds   keep them, each 10 % longer
    quotas   of a round, once at the end; every piece of MD asks for them
    files, MB   in the store when it ends     peak MB   memory of the driver

Of each process, start and imports included: seconds, and MB of memory at most.
`replay` is `open` without the fold, `import` a process that opens nothing.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import log10
from pathlib import Path
from typing import TypeVar

from alloop.history.fold_updater import FoldUpdater
from alloop.history.reader import CODEC
from alloop.loop import events as e
from alloop.loop.label_choice import RoundQuotas
from alloop.loop.reducer import next_state
from alloop.loop.rules import Budget, Rules
from alloop.store.archive import Archive
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json
from benchmarks.durability.file_systems import UnsyncedFileSystem
from benchmarks.store.read_costs import NAMES
from benchmarks.store.synthetic_campaign import (
    CANDIDATES,
    CONFIG,
    LEVELS,
    TRAIN,
    SyntheticCampaign,
)

STEP = 1000  # records between two compactions
_ATTRS = {
    "name": "scale",
    "config": CONFIG,
    "levels": {
        fidelity: {
            "id": each.id,
            "title": each.title,
            "kind": each.kind,
            "settings": each.settings,
        }
        for fidelity, each in LEVELS.items()
    },
}
_RULES = Rules(Budget(cheap=1_000_000, expensive=100_000))
_T = TypeVar("_T")


def cpu_seconds(call: Callable[[], _T]) -> tuple[float, _T]:
    """Return the CPU seconds of a call, and its result."""
    begin = time.process_time()
    done = call()
    return time.process_time() - begin, done


def _append_turns(archive: Archive, made: Sequence[e.Turn]) -> None:
    for turn in made:
        archive.append(turn)


def _fold_turns(keeper: FoldUpdater, made: Sequence[e.Turn]) -> None:
    for turn in made:
        fold = keeper.fold
        fold.label_index.add_turn(turn)
        keeper.add_turn(turn, next_state(fold.state, turn.event, turn.commands))


def grow_store(path: Path, count: int, campaign: SyntheticCampaign) -> dict[str, float]:
    """Run the synthetic campaign; return the CPU seconds of the parts."""
    spent = dict.fromkeys(("commit", "learn", "columns", "folds"), 0.0)
    with Archive.create(
        path, attrs=_ATTRS, codec=CODEC, files=UnsyncedFileSystem()
    ) as archive:
        keeper = FoldUpdater(archive)
        for begin in range(0, count, STEP):
            made = list(campaign.turns(min(STEP, count - begin)))
            spent["commit"] += cpu_seconds(partial(_append_turns, archive, made))[0]
            spent["learn"] += cpu_seconds(partial(_fold_turns, keeper, made))[0]
            spent["columns"] += cpu_seconds(keeper.fill_columns)[0]
            spent["folds"] += cpu_seconds(keeper.compact)[0]
        quotas = partial(RoundQuotas.from_state, keeper.fold.state, _RULES)
        spent["quotas"] = cpu_seconds(lambda: [quotas() for _ in range(count)])[0]
        keeper.close()
    return spent


def run_driver(path: Path, count: int, campaign: SyntheticCampaign) -> Row:
    """Return the figures of the driver, and of the store that it leaves."""
    spent = grow_store(path, count, campaign)
    files = [value for value in path.rglob("*") if value.is_file()]
    parts = {
        f"{part} MB": sum(x.stat().st_size for x in files if part in x.parts) / 1e6
        for part in ("journal", "folds")
    }
    megabytes = sum(x.stat().st_size for x in files) / 1e6
    return {
        "records": count,
        **{f"{name} us": value / count * 1e6 for name, value in spent.items()},
        "files": len(files),
        "MB": megabytes,
        "columns MB": megabytes - parts["journal MB"],
        "fold MB": parts["folds MB"],
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def run_reader(name: str, path: Path) -> Row:
    """Return the cost of a process that reads the store in this way."""
    command = [sys.executable, "-m", "benchmarks.store.read_costs", name, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measure_size(rows: Rows, folder: Path, count: int, shape: Sequence[str]) -> None:
    """Measure what is not yet known of a store of `count` records.

    `shape` are the options that shape the campaign.
    """
    missing = [name for name in NAMES if f"{count} {name}" not in rows]
    path, driver = folder / f"{count}.zarr", f"{count} driver"
    if driver in rows and not missing:
        return
    if driver not in rows or not path.exists():
        shutil.rmtree(path, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "benchmarks.store.growth",
            "--grow",
            str(count),
        ]
        command += ["--folder", str(folder), *shape]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[driver] = json.loads(done.stdout)
    for name in missing:
        rows[f"{count} {name}"] = run_reader(name, path)
    shutil.rmtree(path)


def reader_rows(rows: Rows, sizes: Sequence[int]) -> list[Row]:
    """Return a row for each process: seconds and MB by size, and their growth.

    The growth is that with the last tenfold of records.
    """
    return [_reader_row(rows, sizes, name) for name in NAMES]


def _reader_row(rows: Rows, sizes: Sequence[int], name: str) -> Row:
    lines = [rows[f"{count} {name}"] for count in sizes]
    row: Row = {"process": name}
    for count, value in zip(sizes, lines, strict=True):
        row |= {f"{count:.0e} s": value["cpu s"], f"{count:.0e} MB": value["peak MB"]}
    if len(sizes) > 1:
        tenfolds = log10(sizes[-1] / sizes[-2])
        for key in ("cpu s", "peak MB"):
            factor = (lines[-1][key] / lines[-2][key]) ** (1 / tenfolds)
            row[f"x {key[-2:].strip()}"] = factor
    return row


def main() -> None:
    """Measure, and show."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--records", type=int, nargs="+", help="sizes, one after another"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/growth"), help="disk")
    parser.add_argument(
        "--candidates", type=int, default=CANDIDATES, help="frames of an exploration"
    )
    parser.add_argument(
        "--train", type=int, default=TRAIN, help="one of so many records is a training"
    )
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow:
        campaign = SyntheticCampaign(options.candidates, options.train)
        path = options.folder / f"{options.grow}.zarr"
        row = run_driver(path, options.grow, campaign)
        sys.stdout.write(json.dumps(row) + "\n")
        return
    sizes = sorted(
        options.records or ([300, 3000] if options.quick else [1000, 10000, 100000])
    )
    shape = ["--candidates", str(options.candidates), "--train", str(options.train)]
    rows = Rows(options.folder / "rows.jsonl")
    for count in sizes:
        measure_size(rows, options.folder, count, shape)
    driver = [rows[f"{count} driver"] for count in sizes]
    write_json(options.json, {"driver": driver, "processes": reader_rows(rows, sizes)})
    show(make_table("the driver; us: CPU time a record", driver))
    show(
        make_table(
            "processes; x: growth with ten times the records", reader_rows(rows, sizes)
        )
    )


if __name__ == "__main__":
    main()
