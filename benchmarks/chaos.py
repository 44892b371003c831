"""How many faults a campaign meets, and what each costs it.

    python -m benchmarks.chaos [--kills 200] [--quick] [--json FILE] [--seed S]

Tiny campaigns of 45 commits, at staleness 0 and 1, are ruined and go on; each is
compared, bit for bit, with one that was left alone:

    death       dead before any operation on the disk, or in the middle of a write
    power       power lost after an operation: what was not synced may be gone
    full disk   no room from a write on, then room again
    driver ...  SIGKILL, at random instants, of the driver, of a worker, of all; SIGTERM
                and SIGINT of the driver; two workers on an embedded cluster
    their ...   the same with a scheduler and nannies that are processes of their own

wrong: campaigns with another dataset, or which did not end as they should; twice:
labels committed twice; redone: labels begun again; s lost: wall seconds until the next
commit, starts of Python and Dask included. Rows are kept: a killed run goes on.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from statistics import median

from benchmarks.common import Row, Rows, arguments, say, table, write_json
from benchmarks.kills import THEIRS, VICTIMS, alone, hunted
from benchmarks.toys import Noted, Print
from benchmarks.trials import Trial, deaths, full_disks, left_alone, power_losses

_EACH = 5  # kills of a campaign
_FOLDER = Path("runs/benchmarks/chaos")


def main() -> None:
    """Ruin campaigns, count, show."""
    given = _given()
    rows = Rows(given.rows)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        for key, trials in _plan(given, Path(scratch)):
            if key not in rows:
                rows[key] = {"trials": [asdict(trial) for trial in trials()]}
                say(f"{key}: {len(rows[key]['trials'])} faults")
    found = [_row(fault, trials) for fault, trials in _by_fault(given, rows).items()]
    say(table("faults", found))
    write_json(given.json, {"faults": found, "seed": given.seed})


def _given() -> Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of processes, in all")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--rows", type=Path, default=_FOLDER / "rows.jsonl")
    parser.add_argument("--folder", type=Path, help="for campaigns, such as /dev/shm")
    return parser.parse_args()


def _plan(
    given: Namespace, scratch: Path
) -> Iterator[tuple[str, Callable[[], Iterable[Trial]]]]:
    """What to do, under the key of its row."""
    size = "quick" if given.quick else "whole"
    for staleness in (0, 1):
        for name in ("death", "power", "full disk"):
            key = f"{name}/{staleness}/{size}/{given.seed}"
            folder = scratch / key.replace("/", "-")
            yield key, partial(_in_process, name, staleness, given, folder)
    quiet = cache(partial(alone, scratch / "alone"))
    for index, victim in enumerate(_victims(given)):
        key = f"{victim}/{index}/{size}/{given.seed}"
        folder = scratch / key.replace("/", "-").replace(" ", "-")
        yield key, partial(_killed, folder, victim, given, index, quiet)


def _victims(given: Namespace) -> list[str]:
    if given.quick:
        return ["all"]
    names = [*VICTIMS, *(f"their {victim}" for victim in THEIRS)]
    return [names[i % len(names)] for i in range(-(-given.kills // _EACH))]


def _in_process(
    name: str, staleness: int, given: Namespace, folder: Path
) -> Iterator[Trial]:
    base, quick = left_alone(folder, staleness), given.quick
    match name:
        case "death":
            return deaths(base, 4 if quick else None)
        case "power":
            return power_losses(base, 0.002 if quick else 0.2, given.seed)
        case _:
            step = 150 if quick else 1
            return full_disks(base, lambda left: left % step == 0)


def _killed(
    folder: Path,
    victim: str,
    given: Namespace,
    index: int,
    quiet: Callable[[], tuple[Print, Noted]],
) -> Iterator[Trial]:
    kills = 2 if given.quick else _EACH
    return hunted(folder, victim, 1000 * given.seed + index, kills, quiet())


# --- figures -------------------------------------------------------------------------


def _by_fault(given: Namespace, rows: Rows) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for key, _ in _plan(given, Path()):
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
