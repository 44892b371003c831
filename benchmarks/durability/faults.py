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

from benchmarks.common import Row, Rows, arguments, say, table, write_json
from benchmarks.forks import forked, nursery
from benchmarks.kills import THEIRS, VICTIMS, alone, hunted
from benchmarks.ruins import Trial, left_alone
from benchmarks.toys import Noted, Print
from benchmarks.trials import deaths, full_disks, power_losses
from tests.store.conftest import Nursery

_EACH, _FORKED = 5, 10  # kills of a campaign
_VERIFIED = 4  # one of so many stores is verified to the byte
_FOLDER = Path("runs/benchmarks/chaos")


def main() -> None:
    """Ruin campaigns, count, show."""
    given = _given()
    rows = Rows(given.rows)
    if not given.report:
        with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
            _ruin(given, rows, Path(scratch))
    found = [_row(fault, trials) for fault, trials in _by_fault(given, rows).items()]
    say(table("faults", found))
    write_json(given.json, {"faults": found, "seed": given.seed})


def _given() -> Namespace:
    parser = arguments(__doc__)
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


def _ruin(given: Namespace, rows: Rows, scratch: Path) -> None:
    parts = {"disk": _on_disk, "forks": _forks, "kills": _kills}
    chosen = parts.values() if given.part is None else [parts[given.part]]
    for key, trials in chain(*(part(given, rows, scratch) for part in chosen)):
        if key in rows:
            continue
        count = 0
        for name, some in trials():
            rows[name] = {"trials": [asdict(trial) for trial in some]}
            count += len(some)
        if key not in rows:
            rows[key] = {"trials": []}  # this one is at its end
        say(f"{key}: {count} more faults")


_Named = Iterable[tuple[str, list[Trial]]]  # trials, under the key of their row
_Quiet = Callable[[], tuple[Print, Noted]]  # what a campaign makes that nobody hits
_Plan = Iterator[tuple[str, Callable[[], _Named]]]


def _key(given: Namespace, *parts: object) -> str:
    size = "quick" if given.quick else "whole"
    return "/".join(map(str, (size, given.seed, *parts)))


# --- the disk ------------------------------------------------------------------------


def _on_disk(given: Namespace, rows: Rows, scratch: Path) -> _Plan:
    for staleness in (0, 1):
        for name in ("death", "power", "full disk"):
            key = _key(given, name, staleness)
            folder = scratch / key.replace("/", "-")
            yield key, partial(_in_process, given, rows, key, folder)


def _in_process(given: Namespace, rows: Rows, key: str, folder: Path) -> _Named:
    name, staleness = key.split("/")[2:]
    quick, base = given.quick, left_alone(folder, int(staleness), _VERIFIED)

    def done(number: int) -> bool:
        return f"{key}/{number}" in rows

    match name:
        case "death":
            trials = deaths(base, 4 if quick else None, done)
        case "power":
            trials = power_losses(base, 0.002 if quick else 0.2, given.seed, done)
        case _:
            step = 150 if quick else 1
            trials = full_disks(base, lambda left: left % step == 0, done)
    return ((f"{key}/{trial.number}", [trial]) for trial in trials)


# --- processes -----------------------------------------------------------------------


def _forks(given: Namespace, _rows: Rows, scratch: Path) -> _Plan:
    quiet = cache(partial(alone, scratch / "alone"))
    with contextlib.closing(nursery()) as drivers:
        for index in range(1 if given.quick else -(-given.kills // _FORKED)):
            key = _key(given, "forks", index)
            yield key, partial(_forked, given, key, scratch, drivers, quiet)


def _forked(
    given: Namespace, key: str, scratch: Path, drivers: Nursery, quiet: _Quiet
) -> _Named:
    index = int(key.rpartition("/")[2])
    folder, seed = scratch / key.replace("/", "-"), 1000 * given.seed + index
    yield key, list(forked(drivers, folder, seed, _FORKED, quiet()))


def _kills(given: Namespace, _rows: Rows, scratch: Path) -> _Plan:
    quiet = cache(partial(alone, scratch / "alone"))
    for index, victim in enumerate(_victims(given)):
        key = _key(given, victim, index)
        folder = scratch / key.replace("/", "-").replace(" ", "-")
        yield key, partial(_killed, given, key, folder, quiet)


def _victims(given: Namespace) -> list[str]:
    if given.quick:
        return ["all"]
    names = [*VICTIMS, *(f"their {victim}" for victim in THEIRS)]
    return [names[i % len(names)] for i in range(-(-given.kills // _EACH))]


def _killed(given: Namespace, key: str, folder: Path, quiet: _Quiet) -> _Named:
    victim, index = key.split("/")[2:]
    kills = 2 if given.quick else _EACH
    seed = 1000 * given.seed + int(index)
    yield key, list(hunted(folder, victim, seed, kills, quiet()))


# --- figures -------------------------------------------------------------------------


def _by_fault(given: Namespace, rows: Rows) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for key in rows:
        if key.startswith(f"{_key(given)}/"):
            for trial in rows[key]["trials"]:
                found.setdefault(trial["fault"], []).append(trial)
    return found


def _row(fault: str, trials: list[Row]) -> Row:
    seconds = [trial["seconds"] for trial in trials]
    return {
        "fault": fault,
        "faults": len(trials),
        "wrong": sum(bool(trial["wrong"]) for trial in trials),
        "twice": sum(trial["twice"] for trial in trials),
        "redone": sum(trial["redone"] for trial in trials),
        "s lost, median": median(seconds),
        "s lost, most": max(seconds),
        "what": next((trial["wrong"] for trial in trials if trial["wrong"]), None),
    }


if __name__ == "__main__":
    main()
