"""The commands `doctor` and `version`: checks of the machine and of a store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alloop import __version__
from alloop.cli.campaign_paths import find_store, short_path
from alloop.cli.console import AsJson, complain, say, say_json
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
    """Show what this machine can do, or verify every byte of a store, or repair it."""
    if place is None and repair is not None:
        raise InputError("expected the STORE to repair: doctor STORE --repair OUT")
    if place is not None and repair is not None:
        return _repair(place, repair)
    if as_json:
        return _for_scripts(None if place is None else find_store(place))
    return _machine_report() if place is None else _store_report(find_store(place))


def version() -> None:
    """Print the version."""
    say(f"alloop {__version__}")


def _for_scripts(store: Path | None) -> int:
    """Print the machine's facts, or the damage of a store, as JSON."""
    if store is None:
        from alloop.cli.machine_facts import machine_facts

        problem = _trial_label()
        say_json(
            {"ok": not problem, "machine": dict(machine_facts()), "label": problem}
        )
        return USER if problem else 0
    from alloop.history.column_check import check_columns

    findings = [asdict(each) for each in check_columns(store)]
    say_json({"ok": not findings, "store": str(store), "findings": findings})
    return USER if findings else 0


def _machine_report() -> int:
    from alloop.cli.machine_facts import machine_facts
    from alloop.report.text.fitting_table import FittingTable

    table = FittingTable("", "", show_header=False, box=None)
    for name, value in machine_facts():
        table.add_row(name, value)
    say(table)
    problem = _trial_label()
    if problem:
        complain(f"a PySCF label failed here: {problem}")
        return USER
    say("a PySCF label in a child process works")
    return 0


def _trial_label() -> str | None:
    """Label hydrogen, as a campaign would; return the failure, or None."""
    from ase.build import molecule

    from alloop.core.atoms import from_atoms
    from alloop.core.records import Unlabelled
    from alloop.labels.child.labeller import IsolatedLabeller
    from alloop.labels.levels import pyscf_level

    with IsolatedLabeller(pyscf_level("hf", "sto-3g")) as labeller:
        record = labeller.label(from_atoms(molecule("H2")))
    if isinstance(record, Unlabelled):
        return f"{record.failure} ({record.message})"
    return None


def _store_report(store: Path) -> int:
    from alloop.history.column_check import check_columns

    findings = check_columns(store)
    for finding in findings:
        complain(str(finding))
    if findings:
        return USER
    say(f"{short_path(store)} is whole")
    return 0


def _repair(place: Path, out: Path) -> int:
    from alloop.store_copies.repair import repair_store as repaired
    from alloop.store_copies.repair import report_lines

    for line in report_lines(repaired(find_store(place), out)):
        say(line)
    say(f"{short_path(out)} is made; go on with: alloop resume {short_path(out)}")
    return 0
