"""Measured costs of labels of small molecules at several levels.

They are kept in a file, so that a run that was stopped goes on where it was.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule as molecule_of
from rich.progress import track

from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.levels import pyscf_level, xtb_level
from alloop.labels.programs import level_cost
from benchmarks.common import Rows

LEVELS = {
    level.title: level
    for level in (
        xtb_level("gfn2-xtb"),
        pyscf_level("hf", "sto-3g"),
        pyscf_level("hf", "6-31g"),
        pyscf_level("hf", "def2-svp", density_fit=True),
        pyscf_level("hf", "def2-svp"),
        pyscf_level("hf", "def2-tzvp", density_fit=True),
        pyscf_level("mp2", "6-31g*"),
        pyscf_level("mp2", "cc-pvdz"),
        pyscf_level("b3lyp", "def2-svp", density_fit=True),
        pyscf_level("pbe", "def2-svp", density_fit=True),
        pyscf_level("r2scan", "def2-svp", density_fit=True),
        pyscf_level("b3lyp", "def2-svp"),
        pyscf_level("wb97x-d3bj", "def2-tzvp", density_fit=True),
        pyscf_level("ccsd", "6-31g"),
        pyscf_level("ccsd", "cc-pvdz"),
        pyscf_level("ccsd(t)", "6-31g"),
        pyscf_level("ccsd(t)", "cc-pvdz"),
    )
}
MOLECULES = {  # by size, with 2S
    **dict.fromkeys(("H2O", "NH3", "CH4", "H2CO", "CH3OH"), 0),
    **dict.fromkeys(("C2H6", "CH3CHO", "CH3CH2OH", "CH3OCH3", "C6H6"), 0),
    **{"OH": 1, "CH3": 1, "O2": 2, "CH3O": 1, "C2H5": 1},
}
FRAMES = 10


@dataclass(frozen=True)
class MeasurementLimits:
    """Limits of the measurement.

    label: CPU seconds beyond which a label is not made; molecule: CPU seconds after
    which a molecule at a level has frames enough.
    """

    label: float
    molecule: float
    levels: tuple[str, ...]
    molecules: tuple[str, ...]


FULL = MeasurementLimits(60.0, 12.0, tuple(LEVELS), tuple(MOLECULES))
QUICK = MeasurementLimits(
    *(3.0, 2.0),
    ("HF/STO-3G", "HF/def2-SVP (DF)", "MP2/cc-pVDZ", "B3LYP/def2-SVP (DF)"),
    ("H2O", "NH3", "CH4", "H2CO", "CH3OH", "C2H6"),
)


@dataclass(frozen=True)
class MeasuredCost:
    """A label's cost; seconds is None where none was made."""

    level: str
    molecule: str
    index: int
    seconds: float | None
    functions: int | None

    @property
    def known(self) -> tuple[Frame, Label]:
        """The frame and label that a cost model learns from."""
        at = rattled_frame(self.molecule, self.index)
        details = {"functions": self.functions}
        cost, forces = self.seconds or 0.0, np.zeros((len(at), 3))
        level = LEVELS[self.level].id
        return at, Label(at.id, level, 0.0, forces, cpu_seconds=cost, details=details)


def rattled_frame(name: str, index: int) -> Frame:
    """Return the molecule with coordinates moved by 0.03 Å (standard deviation)."""
    atoms = molecule_of(name)
    rng = np.random.default_rng([sum(map(ord, name)), index])
    atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    return from_atoms(atoms, spin=MOLECULES.get(name, 0))


def measure_costs(work: Path, effort: MeasurementLimits) -> list[MeasuredCost]:
    """Return all costs, after measuring those that are missing.

    One frame of everything comes first, then the next.
    """
    rows = Rows(work / "prices.jsonl")
    costs: list[MeasuredCost] = []
    with IsolatedLabeller(LEVELS["HF/STO-3G"]) as child:
        for index in range(FRAMES):
            for name in track(effort.levels, f"frame {index + 1} of {FRAMES}"):
                view = child.labeller(LEVELS[name])
                for molecule in effort.molecules:
                    there = [x for x in costs if x.level == name]
                    if _wanted(there, effort, molecule, index):
                        key = f"{name} {molecule} {index}"
                        if key not in rows:
                            rows[key] = _measure_label(
                                view, rattled_frame(molecule, index)
                            )
                        costs.append(MeasuredCost(name, molecule, index, **rows[key]))
    return costs


def _wanted(
    there: list[MeasuredCost], effort: MeasurementLimits, molecule: str, index: int
) -> bool:
    """Return whether a label is cheap enough and not measured enough."""
    spent = sum(x.seconds or 0.0 for x in there if x.molecule == molecule)
    if not there:
        return True
    cost = level_cost(LEVELS[there[0].level], [x.known for x in there])
    dear = cost.seconds(rattled_frame(molecule, index)) > effort.label
    return not dear and spent <= effort.molecule


def _measure_label(labeller: IsolatedLabeller, at: Frame) -> dict[str, Any]:
    labeller.label(rattled_frame("H2", 0))  # pays for what is imported on the way
    made = labeller.label(at)
    seconds = made.cpu_seconds if isinstance(made, Label) else None
    return {"seconds": seconds, "functions": made.details.get("functions")}
