"""Labels to files that other programs read: extended XYZ and ASE databases.

Every label is one configuration, so a frame that has both labels stands there twice,
with the fidelity in `config_type`. Energies in eV, forces in eV/Å, positions in Å.

Keys of a configuration (in a database: key-value pairs, and `data` for the rest):

    REF_energy, REF_forces   for trainers; ASE's energy and forces say the same
    config_type              "cheap", "expensive", or "test" for the frozen test set
    split                    "train" or "test"
    charge, spin             total charge (e; in a database total_charge alone), 2S
    total_charge, total_spin the same as MACE names them: total_spin is 2S + 1
    frame, level, level_title   "frame/<id>", "level/<id>" (an id alone may look like a
                             number, and be read as one), and the level's name
    purpose, reason, round, generation, molecule   who asked for it, and why
    cpu_seconds, program     what it cost and which program made it
"""

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as write_atoms

from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.loop.told import Told, told

_FIDELITIES = ("cheap", "expensive")


def write(
    history: History, out: Path, fidelity: str | None = None, at: int | None = None
) -> Path:
    """Write labels as extended XYZ or, if `out` ends in .db, as an ASE database.

    Parameters
    ----------
    fidelity
        "cheap" or "expensive"; both by default.
    at
        Only what this generation was trained on; by default all good labels that are
        not excluded, the test set among them.

    A file that is there already is replaced, as a whole and only when the new one is
    complete. InputError where there is nothing to write, or nowhere.
    """
    out = Path(out)
    return (write_ase_db if out.suffix == ".db" else write_extxyz)(
        history, out, fidelity, at
    )


def write_extxyz(
    history: History, out: Path, fidelity: str | None = None, at: int | None = None
) -> Path:
    """Extended XYZ, whose positions round-trip exactly (8 decimals), as energies do;
    forces are rounded to 1e-8 eV/Å."""
    images = [_atoms(history, label) for label in _chosen(history, fidelity, at)]
    partial = _partial(out)
    try:
        write_atoms(partial, images, format="extxyz")
        partial.replace(out)
    except (OSError, sqlite3.Error) as error:
        raise _cannot(out, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def write_ase_db(
    history: History, out: Path, fidelity: str | None = None, at: int | None = None
) -> Path:
    """An ASE database (SQLite): numbers bit for bit, keys as `key_value_pairs`, forces,
    ids and details of the label in `data`."""
    labels = _chosen(history, fidelity, at)
    partial = _partial(out)
    try:
        with connect(partial, use_lock_file=False) as database:
            for label in labels:
                atoms = _atoms(history, label)
                keys, atoms.info = atoms.info, {}
                del keys["charge"]  # ASE keeps a column of this name for itself
                forces = atoms.arrays.pop("REF_forces")
                data = _data(label) | {"REF_forces": forces}
                database.write(atoms, key_value_pairs=keys, data=data)
        partial.replace(out)
    except (OSError, sqlite3.Error) as error:
        raise _cannot(out, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def _chosen(history: History, fidelity: str | None, at: int | None) -> Sequence[Told]:
    if fidelity not in (None, *_FIDELITIES):
        raise InputError(
            f"expected fidelity to be one of {', '.join(_FIDELITIES)}, got {fidelity}"
        )
    found = [
        label
        for label in told(history)
        if isinstance(label.record, Label) and fidelity in (None, label.fidelity)
    ]
    if at is None:
        found = [label for label in found if not label.excluded]
    else:
        found = list(_learned(history, found, at))
    if not found:
        raise InputError(f"{history.path} holds no such labels yet; run it further")
    return found


def _learned(history: History, labels: Iterable[Told], at: int) -> Iterable[Told]:
    """The labels that the Train command of generation `at` names."""
    trainings = {
        command.generation: command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, e.Train)
    }
    if at not in {event.generation for event in history.trained()}:
        known = ", ".join(str(x.generation) for x in history.trained()) or "none yet"
        raise InputError(
            f"expected a generation of {history.path} (there are: {known}), got {at}"
        )
    command = trainings[at]
    ids = {"cheap": set(command.cheap), "expensive": set(command.expensive)}
    return (label for label in labels if label.frame.id in ids[label.fidelity])


def _atoms(history: History, label: Told) -> Atoms:
    record = label.record
    if not isinstance(record, Label):
        raise TypeError("only a label can be exported")
    atoms = to_atoms(label.frame)
    atoms.info |= _keys(history, label) | {"REF_energy": record.energy}
    atoms.arrays["REF_forces"] = record.forces
    atoms.calc = SinglePointCalculator(
        atoms, energy=record.energy, forces=record.forces
    )
    return atoms


def _keys(history: History, label: Told) -> dict[str, Any]:
    frame, details = label.frame, label.record.details
    test = label.purpose == "test"
    title = history.attrs.get("levels", {}).get(label.fidelity, {}).get("title")
    keys = {
        "config_type": "test" if test else label.fidelity,
        "split": "test" if test else "train",
        "fidelity": label.fidelity,
        "total_charge": frame.charge,
        "total_spin": frame.spin + 1,
        "frame": f"frame/{frame.id}",
        "level": f"level/{label.level}",
        "level_title": title,
        "purpose": label.purpose,
        "reason": label.reason,
        "round": label.round,
        "generation": label.generation,
        "molecule": label.molecule,
        "cpu_seconds": label.cpu_seconds,
        "program": details.get("program"),
    }
    return {key: value for key, value in keys.items() if value not in (None, "")}


def _data(label: Told) -> dict[str, Any]:
    return {
        "frame_id": label.frame.id,
        "level_id": label.level,
        "details": dict(label.record.details),
        "journal": {"asked": label.asked, "answered": label.answered},
    }


def _partial(out: Path) -> Path:
    """Where the file grows up; its ending tells ASE the format."""
    return out.with_name(f".{out.stem}.{uuid.uuid4().hex}{out.suffix}")


def _cannot(out: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a file that can be written at {out} ({error}); choose another place"
    )
