"""Folders of labels for other training programs: MACE and NequIP."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ase import Atoms
from ase.data import atomic_numbers
from ase.io import write as write_atoms

from alloop.core.errors import InputError
from alloop.files.targets import refuse_inside_store, replace_atomically

Program: TypeAlias = Literal["mace", "nequip"]
PROGRAMS: tuple[Program, ...] = get_args(Program)
SPLITS = ("train", "validation", "test")


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
    for split, found in parts.items():
        if found:
            with replace_atomically(out / f"{split}.xyz") as partial:
                write_atoms(partial, found, format="extxyz")
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
    known = ", ".join(f"{atomic_numbers[x]}: {energy!r}" for x, energy in atoms.items())
    test = " --test_file=test.xyz" if parts["test"] else ""
    line = (
        f"cd {out.name} && mace_run_train --name={out.name} --train_file=train.xyz "
        f"--valid_file=validation.xyz{test} --energy_key=REF_energy "
        f"--forces_key=REF_forces --E0s='{{{known}}}' --default_dtype=float64"
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
    counts = Counter({split: len(found) for split, found in parts.items()})
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

__all__ = ["PROGRAMS", "Program", "write_trainer_folder"]
