"""Chosen labels as frames, extended XYZ files and ASE databases."""

import filecmp
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as write_atoms

from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Noise
from alloop.core.splits import Split
from alloop.export.choice import (
    LEVELS,
    USUAL,
    Choice,
    ChosenLabel,
    Level,
    chosen_labels,
)
from alloop.files.targets import LABELS, refuse_target, replace_atomically
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry

_DETAILS = ("program", "rung", "doubts", "gap", "t1", "s2")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of labels of one level, and the number of labels of each split."""

    path: Path
    level: Level
    counts: Mapping[Split, int]

    def __str__(self) -> str:
        each = ", ".join(f"{n} {split}" for split, n in self.counts.items() if n)
        return f"{sum(self.counts.values())} {self.level} labels ({each})"


def write_export(
    history: History, out: Path, choice: Choice = USUAL, *, force: bool = False
) -> tuple[Exported, ...]:
    """Write labels as extended XYZ or, if `out` ends in .db, as an ASE database.

    With level "both", `out` becomes `NAME-cheap.ENDING` and `NAME-expensive.ENDING`, so
    that no file mixes energies of two levels.

    Extended XYZ keeps positions (8 decimals) and energies exactly; forces are rounded
    to 1e-8 eV/Å. A database (SQLite) holds numbers bit for bit, keys as
    `key_value_pairs`; forces, ids and all details of the label in `data`. An existing
    file is refused or, with `force`, replaced once the new one is complete. Raises
    InputError where no label is chosen or the file cannot be written.
    """
    found = chosen_labels(history, choice)
    if not found:
        what = "" if choice.split == "all" else f"{choice.split} "
        raise InputError(
            f"{history.path} holds no such {what}labels yet; run it further, or choose "
            "another `--level` or `--split`"
        )
    parts = {level: [x for x in found if x.entry.fidelity == level] for level in LEVELS}
    files = {level: _level_file(out, level, choice) for level in LEVELS if parts[level]}
    # One of two may be there: this command, or the machine, ended between them.
    part = {file for file in files.values() if os.path.lexists(file)}
    part = set() if force or len(part) == len(files) else part
    for file in files.values():
        refuse_target(file, LABELS, force=force, taken=file not in part)
    for level, file in files.items():
        _write_whole(history, parts[level], file, taken=file in part)
    return tuple(
        Exported(file, level, Counter(x.split for x in parts[level]))
        for level, file in files.items()
    )


def dataset(history: History, choice: Choice = USUAL) -> list[Atoms]:
    """Return labelled frames with the keys of the files (see the module docstring).

    With level "both" the keys of energy and forces name the level (`REF_energy_cheap`,
    `REF_forces_expensive`, ...), and the frames have no calculator.
    """
    noise = _noise_by_label(history)
    found = [
        _labelled_atoms(history, label, noise)
        for label in chosen_labels(history, choice)
    ]
    if choice.level == "both":
        for atoms in found:
            _name_level(atoms)
    return found


def _name_level(atoms: Atoms) -> None:
    level, atoms.calc = atoms.info["level"], None
    atoms.info[f"REF_energy_{level}"] = atoms.info.pop("REF_energy")
    atoms.arrays[f"REF_forces_{level}"] = atoms.arrays.pop("REF_forces")
    if "REF_stress" in atoms.info:
        atoms.info[f"REF_stress_{level}"] = atoms.info.pop("REF_stress")


def _level_file(out: Path, level: Level, choice: Choice) -> Path:
    if choice.level != "both":
        return out
    return out.with_name(f"{out.stem}-{level}{out.suffix}")


def _write_whole(
    history: History, labels: Sequence[ChosenLabel], out: Path, *, taken: bool
) -> None:
    """Write a file; one that is there (`taken`) must be what would be written."""
    write = _write_database if out.suffix == ".db" else _write_extxyz
    try:
        with replace_atomically(out) as partial:
            write(history, labels, partial)
            if taken and not filecmp.cmp(partial, out, shallow=False):
                refuse_target(out, LABELS)
    except (OSError, sqlite3.Error) as error:
        raise _write_error(out, error) from error


def _write_extxyz(history: History, labels: Sequence[ChosenLabel], out: Path) -> None:
    noise = _noise_by_label(history)
    with out.open("w") as file:
        for label in labels:  # one at a time, to save memory: there may be 100,000
            write_atoms(file, _labelled_atoms(history, label, noise), format="extxyz")


def _write_database(history: History, labels: Sequence[ChosenLabel], out: Path) -> None:
    noise = _noise_by_label(history)
    with connect(out, use_lock_file=False) as database:
        for label in labels:
            atoms = _labelled_atoms(history, label, noise)
            keys, atoms.info = atoms.info, {}
            del keys["charge"]  # ASE reserves a column of this name
            forces = atoms.arrays.pop("REF_forces")
            data = _database_data(label.entry) | {"REF_forces": forces}
            if "REF_stress" in keys:
                data["REF_stress"] = keys.pop("REF_stress")
            database.write(atoms, key_value_pairs=keys, data=data)


_Noises: TypeAlias = Mapping[tuple[LevelId, FrameId], Noise]


def _noise_by_label(history: History) -> _Noises:
    found = (x.noise for x in history.rechecked() if x.noise.failure is None)
    return {(noise.level, noise.frame): noise for noise in found}


def _labelled_atoms(history: History, chosen: ChosenLabel, noises: _Noises) -> Atoms:
    label, record = chosen.entry, chosen.entry.record
    if not isinstance(record, Label):
        raise TypeError("only a label can be exported")
    atoms = to_atoms(label.frame)
    noise = noises.get((label.level, label.frame.id))
    atoms.info |= _database_keys(history, chosen, noise) | {"REF_energy": record.energy}
    atoms.arrays["REF_forces"] = record.forces
    known: dict[str, Any] = {"energy": record.energy, "forces": record.forces}
    if record.stress is not None:
        known["stress"] = atoms.info["REF_stress"] = record.stress
    atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms


def _database_keys(
    history: History, chosen: ChosenLabel, noise: Noise | None
) -> dict[str, Any]:
    label = chosen.entry
    frame, details = label.frame, label.record.details
    title = history.attrs.get("levels", {}).get(label.fidelity, {}).get("title")
    keys = {
        "config_type": label.fidelity if chosen.split == "train" else chosen.split,
        "split": chosen.split,
        "level": label.fidelity,
        "fidelity": label.fidelity,
        "total_charge": frame.charge,
        "total_spin": frame.spin + 1,
        "frame": f"frame/{frame.id}",
        "level_id": f"level/{label.level}",
        "level_title": title,
        "purpose": label.purpose,
        "reason": label.reason,
        "round": label.round,
        "generation": label.generation,
        "molecule": label.molecule,
        "cpu_seconds": label.cpu_seconds,
        "noise_energy": noise and noise.energy,
        "noise_forces": noise and noise.force_rms,
        **{key: details.get(key) for key in _DETAILS},
    }
    return {key: value for key, value in keys.items() if value not in (None, "")}


def _database_data(label: LabelEntry) -> dict[str, Any]:
    return {
        "frame_id": label.frame.id,
        "level_id": label.level,
        "details": dict(label.record.details),
        "journal": {"asked": label.asked, "answered": label.answered},
    }


def _write_error(out: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a file that can be written at {out} ({error}); choose another place"
    )
