"""`doctor` and `version`: what this machine can do, and whether a store is whole."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alloop import __version__
from alloop.cli.console import AsJson, complain, say, say_json
from alloop.cli.places import short, store_of
from alloop.core.errors import InputError

USER = 2


def doctor(
    place: Annotated[
        Path | None,
        typer.Argument(metavar="[STORE]", help="a store, or its YAML file, to verify"),
    ] = None,
    as_json: AsJson = False,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="make a new store of all that is whole in STORE, which stays as it is",
        ),
    ] = None,
) -> int:
    """Tell what this machine can do, or verify every byte of a store, or repair it."""
    if place is None and repair is not None:
        raise InputError("expected the STORE to repair: doctor STORE --repair OUT")
    if place is not None and repair is not None:
        return _repair(place, repair)
    if as_json:
        return _for_scripts(None if place is None else store_of(place))
    return _machine() if place is None else _store(store_of(place))


def version() -> None:
    """Print the version."""
    say(f"alloop {__version__}")


def _for_scripts(store: Path | None) -> int:
    """Print what the machine has, or what is damaged in a store, as JSON."""
    if store is None:
        from alloop.cli.machine import facts

        problem = _trial()
        say_json({"ok": not problem, "machine": dict(facts()), "label": problem})
        return USER if problem else 0
    from alloop.loop.checking import check

    findings = [asdict(each) for each in check(store)]
    say_json({"ok": not findings, "store": str(store), "findings": findings})
    return USER if findings else 0


def _machine() -> int:
    from alloop.cli.machine import facts
    from alloop.report.fitting import FittingTable

    table = FittingTable("", "", show_header=False, box=None)
    for name, value in facts():
        table.add_row(name, value)
    say(table)
    problem = _trial()
    if problem:
        complain(f"a PySCF label failed here: {problem}")
        return USER
    say("a PySCF label in a child process works")
    return 0


def _trial() -> str | None:
    """Label hydrogen, as a campaign would; what went wrong, or None."""
    from ase.build import molecule

    from alloop.core.atoms import from_atoms
    from alloop.core.records import Unlabelled
    from alloop.labels.isolated import IsolatedLabeller
    from alloop.labels.levels import pyscf_level

    with IsolatedLabeller(pyscf_level("hf", "sto-3g")) as labeller:
        record = labeller.label(from_atoms(molecule("H2")))
    if isinstance(record, Unlabelled):
        return f"{record.failure} ({record.message})"
    return None


def _store(store: Path) -> int:
    from alloop.loop.checking import check

    findings = check(store)
    for finding in findings:
        complain(str(finding))
    if findings:
        return USER
    say(f"{short(store)} is whole")
    return 0


def _repair(place: Path, out: Path) -> int:
    from alloop.repairing import lines
    from alloop.repairing import repair as repaired

    for line in lines(repaired(store_of(place), out)):
        say(line)
    say(f"{short(out)} is made; go on with: alloop resume {short(out)}")
    return 0
