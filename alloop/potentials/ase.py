"""ASE in both directions: a calculator as a potential, a potential as a calculator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import Batch, pack
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential, Scorer
from alloop.core.units import Floats

_STATE = ("charge", "spin")


class AsePotential:
    """Frame after frame through an ASE calculator. It has no descriptors."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Energies eV and forces eV/Å; InputError where descriptors are asked for."""
        if descriptors:
            raise InputError(
                "expected a potential with descriptors, got an ASE calculator; "
                "score with a learned potential"
            )
        results = [self._calculate(frame) for frame in batch.frames()]
        return Predictions(
            energies=np.array([energy for energy, _ in results], dtype=np.float64),
            forces=np.concatenate([np.zeros((0, 3)), *(f for _, f in results)]),
        )

    def _calculate(self, frame: Frame) -> tuple[float, Floats]:
        atoms = to_atoms(frame)
        atoms.calc = self.calculator
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        return float(atoms.get_potential_energy()), forces


class StatefulCalculator(Calculator):  # type: ignore[misc]
    """A calculator whose results depend on charge and spin in `atoms.info`."""

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; charge and spin count too."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None:
            old, new = self.atoms.info, atoms.info
            changes += [key for key in _STATE if old.get(key, 0) != new.get(key, 0)]
        return changes


class PotentialCalculator(StatefulCalculator):
    """An ASE calculator of energy, free_energy (eV) and forces (eV/Å).

    With a scorer also "surprise", by `get_property` or in `results`. Charge and spin
    (2S) are read from `atoms.info`.
    """

    implemented_properties: tuple[str, ...] = ("energy", "free_energy", "forces")

    def __init__(self, potential: Potential, scorer: Scorer | None = None) -> None:
        super().__init__()
        self.potential = potential
        self.scorer = scorer
        if scorer is not None:
            self.implemented_properties = (*self.implemented_properties, "surprise")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` for the atoms."""
        super().calculate(atoms, properties, system_changes)
        batch = pack([from_atoms(self.atoms)])
        scored = self.scorer is not None
        predictions = self.potential.predict(batch, descriptors=scored)
        energy = float(predictions.energies[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": predictions.forces,
        }
        if self.scorer is not None:
            self.results["surprise"] = float(self.scorer.score(batch, predictions)[0])
