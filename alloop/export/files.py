"""Chosen labels as frames, files and ASE databases, and folders for MACE and NequIP."""

import filecmp
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.db import connect
from ase.io import write as write_atoms

from alloop.core.atoms import to_atoms
from alloop.core.dipoles import stack_dipoles
from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Noise
from alloop.core.seeds import Split
from alloop.export.choice import (
    LEVELS,
    USUAL,
    Choice,
    ChosenLabel,
    Level,
    chosen_labels,
)
from alloop.files.targets import (
    LABELS,
    refuse_inside_store,
    refuse_target,
    replace_atomically,
)
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry

_DETAILS = ("program", "rung", "doubts", "gap", "t1", "s2")

Program: TypeAlias = Literal["mace", "nequip"]
PROGRAMS: tuple[Program, ...] = get_args(Program)
SPLITS = ("train", "validation", "test")
_Noises: TypeAlias = Mapping[tuple[LevelId, FrameId], Noise]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of labels of one level, and the number of labels of each split."""

    path: Path
    level: Level
    counts: Mapping[Split, int]

    def __str__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split, n in self.counts.items() if n)
        return f"{sum(self.counts.values())} {self.level} labels ({splits})"


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
    labels = chosen_labels(history, choice)
    if not labels:
        what = "" if choice.split == "all" else f"{choice.split} "
        raise InputError(
            f"{history.path} holds no such {what}labels yet; run it further, or choose "
            "another `--level` or `--split`"
        )
    parts = {
        level: [x for x in labels if x.entry.fidelity == level] for level in LEVELS
    }
    files = {level: _level_file(out, level, choice) for level in LEVELS if parts[level]}
    # One of two may be there: this command, or the machine, ended between them.
    part = {file for file in files.values() if os.path.lexists(file)}
    part = set() if force or len(part) == len(files) else part
    for file in files.values():
        refuse_target(file, LABELS, force=force, taken=file not in part)
    for level, file in files.items():
        _write_labels(history, parts[level], file, taken=file in part)
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
    images = [
        _labelled_atoms(history, label, noise)
        for label in chosen_labels(history, choice)
    ]
    if choice.level == "both":
        for atoms in images:
            _name_level(atoms)
    return images


def _name_level(atoms: Atoms) -> None:
    level, atoms.calc = atoms.info["level"], None
    atoms.info[f"REF_energy_{level}"] = atoms.info.pop("REF_energy")
    if "REF_forces" in atoms.arrays:
        atoms.arrays[f"REF_forces_{level}"] = atoms.arrays.pop("REF_forces")
    if "REF_stress" in atoms.info:
        atoms.info[f"REF_stress_{level}"] = atoms.info.pop("REF_stress")


def _level_file(out: Path, level: Level, choice: Choice) -> Path:
    if choice.level != "both":
        return out
    return out.with_name(f"{out.stem}-{level}{out.suffix}")


def _write_labels(
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
            data = _database_data(label.entry)
            if "REF_forces" in atoms.arrays:
                data["REF_forces"] = atoms.arrays.pop("REF_forces")
            if "REF_stress" in keys:
                data["REF_stress"] = keys.pop("REF_stress")
            database.write(atoms, key_value_pairs=keys, data=data)


def _noise_by_label(history: History) -> _Noises:
    noises = (x.noise for x in history.rechecked() if x.noise.failure is None)
    return {(noise.level, noise.frame): noise for noise in noises}


def _labelled_atoms(history: History, chosen: ChosenLabel, noises: _Noises) -> Atoms:
    label, record = chosen.entry, chosen.entry.record
    if not isinstance(record, Label):
        raise TypeError("only a label can be exported")
    atoms = to_atoms(label.frame)
    noise = noises.get((label.level, label.frame.id))
    atoms.info |= _database_keys(history, chosen, noise) | {"REF_energy": record.energy}
    results: dict[str, Any] = {"energy": record.energy}
    if record.has_forces:
        results["forces"] = atoms.arrays["REF_forces"] = record.forces
    if record.stress is not None:
        results["stress"] = atoms.info["REF_stress"] = record.stress
    if (dipoles := stack_dipoles([record.details])) is not None:
        results["dipole"] = atoms.info["REF_dipole"] = dipoles[0]
    atoms.calc = SinglePointCalculator(atoms, **results)
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


def write_trainer_folder(
    out: Path, program: Program, frames: list[Atoms], atoms: Mapping[str, float]
) -> str:
    """Write the files of one program into a new folder; return the line to call it.

    frames: labelled frames of one level with the keys of `alloop.export`. atoms: eV of
    free atoms at this level by symbol. The folder gets `train.xyz`, `validation.xyz`,
    `test.xyz`, those of them that have frames, the configuration where the program
    wants one, and a README with the line. For MACE single atoms (`config_type:
    IsolatedAtom`) head the training file. Raises InputError where the folder is there
    or there are no frames to train and to validate on.
    """
    parts = {x: [f for f in frames if f.info["split"] == x] for x in SPLITS}
    for split in SPLITS[:2]:
        if not parts[split]:
            raise InputError(
                f"expected frames of the split `{split}`, the store has none at this "
                "level; choose another `--level`, or run it further"
            )
    _make_folder(out)
    texts = _TEXTS[program](parts, dict(atoms), out)
    if program == "mace":
        parts["train"] = [_free_atom(*x) for x in atoms.items()] + parts["train"]
    for split, images in parts.items():
        if images:
            with replace_atomically(out / f"{split}.xyz") as partial:
                write_atoms(partial, images, format="extxyz")
    for name, text in texts.items():
        with replace_atomically(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return texts["README.md"].split("```bash\n")[1].split("\n```")[0]


def _make_folder(out: Path) -> None:
    refuse_inside_store(out)
    try:
        out.mkdir()
    except OSError as error:
        raise InputError(
            f"expected a new folder, {out} cannot be made ({error.strerror}); choose "
            "another place"
        ) from error


def _free_atom(symbol: str, energy: float) -> Atoms:
    """Return a single atom as MACE reads its energy."""
    atoms = Atoms(symbol, positions=[(0, 0, 0)])
    atoms.info |= {"config_type": "IsolatedAtom", "REF_energy": energy}
    atoms.arrays["REF_forces"] = atoms.positions * 0
    return atoms


def _mace_texts(
    parts: Mapping[str, list[Atoms]], atoms: dict[str, float], out: Path
) -> dict[str, str]:
    energies = ", ".join(
        f"{atomic_numbers[x]}: {energy!r}" for x, energy in atoms.items()
    )
    test = " --test_file=test.xyz" if parts["test"] else ""
    line = (
        f"cd {out.name} && mace_run_train --name={out.name} --train_file=train.xyz "
        f"--valid_file=validation.xyz{test} --energy_key=REF_energy "
        f"--forces_key=REF_forces --E0s='{{{energies}}}' --default_dtype=float64"
    )
    return {"README.md": _readme("MACE", parts, line)}


def _nequip_texts(
    parts: Mapping[str, list[Atoms]], atoms: dict[str, float], out: Path
) -> dict[str, str]:
    names = ", ".join(atoms)
    tests = "\n  test_file_path: test.xyz" if parts["test"] else ""
    energies = ", ".join(f"{x}: {energy!r}" for x, energy in atoms.items())
    config = _NEQUIP.format(
        names=names, energies=energies, test=tests, count=len(parts["train"])
    )
    line = f"cd {out.name} && nequip-train -cp $PWD -cn config.yaml"
    return {"config.yaml": config, "README.md": _readme("NequIP", parts, line)}


_TEXTS: dict[Program, Callable[..., dict[str, str]]] = {
    "mace": _mace_texts,
    "nequip": _nequip_texts,
}


def _readme(program: str, parts: Mapping[str, list[Atoms]], line: str) -> str:
    counts = Counter({split: len(images) for split, images in parts.items()})
    level = parts["train"][0].info.get("level_title", "one level")
    rows = "\n".join(f"- {split}: {count} frames" for split, count in counts.items())
    return (
        f"# Labels for {program}\n\nEnergies (eV) `REF_energy` and forces (eV/Å) "
        f"`REF_forces` at {level}:\n\n{rows}\n\nTrain with\n\n```bash\n{line}\n```\n"
    )


_NEQUIP = """\
# For NequIP 0.7 and later; {count} frames to train on. Sizes and rates are to be tuned.
run: [train, val]
cutoff_radius: 5.0
model_type_names: [{names}]
data:
  _target_: nequip.data.datamodule.ASEDataModule
  seed: 1
  train_file_path: train.xyz
  val_file_path: validation.xyz{test}
  key_mapping: {{REF_energy: total_energy, REF_forces: forces}}
  transforms:
    - _target_: nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper
      model_type_names: ${{model_type_names}}
    - _target_: nequip.data.transforms.NeighborListTransform
      r_max: ${{cutoff_radius}}
  train_dataloader: {{_target_: torch.utils.data.DataLoader, batch_size: 5}}
  val_dataloader: {{_target_: torch.utils.data.DataLoader, batch_size: 10}}
  stats_manager:
    _target_: nequip.data.CommonDataStatisticsManager
    type_names: ${{model_type_names}}
trainer:
  _target_: lightning.Trainer
  max_epochs: 1000
training_module:
  _target_: nequip.train.EMALightningModule
  ema_decay: 0.999
  loss:
    _target_: nequip.train.EnergyForceLoss
    per_atom_energy: true
    coeffs: {{total_energy: 1.0, forces: 1.0}}
  val_metrics:
    _target_: nequip.train.EnergyForceMetrics
    coeffs: {{per_atom_energy_mae: 1.0, forces_mae: 1.0}}
  optimizer: {{_target_: torch.optim.Adam, lr: 0.005}}
  model:
    _target_: nequip.model.NequIPGNNModel
    seed: 1
    model_dtype: float32
    type_names: ${{model_type_names}}
    r_max: ${{cutoff_radius}}
    num_layers: 3
    l_max: 2
    num_features: 32
    avg_num_neighbors: ${{training_data_stats:num_neighbors_mean}}
    per_type_energy_shifts: {{{energies}}}   # eV of free atoms
    per_type_energy_scales: ${{training_data_stats:forces_rms}}
"""
