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
    rung                     what made the SCF converge; "default" needed no help
    doubts                   "instability", "multireference", "contamination", joined by
                             commas: signs that the method does not fit the frame
    gap, t1, s2              HOMO-LUMO gap in eV, T1 diagnostic, <S²>
    noise_energy, noise_forces   how far energy (eV) and forces (eV/Å, RMS) moved when
                             the label was made again at tighter settings and turned

What is not known of a label is left out: most are made only once, a table knows no gap.
"""

import sqlite3
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as write_atoms

from alloop.core.atoms import to_atoms
from alloop.core.doubts import KEY, Doubt, read
from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Noise
from alloop.loop import events as e
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.told import told

_FIDELITIES = ("cheap", "expensive")
_DETAILS = ("program", "rung", "doubts", "gap", "t1", "s2")


def write(
    history: History,
    out: Path,
    fidelity: str | None = None,
    at: int | None = None,
    without: Collection[Doubt] = (),
) -> Path:
    """Write labels as extended XYZ or, if `out` ends in .db, as an ASE database.

    Parameters
    ----------
    fidelity
        "cheap" or "expensive"; both by default.
    at
        Only what this generation was trained on; by default all good labels that are
        not excluded, the test set among them.
    without
        Leave out labels on which one of these doubts is cast.

    Extended XYZ round-trips positions exactly (8 decimals), as energies; forces are
    rounded to 1e-8 eV/Å. A database (SQLite) holds numbers bit for bit, keys as
    `key_value_pairs`; forces, ids and all details of the label in `data`. A file that
    is there already is replaced, as a whole and only when the new one is complete.
    InputError where there is nothing to write, or nowhere.
    """
    chosen = _chosen(history, fidelity, at)
    kept = [x for x in chosen if not read(x.record.details) & set(without)]
    if not kept:
        raise InputError(f"{history.path} holds no such labels yet; run it further")
    partial = _partial(out)
    try:
        (_database if out.suffix == ".db" else _extxyz)(history, kept, partial)
        partial.replace(out)
    except (OSError, sqlite3.Error) as error:
        raise _cannot(out, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def doubts(names: str) -> frozenset[Doubt]:
    """The doubts of a list such as "instability,multireference"; InputError where one
    is not known."""
    try:
        return read({KEY: names.replace(" ", "")})
    except KeyError as error:
        known = ", ".join(doubt.name.lower() for doubt in Doubt)
        raise InputError(
            f"expected some of {known}, joined by commas, got `{names}`"
        ) from error


def _extxyz(history: History, labels: Sequence[Told], out: Path) -> None:
    noise = _noise(history)
    with out.open("w") as file:
        for label in labels:  # one at a time: there may be a hundred thousand
            write_atoms(file, _atoms(history, label, noise), format="extxyz")


def _database(history: History, labels: Sequence[Told], out: Path) -> None:
    noise = _noise(history)
    with connect(out, use_lock_file=False) as database:
        for label in labels:
            atoms = _atoms(history, label, noise)
            keys, atoms.info = atoms.info, {}
            del keys["charge"]  # ASE keeps a column of this name for itself
            forces = atoms.arrays.pop("REF_forces")
            data = _data(label) | {"REF_forces": forces}
            database.write(atoms, key_value_pairs=keys, data=data)


_Noises: TypeAlias = Mapping[tuple[LevelId, FrameId], Noise]


def _noise(history: History) -> _Noises:
    found = (x.noise for x in history.rechecked() if x.noise.failure is None)
    return {(noise.level, noise.frame): noise for noise in found}


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
    return found


def _learned(history: History, labels: Iterable[Told], at: int) -> Iterable[Told]:
    """The labels that the Train command of generation `at` names."""
    lesson = {x.generation: x for x in history.chronicle.lessons}.get(at)
    done = [event.generation for _, event in history.generations]
    if lesson is None or at not in done:
        known = ", ".join(map(str, done)) or "none yet"
        raise InputError(
            f"expected a generation of {history.path} (there are: {known}), got {at}"
        )
    (entry,) = history.pick([lesson.seq])
    asked = {x.name: x for x in entry.turn.commands if isinstance(x, e.Train)}
    command = asked[lesson.name]
    ids = {"cheap": set(command.cheap), "expensive": set(command.expensive)}
    return (label for label in labels if label.frame.id in ids[label.fidelity])


def _atoms(history: History, label: Told, noises: _Noises) -> Atoms:
    record = label.record
    if not isinstance(record, Label):
        raise TypeError("only a label can be exported")
    atoms = to_atoms(label.frame)
    noise = noises.get((label.level, label.frame.id))
    atoms.info |= _keys(history, label, noise) | {"REF_energy": record.energy}
    atoms.arrays["REF_forces"] = record.forces
    atoms.calc = SinglePointCalculator(
        atoms, energy=record.energy, forces=record.forces
    )
    return atoms


def _keys(history: History, label: Told, noise: Noise | None) -> dict[str, Any]:
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
        "noise_energy": noise and noise.energy,
        "noise_forces": noise and noise.force_rms,
        **{key: details.get(key) for key in _DETAILS},
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
