"""ASE calculators of potentials, which depend on charge and spin."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.error_limits import ErrorLimits
from alloop.core.roles import (
    AtomwisePotential,
    DipolarPotential,
    FittedScorer,
    Potential,
)
from alloop.core.species import Domain
from alloop.core.units import Floats
from alloop.potentials.checked import CheckedPotential
from alloop.potentials.devices import torch_threads

_STATE = ("charge", "spin")


class StatefulCalculator(Calculator):  # type: ignore[misc]
    """A calculator whose results depend on charge and spin in `atoms.info`."""

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation; charge and spin count too."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None:
            old, new = self.atoms.info, atoms.info
            changes += [key for key in _STATE if old.get(key, 0) != new.get(key, 0)]
        return changes


class PotentialCalculator(StatefulCalculator):
    """An ASE calculator that calls a potential.

    It gives energy, free_energy (eV), forces (eV/Å) and, of a cell where the potential
    predicts it, stress (eV/Å³); with a scorer also "surprise", by `get_property` or in
    `results`, and with error_limits "error_limit", the upper limit of the largest force
    error on an atom (norm, eV/Å) at the coverage that they promise; and "energies" of
    atoms (eV), which sum to the energy, where they are asked for and the potential has
    them. Charge and spin
    (2S) are read from `atoms.info`. domain: what the potential was trained on; atoms
    outside it raise InputError, and a molecule that is not in it but allowed gives a
    warning. threads: torch's threads in each call; the caller's number is restored.
    compile: compile the potential for each new system, which takes up to a minute and
    saves time in long MD. source: the model that it calls, for people.
    """

    name = "alloop"  # in ASE's trajectories and databases
    implemented_properties: tuple[str, ...] = (
        "energy",
        "free_energy",
        "forces",
        "stress",
    )

    def __init__(
        self,
        potential: Potential,
        scorer: FittedScorer | None = None,
        *,
        error_limits: ErrorLimits | None = None,
        domain: Domain | None = None,
        threads: int = 1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.scorer = scorer
        self.error_limits = error_limits
        self.domain = domain
        self.threads = threads
        self.compile = compile
        self.source = ""
        self._checked = CheckedPotential(potential, domain, compile=compile)
        if isinstance(potential, AtomwisePotential):
            self.implemented_properties = (*self.implemented_properties, "energies")
        if isinstance(potential, DipolarPotential):
            self.implemented_properties = (*self.implemented_properties, "dipole")
        if scorer is not None:
            self.implemented_properties = (*self.implemented_properties, "surprise")
            if error_limits is not None:
                self.implemented_properties = (
                    *self.implemented_properties,
                    "error_limit",
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source or type(self.potential).__name__})"

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` for the atoms.

        Raises InputError for what is outside the domain.
        """
        super().calculate(atoms, properties, system_changes)
        with torch_threads(self.threads):
            batch = self._checked.prepare(pack_frames([from_atoms(self.atoms)]))
            scored = self.scorer is not None
            predictions = self._checked.fast.predict(batch, descriptors=scored)
            stress = None if predictions.stress is None else predictions.stress[0]
            energy = float(predictions.energies[0])
            self.results = frame_results(energy, predictions.forces, stress)
            if "dipole" in properties and isinstance(self.potential, DipolarPotential):
                dipoles = self.potential.dipoles(batch)
                self.results |= {} if dipoles is None else {"dipole": dipoles[0]}
            if "energies" in properties and isinstance(
                self.potential, AtomwisePotential
            ):
                self.results["energies"] = self.potential.atom_energies(batch)
            if self.scorer is not None:
                surprise = self.scorer.score(batch, predictions)
                self.results["surprise"] = float(surprise[0])
                if self.error_limits is not None:
                    limit = self.error_limits.limits(surprise, batch)
                    self.results["error_limit"] = float(limit[0])


def frame_results(
    energy: float, forces: Floats, stress: Floats | None
) -> dict[str, Any]:
    """Return a frame's results by ASE's names; stress (6,) where it is finite."""
    results = {"energy": energy, "free_energy": energy, "forces": forces}
    if stress is not None and np.isfinite(stress).all():
        results["stress"] = stress
    return results
