"""Jobs that label the frames of files, and the files that they write.

A job can be resumed. Beside the label file is a list of failures. Every configuration
keeps the info and arrays of its input; one with the name of a key written here is kept
as `input_<name>`. Keys written here, in eV and eV/Å:

    REF_energy, REF_forces   for trainers; equal to ASE's energy and forces
    frame, level, level_title   "frame/<id>", "level/<id>" (an id alone may look like a
                             number, and be read as one), and the level's name
    charge, spin             total charge (e; in a database total_charge alone), 2S
    total_charge, total_spin the same as MACE names them: total_spin is 2S + 1
    cpu_seconds, rung, doubts, program   its cost, how the SCF converged, signs that the
                             method does not fit, the program that made it

In a database they are `key_value_pairs`; REF_forces, all details of the label, and the
info and arrays of the input are in `data`.
"""

import csv
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read
from ase.io import write as write_atoms

from alloop.core import doubts
from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.text import printable
from alloop.files.ase_files import DATABASES, UNREADABLE, database_rows
from alloop.files.frames import GivenStructure
from alloop.files.targets import refuse_inside_store, refuse_target, replace_atomically
from alloop.jobs.label_frames import LabelProgress, Outcome, label_frames
from alloop.labels.child.labeller import Limits

_ENDINGS = (".extxyz", ".xyz", *DATABASES)
_RESULTS = (
    *("energy", "free_energy", "forces", "stress"),
    *("REF_energy", "REF_forces", "REF_stress"),
)
_STATE = ("charge", "spin", "total_charge", "total_spin")
_OF_ATOMS = ("forces", "charges", "magmoms", "energies", "stresses")  # ASE's results
_COLUMNS = ("index", "frame", "reason", "message", "passing")
_ATOMS_COLUMNS = ("numbers", "positions", "tags", "momenta", "masses")  # of a database


@dataclass(frozen=True, slots=True)
class FailureReason:
    """The failure of a frame, and the program's message."""

    failure: Failure
    message: str


Failed: TypeAlias = dict[int, FailureReason]  # by the frame's index in the input


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A labelling job: frames, level and output file.

    out: ends in .extxyz, .xyz or .db. cache: a folder of labels, which may be shared;
    by default a temporary one beside `out`, removed once no label is missing that
    another try may give. Several processes that run the same job share the work. force:
    replace another file at `out`.
    """

    given: tuple[GivenStructure, ...]
    level: Level
    out: Path
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    cache: Path | None = None
    force: bool = False

    @property
    def cache_folder(self) -> Path:
        """The folder in which each label is cached as soon as it is made."""
        return self.cache or self.out.with_name(f"{self.out.name}.labels")

    def finished_failures(self, retry: bool = False) -> Failed | None:
        """Return the failures (maybe none) of a finished job, None if it is not.

        With `retry`, a job that lost labels to limits or crashes is not finished.
        Raises InputError where `out` is the result of another request.
        """
        try:
            before = read_earlier_failures(self.out, self.given, self.level, part=retry)
        except InputError:
            if not self.force:
                raise
            return None
        if (
            retry
            and before
            and any(why.failure.is_transient for why in before.values())
        ):
            return None
        return before

    def check_request(self) -> None:
        """Raise InputError if there is nothing to label or `out` cannot be used."""
        if not self.given:
            raise InputError("expected structures to label, the files hold none")
        refuse_target(self.out, _ENDINGS, taken=False)  # see `finished_failures`
        failures = failures_file(self.out)
        is_ours = self.force or self.out.exists() or self.cache_folder.is_dir()
        is_ours = is_ours or lists_frames(failures, self.given)
        refuse_target(failures, (".csv",), taken=not is_ours)
        if self.cache is not None:
            refuse_inside_store(self.cache)

    def run(self, observe: Callable[[LabelProgress], None]) -> list[Outcome]:
        """Label the frames, write the file, and return an outcome for each frame.

        observe: see `label_frames`. Raises InputError where the level cannot be used or
        `out` cannot be written, StoreError where the cache cannot; labels made so far
        stay in the cache.
        """
        records = label_frames(
            [structure.frame for structure in self.given],
            self.level,
            workers=self.workers,
            limits=self.limits,
            cache=self.cache_folder,
            observe=observe,
        )
        write_labels(self.out, self.given, self.level, records)
        if self.cache is None and all(x.is_permanent for x in records):
            shutil.rmtree(self.cache_folder, ignore_errors=True)
        return records


def failed_frames(records: Sequence[Outcome]) -> Failed:
    """Return the failures by the index of their frame."""
    return {
        index: FailureReason(record.failure, record.message)
        for index, record in enumerate(records)
        if isinstance(record, Unlabelled)
    }


def failures_file(out: Path) -> Path:
    """Return the path of the failure list of a label file."""
    return out.with_name(f"{out.name}.failures.csv")


def lists_frames(path: Path, structures: Sequence[GivenStructure]) -> bool:
    """Return True if a file is the failure list of some of these frames."""
    ids = {structure.frame.id for structure in structures}
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            is_ours = tuple(rows.fieldnames or ()) == _COLUMNS
            return is_ours and {row["frame"] for row in rows} <= ids
    except (OSError, ValueError, csv.Error):
        return False


def write_labels(
    out: Path,
    structures: Sequence[GivenStructure],
    level: Level,
    records: Sequence[Outcome],
) -> None:
    """Write labels and failures, each file atomically, the label file last.

    The label file is a database if `out` ends in .db, extended XYZ otherwise; none is
    written without labels. Raises InputError where they cannot be written.
    """
    pairs = list(zip(structures, records, strict=True))
    good = [
        (structure, label) for structure, label in pairs if isinstance(label, Label)
    ]
    try:
        _write_failures(failures_file(out), structures, failed_frames(records))
        if good:
            with replace_atomically(out) as partial:
                _write_label_file(partial, level, good)
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"expected a file that can be written at {out} ({error}); choose another "
            "place, the labels are kept"
        ) from error


def read_earlier_failures(
    out: Path, structures: Sequence[GivenStructure], level: Level, part: bool = False
) -> Failed | None:
    """Return the failures of an earlier result of the same request.

    None where there is no such result or, if `part`, it has labels of only some of the
    frames. Raises InputError where `out` holds something else.
    """
    if not out.exists():
        return None
    try:
        images = database_rows(out) if out.suffix in DATABASES else read(out, index=":")
        failures = _read_failures(failures_file(out))
    except UNREADABLE as error:
        raise _other_request(out, f"cannot be read ({error})") from error
    if any(atoms.info.get("level") != f"level/{level.id}" for atoms in images):
        raise _other_request(out, f"holds no labels at {level.title} as it is set here")
    expected = [
        f"frame/{x.frame.id}" for i, x in enumerate(structures) if i not in failures
    ]
    frames = [atoms.info.get("frame") for atoms in images]
    if frames == expected:
        return failures
    if part and {*frames} <= {
        f"frame/{structure.frame.id}" for structure in structures
    }:
        return None
    raise _other_request(out, "holds labels of other frames")


def labelled_atoms(structure: GivenStructure, level: Level, label: Label) -> Atoms:
    """Return the structure with its label, keeping all its own info and arrays."""
    facts, old = _label_facts(structure, level, label), structure.atoms
    results = {} if old.calc is None else old.calc.results
    columns = {name: results[name] for name in _OF_ATOMS if name in results}
    others = {name: value for name, value in results.items() if name not in columns}
    taken = {*_RESULTS, *facts} - {*_STATE}
    atoms = old.copy()
    atoms.info = _renamed_keys({**old.info, **others}, {*taken, *others}) | facts
    for name in set(atoms.arrays) & taken:
        atoms.set_array(f"input_{name}", atoms.arrays.pop(name))
    for name, values in columns.items():
        atoms.set_array(f"input_{name}", values)
    calculated: dict[str, Any] = {"energy": label.energy}
    if label.has_forces:
        atoms.set_array("REF_forces", label.forces)
        calculated["forces"] = label.forces
    if label.stress is not None:
        calculated["stress"] = atoms.info["REF_stress"] = label.stress
    atoms.calc = SinglePointCalculator(atoms, **calculated)
    return atoms


def _renamed_keys(info: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    return {f"input_{k}" if k in taken else k: value for k, value in info.items()}


def _label_facts(
    structure: GivenStructure, level: Level, label: Label
) -> dict[str, Any]:
    frame, details = structure.frame, label.details
    facts = {
        "REF_energy": label.energy,
        "frame": f"frame/{frame.id}",
        "level": f"level/{level.id}",
        "level_title": level.title,
        "charge": frame.charge,
        "spin": frame.spin,
        "total_charge": frame.charge,
        "total_spin": frame.spin + 1,
        "cpu_seconds": label.cpu_seconds,
        **{name: details.get(name) for name in ("rung", doubts.KEY, "program")},
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _write_label_file(
    partial: Path, level: Level, good: Sequence[tuple[GivenStructure, Label]]
) -> None:
    images = [labelled_atoms(structure, level, label) for structure, label in good]
    if partial.suffix not in DATABASES:
        write_atoms(partial, images, format="extxyz")
        return
    with connect(partial, use_lock_file=False) as database:
        for atoms, (structure, label) in zip(images, good, strict=True):
            keys = _label_facts(structure, level, label)
            del keys["charge"]  # ASE reserves a column of this name
            data = {k: v for k, v in atoms.info.items() if k not in keys}
            data |= {k: v for k, v in atoms.arrays.items() if k not in _ATOMS_COLUMNS}
            data = {name: _plain_value(value) for name, value in data.items()}
            data["details"] = dict(label.details)
            database.write(atoms, key_value_pairs=keys, data=data)


def _plain_value(value: Any) -> Any:
    """Convert numpy scalars and text arrays, which ASE cannot put into a database."""
    if isinstance(value, np.generic) or (
        isinstance(value, np.ndarray) and value.dtype.kind not in "biufc"
    ):
        return value.tolist()
    return value


def _write_failures(
    path: Path, structures: Sequence[GivenStructure], failures: Failed
) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    with replace_atomically(path) as partial, partial.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(_COLUMNS)
        for index, why in failures.items():
            facts = (why.failure.name, printable(why.message), why.failure.is_transient)
            lines.writerow([index, structures[index].frame.id, *facts])


def _read_failures(path: Path) -> Failed:
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {
            int(row["index"]): FailureReason(Failure[row["reason"]], row["message"])
            for row in csv.DictReader(file)
        }


def _other_request(out: Path, why: str) -> InputError:
    return InputError(
        f"{out} is there already and {why}; choose another --out, or add --force "
        "to replace it"
    )
