"""The commands `doctor` and `version`: checks of the machine and of a store."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from alloop import __version__
from alloop.cli.campaign_paths import find_store, short_path
from alloop.cli.console import AsJson, print_error, print_json, print_text
from alloop.cli.exits import DAMAGED
from alloop.core.errors import InputError


def doctor(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STORE]", help="store to verify, or YAML file of its campaign"
        ),
    ] = None,
    as_json: AsJson = False,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="write the undamaged parts of STORE to a new store, OUT",
        ),
    ] = None,
) -> int:
    """Check this machine, or verify or repair a store."""
    if place is None and repair is not None:
        raise InputError(
            "expected a store to repair, got none; "
            "use `alloop doctor STORE --repair OUT`"
        )
    if place is not None and repair is not None:
        return _repair_store(place, repair)
    if as_json:
        return _json_report(None if place is None else find_store(place))
    return _machine_report() if place is None else _store_report(find_store(place))


def version() -> None:
    """Print the version."""
    print_text(f"alloop {__version__}")


def _json_report(store: Path | None) -> int:
    """Print the machine's facts, or the damage of a store, as JSON."""
    if store is None:
        problem = _trial_label()
        print_json(
            {"ok": not problem, "machine": dict(machine_facts()), "label": problem}
        )
        return InputError.exit_code if problem else 0
    from alloop.history.column_check import check_columns

    findings = [asdict(finding) for finding in check_columns(store)]
    print_json({"ok": not findings, "store": str(store), "findings": findings})
    return DAMAGED if findings else 0


def _machine_report() -> int:
    from alloop.report.text.fitting_table import FittingTable

    table = FittingTable("", "", show_header=False, box=None)
    for name, value in machine_facts():
        table.add_row(name, value)
    print_text(table)
    problem = _trial_label()
    if problem:
        print_error(f"a PySCF label failed here: {problem}")
        return InputError.exit_code
    print_text("a PySCF label in a child process works")
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
        print_error(str(finding))
    if findings:
        return DAMAGED
    print_text(f"{short_path(store)} is undamaged")
    return 0


def _repair_store(place: Path, out: Path) -> int:
    from alloop.store_copies.repair import repair_store as repaired
    from alloop.store_copies.repair import report_lines

    for line in report_lines(repaired(find_store(place), out)):
        print_text(line)
    print_text(
        f"wrote {short_path(out)}; continue with: alloop resume {short_path(out)}"
    )
    return 0


PACKAGES = ("alloop", "torch", "torch-geometric", "pyscf", "ase", "zarr", "distributed")


_COMPILERS = ("cc", "gcc", "clang")


def machine_facts() -> Iterator[tuple[str, str]]:
    """Yield names and values of facts that matter for a campaign.

    No heavy package is imported.
    """
    import psutil

    from alloop.workers.cluster_plan import available_cores

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(".")
    yield "python", f"{platform.python_version()} on {platform.system()}"
    for package in PACKAGES:
        yield package, _package_version(package) or "missing: install alloop again"
    for package, extra in optional_packages():
        hint = f"missing: pip install alloop[{extra}]"
        yield package, _package_version(package) or hint
    yield "cores", f"{available_cores()} usable of {os.cpu_count()}"
    yield "memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    yield "disk", f"{disk.free / 1e9:.1f} GB free here"
    yield "threads", f"{os.environ.get('OMP_NUM_THREADS', 'all')} per process"
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    yield "compiler", compiler or "none (needed by torch.compile only)"


def optional_packages() -> Iterator[tuple[str, str]]:
    """Yield each optional package for users and the extra that installs it."""
    from packaging.requirements import Requirement

    extras = metadata.metadata("alloop").get_all("Provides-Extra") or ()
    for requirement in map(Requirement, metadata.requires("alloop") or ()):
        for extra in extras:
            marker = requirement.marker
            if extra != "dev" and marker and marker.evaluate({"extra": extra}):
                yield requirement.name, extra


def _package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
