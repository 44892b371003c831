"""Faults that a campaign survives, and what each one costs.

    python -m benchmarks.durability.faults [--kills 200] [--part disk|forks|kills]
        [--report] [--quick] [--json FILE] [--seed S] [--folder /dev/shm]

Tiny campaigns of 45 commits, at staleness 0 and 1, are hit by faults and go on; each is
compared, bit for bit, with an undisturbed one:

    crash         dead before a file operation, or in the middle of a write
    power         power lost after an operation: what was not synced may be gone
    full disk     no room from a write on, then room again
    forked ...    SIGKILL of a driver that does all work itself, at random instants
    driver ...    SIGKILL, at random instants, of the driver, of a worker, of all;
                  SIGTERM and SIGINT of the driver; two workers on an embedded cluster
    external ...  the same with a scheduler and nannies that are processes of their own

wrong: campaigns with another dataset, or which did not end as they should; duplicates:
labels committed twice; relabelled: labels begun again; s lost: wall seconds until the
next commit, starts of Python and Dask included. Each trial is kept at once: a killed
run goes on where it was, and `--report` shows what there is.
"""

import contextlib
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cache, partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TypeAlias

from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json
from benchmarks.durability.comparison import Reference, Trial
from benchmarks.durability.disk_trials import (
    crash_trials,
    full_disk_trials,
    power_loss_trials,
    run_undisturbed,
)
from benchmarks.durability.process_trials import (
    TARGETS,
    driver_kill_trials,
    driver_server,
    run_reference,
    signal_trials,
)
from benchmarks.durability.processes import ForkServer

_SIGNALS, _FORKED_KILLS = 5, 10  # a campaign
_VERIFY_EVERY = 4  # one of so many stores is verified to the byte
_FOLDER = Path("runs/benchmarks/faults")

NamedTrials: TypeAlias = Iterable[tuple[str, list[Trial]]]  # by the key of their row
RunReference: TypeAlias = Callable[[], Reference]
Plan: TypeAlias = Iterator[tuple[str, Callable[[], NamedTrials]]]


def main() -> None:
    """Run the trials that are missing; count and show them all."""
    options = _options()
    rows = Rows(options.rows)
    if not options.report:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            _run_trials(options, rows, Path(scratch))
    by_fault = _by_fault(options, rows)
    rows_by_fault = [_summary(fault, trials) for fault, trials in by_fault.items()]
    show(make_table("faults", rows_by_fault))
    write_json(options.json, {"faults": rows_by_fault, "seed": options.seed})


def _options() -> Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--kills", type=int, default=200, help="of forks, and of others"
    )
    parser.add_argument(
        "--part", choices=("disk", "forks", "kills"), help="this part alone"
    )
    parser.add_argument("--report", action="store_true", help="show, try nothing")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--rows", type=Path, default=_FOLDER / "rows.jsonl")
    parser.add_argument("--folder", type=Path, help="for campaigns, such as /dev/shm")
    return parser.parse_args()


def _run_trials(options: Namespace, rows: Rows, scratch: Path) -> None:
    parts = {"disk": _disk_plan, "forks": _fork_plan, "kills": _signal_plan}
    chosen = parts.values() if options.part is None else [parts[options.part]]
    for key, run in chain(*(part(options, rows, scratch) for part in chosen)):
        if key in rows:
            continue
        count = 0
        for name, trials in run():
            rows[name] = {"trials": [asdict(trial) for trial in trials]}
            count += len(trials)
        if key not in rows:
            rows[key] = {"trials": []}  # this one is at its end
        show(f"{key}: {count} more faults")


def _key(options: Namespace, *parts: object) -> str:
    size = "quick" if options.quick else "whole"
    return "/".join(map(str, (size, options.seed, *parts)))


def _folder(scratch: Path, key: str) -> Path:
    return scratch / key.replace("/", "-").replace(" ", "-")


# --- the disk ------------------------------------------------------------------------


def _disk_plan(options: Namespace, rows: Rows, scratch: Path) -> Plan:
    for staleness in (0, 1):
        for name in ("crash", "power", "full disk"):
            key = _key(options, name, staleness)
            yield key, partial(_disk_trials, options, rows, key, scratch)


def _disk_trials(
    options: Namespace, rows: Rows, key: str, scratch: Path
) -> NamedTrials:
    name, staleness = key.split("/")[2:]
    quick, folder = options.quick, _folder(scratch, key)
    undisturbed = run_undisturbed(folder, int(staleness), _VERIFY_EVERY)

    def skip(number: int) -> bool:
        return f"{key}/{number}" in rows

    match name:
        case "crash":
            trials = crash_trials(undisturbed, 4 if quick else None, skip)
        case "power":
            share = 0.002 if quick else 0.2
            trials = power_loss_trials(undisturbed, share, options.seed, skip)
        case _:
            step = 150 if quick else 1
            trials = full_disk_trials(undisturbed, lambda x: x % step == 0, skip)
    return ((f"{key}/{trial.number}", [trial]) for trial in trials)


# --- processes -----------------------------------------------------------------------


def _fork_plan(options: Namespace, _rows: Rows, scratch: Path) -> Plan:
    reference = cache(partial(run_reference, scratch / "undisturbed"))
    with contextlib.closing(driver_server()) as server:
        for index in range(1 if options.quick else -(-options.kills // _FORKED_KILLS)):
            key = _key(options, "forks", index)
            yield (
                key,
                partial(
                    _fork_trials,
                    options,
                    key,
                    scratch,
                    server=server,
                    reference=reference,
                ),
            )


def _fork_trials(
    options: Namespace,
    key: str,
    scratch: Path,
    server: ForkServer,
    reference: RunReference,
) -> NamedTrials:
    seed = 1000 * options.seed + int(key.rpartition("/")[2])
    trials = driver_kill_trials(
        server, _folder(scratch, key), seed, _FORKED_KILLS, reference()
    )
    yield key, list(trials)


def _signal_plan(options: Namespace, _rows: Rows, scratch: Path) -> Plan:
    reference = cache(partial(run_reference, scratch / "undisturbed"))
    for index, target in enumerate(_targets(options)):
        key = _key(options, target, index)
        yield key, partial(_signal_trials, options, key, scratch, reference)


def _targets(options: Namespace) -> list[str]:
    if options.quick:
        return ["all"]
    return [TARGETS[i % len(TARGETS)] for i in range(-(-options.kills // _SIGNALS))]


def _signal_trials(
    options: Namespace, key: str, scratch: Path, reference: RunReference
) -> NamedTrials:
    target, index = key.split("/")[2:]
    hits = 2 if options.quick else _SIGNALS
    seed = 1000 * options.seed + int(index)
    trials = signal_trials(_folder(scratch, key), target, seed, hits, reference())
    yield key, list(trials)


# --- figures -------------------------------------------------------------------------


def _by_fault(options: Namespace, rows: Rows) -> dict[str, list[Row]]:
    trials: dict[str, list[Row]] = {}
    for key in rows:
        if key.startswith(f"{_key(options)}/"):
            for trial in rows[key]["trials"]:
                trials.setdefault(trial["fault"], []).append(trial)
    return trials


def _summary(fault: str, trials: list[Row]) -> Row:
    seconds = [trial["seconds"] for trial in trials]
    return {
        "fault": fault,
        "faults": len(trials),
        "wrong": sum(bool(trial["problem"]) for trial in trials),
        "duplicates": sum(trial["duplicates"] for trial in trials),
        "relabelled": sum(trial["relabelled"] for trial in trials),
        "s lost, median": median(seconds),
        "s lost, most": max(seconds),
        "problem": next((x["problem"] for x in trials if x["problem"]), None),
    }


if __name__ == "__main__":
    main()
