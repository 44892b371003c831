"""Export of labels to extended XYZ files and ASE databases.

A file holds labels of one level, one configuration each. Energies are in eV, forces in
eV/Å, positions in Å.

Keys of a configuration (in a database: key-value pairs, and `data` for the rest):

    REF_energy, REF_forces   for trainers; equal to ASE's energy and forces
    level (also fidelity)    "cheap" or "expensive"
    split                    "train", "validation" or "test" (`alloop.core.splits`)
    config_type              the level of training labels, else the split
    charge, spin             total charge (e; in a database total_charge alone), 2S
    total_charge, total_spin the same as MACE names them: total_spin is 2S + 1
    frame, level_id          "frame/<id>", "level/<id>" (an id alone may look like a
                             number, and be read as one)
    level_title              the level's name
    purpose, reason, round, generation, molecule   origin of the request
    cpu_seconds, program     its cost, and the program that made it
    rung                     SCF settings that converged; "default" if unchanged
    doubts                   "instability", "multireference", "contamination",
                             "unbound", "rival", joined by commas: signs that the method
                             does not fit the frame
    gap, t1, s2              HOMO-LUMO gap in eV, T1 diagnostic, <S²>
    noise_energy, noise_forces   change of energy (eV) and forces (eV/Å, RMS) when the
                             label was computed again, rotated and at tighter settings

Unknown keys are left out: most labels are computed only once, tables have no gap.
"""

import sqlite3
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as write_atoms

from alloop.core.atoms import to_atoms
from alloop.core.doubts import KEY, Doubt, doubts_of_details
from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Noise
from alloop.core.splits import Split, held_out, split_of
from alloop.files.targets import LABELS, refuse_target
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e

Level: TypeAlias = Literal["cheap", "expensive"]
Levels: TypeAlias = Literal["cheap", "expensive", "both"]
Splits: TypeAlias = Literal["train", "validation", "test", "all"]
_LEVELS: tuple[Level, ...] = get_args(Level)
_DETAILS = ("program", "rung", "doubts", "gap", "t1", "s2")


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of labels of a campaign: of one level or both, of one split or all.

    split: "train" is the training set of a generation, "validation" the frames that
    influenced the campaign (its frozen test set, cheap frames held out to calibrate
    surprise, and the share `validation` of the expensive ones that its trainer held
    out, if any), "test" those used only for examination. at: as of this generation; by
    default the last one, without labels that were excluded since. without: leave out
    labels with these doubts.
    """

    level: Levels = "expensive"
    split: Splits = "train"
    at: int | None = None
    without: Collection[Doubt] = ()
    validation: float = 0.0

    @property
    def levels(self) -> tuple[Level, ...]:
        """The chosen levels."""
        return _LEVELS if self.level == "both" else (self.level,)


USUAL = Choice()


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of labels of one level, and the number of labels of each split."""

    path: Path
    level: Level
    counts: Mapping[Split, int]

    def __str__(self) -> str:
        each = ", ".join(f"{n} {split}" for split, n in self.counts.items() if n)
        return f"{sum(self.counts.values())} {self.level} labels ({each})"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A label and its split."""

    told: LabelEntry
    split: Split


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
    found = _chosen_labels(history, choice)
    if not found:
        what = "" if choice.split == "all" else f"{choice.split} "
        raise InputError(
            f"{history.path} holds no such {what}labels yet; run it further, or choose "
            "another `--level` or `--split`"
        )
    parts = {level: [x for x in found if x.told.fidelity == level] for level in _LEVELS}
    files = {level: _file(out, level, choice) for level in _LEVELS if parts[level]}
    for file in files.values():
        refuse_target(file, LABELS, force=force)
    for level, file in files.items():
        _write_whole(history, parts[level], file)
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
        for label in _chosen_labels(history, choice)
    ]
    if choice.level == "both":
        for atoms in found:
            _name_level(atoms)
    return found


def _name_level(atoms: Atoms) -> None:
    level, atoms.calc = atoms.info["level"], None
    atoms.info[f"REF_energy_{level}"] = atoms.info.pop("REF_energy")
    atoms.arrays[f"REF_forces_{level}"] = atoms.arrays.pop("REF_forces")


def _file(out: Path, level: Level, choice: Choice) -> Path:
    if choice.level != "both":
        return out
    return out.with_name(f"{out.stem}-{level}{out.suffix}")


def _write_whole(history: History, labels: Sequence[_Chosen], out: Path) -> None:
    partial = _partial_file(out)
    try:
        (_write_database if out.suffix == ".db" else _write_extxyz)(
            history, labels, partial
        )
        partial.replace(out)
    except (OSError, sqlite3.Error) as error:
        raise _write_error(out, error) from error
    finally:
        partial.unlink(missing_ok=True)


def parse_doubts(names: str) -> frozenset[Doubt]:
    """Parse a list of doubts such as "instability,multireference".

    Raises InputError where one is not known.
    """
    try:
        return doubts_of_details({KEY: names.replace(" ", "")})
    except KeyError as error:
        known = ", ".join(doubt.name.lower() for doubt in Doubt)
        raise InputError(
            f"expected some of {known}, joined by commas, got `{names}`"
        ) from error


def _write_extxyz(history: History, labels: Sequence[_Chosen], out: Path) -> None:
    noise = _noise_by_label(history)
    with out.open("w") as file:
        for label in labels:  # one at a time, to save memory: there may be 100,000
            write_atoms(file, _labelled_atoms(history, label, noise), format="extxyz")


def _write_database(history: History, labels: Sequence[_Chosen], out: Path) -> None:
    noise = _noise_by_label(history)
    with connect(out, use_lock_file=False) as database:
        for label in labels:
            atoms = _labelled_atoms(history, label, noise)
            keys, atoms.info = atoms.info, {}
            del keys["charge"]  # ASE reserves a column of this name
            forces = atoms.arrays.pop("REF_forces")
            data = _database_data(label.told) | {"REF_forces": forces}
            database.write(atoms, key_value_pairs=keys, data=data)


_Noises: TypeAlias = Mapping[tuple[LevelId, FrameId], Noise]


def _noise_by_label(history: History) -> _Noises:
    found = (x.noise for x in history.rechecked() if x.noise.failure is None)
    return {(noise.level, noise.frame): noise for noise in found}


def _chosen_labels(history: History, choice: Choice) -> list[_Chosen]:
    """Return the labels of a choice, in the order of the journal."""
    _refuse_unknown(choice)
    lesson = _lesson(history, choice)
    return [
        _Chosen(label, _split(label, lesson))
        for label in label_entries(history)
        if isinstance(label.record, Label)
        and label.fidelity in choice.levels
        and not doubts_of_details(label.record.details) & set(choice.without)
        and _counts(label, choice, lesson)
    ]


def _refuse_unknown(choice: Choice) -> None:
    for name, given, known in (
        ("level", choice.level, get_args(Levels)),
        ("split", choice.split, get_args(Splits)),
    ):
        if given not in known:
            raise InputError(
                f"expected {name} to be one of {', '.join(known)}, got {given}"
            )


@dataclass(frozen=True, slots=True)
class _Lesson:
    """The training and held-out frames of a generation, by fidelity.

    seq: the number of the journal record that requested its training.
    """

    seq: int
    trained: Mapping[str, Set[FrameId]]
    heldout: Mapping[str, Set[FrameId]]


def _lesson(history: History, choice: Choice) -> _Lesson | None:
    """Return the frames of the chosen generation.

    None where there is none yet and the choice does not need one. Raises InputError
    where it does.
    """
    done = [event.generation for _, event in history.generations]
    at = max(done, default=None) if choice.at is None else choice.at
    asked = {x.generation: x for x in history.chronicle.lessons}.get(at or 0)
    if asked is None or at not in done:
        if choice.at is None and choice.split != "train":
            return None
        known = ", ".join(map(str, done)) or "none yet"
        got = "" if choice.at is None else f", got {choice.at}"
        raise InputError(
            f"expected a generation of {history.path} (there are: {known}){got}; "
            "`--split all` takes all labels"
        )
    (entry,) = history.select([asked.seq])
    commands = {x.name: x for x in entry.turn.commands if isinstance(x, e.Train)}
    command = commands[asked.name]
    aside = held_out(command.expensive, choice.validation)
    trained = {"cheap": set(command.cheap), "expensive": {*command.expensive} - aside}
    heldout = {"cheap": set(command.heldout), "expensive": aside}
    return _Lesson(asked.seq, trained, heldout)


def _split(label: LabelEntry, lesson: _Lesson | None) -> Split:
    if lesson and label.frame.id in lesson.heldout[label.fidelity]:
        return "validation"
    return split_of(label.purpose, label.is_given)


def _counts(label: LabelEntry, choice: Choice, lesson: _Lesson | None) -> bool:
    """Return True if a label belongs to the chosen split and generation."""
    if choice.at is None and label.excluded:
        return False
    if choice.split == "train":
        assert lesson is not None
        return label.frame.id in lesson.trained[label.fidelity]
    if choice.at is not None and lesson is not None and label.answered > lesson.seq:
        return False
    return choice.split in ("all", _split(label, lesson))


def _labelled_atoms(history: History, chosen: _Chosen, noises: _Noises) -> Atoms:
    label, record = chosen.told, chosen.told.record
    if not isinstance(record, Label):
        raise TypeError("only a label can be exported")
    atoms = to_atoms(label.frame)
    noise = noises.get((label.level, label.frame.id))
    atoms.info |= _database_keys(history, chosen, noise) | {"REF_energy": record.energy}
    atoms.arrays["REF_forces"] = record.forces
    atoms.calc = SinglePointCalculator(
        atoms, energy=record.energy, forces=record.forces
    )
    return atoms


def _database_keys(
    history: History, chosen: _Chosen, noise: Noise | None
) -> dict[str, Any]:
    label = chosen.told
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


def _partial_file(out: Path) -> Path:
    """Return the path of the temporary file, with the suffix that sets the format."""
    return out.with_name(f".{out.stem}.{uuid.uuid4().hex}{out.suffix}")


def _write_error(out: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a file that can be written at {out} ({error}); choose another place"
    )
