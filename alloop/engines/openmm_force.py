"""A model as an OpenMM PythonForce."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit

from alloop.core.frame import Frame
from alloop.core.units import KJ_PER_MOL, LENGTH_UNITS, Floats
from alloop.engines.evaluator import Evaluator, repeated

_NANOMETRE = LENGTH_UNITS["nm"]  # Å


class AlloopPotentialFactory:
    """Makes the potential that openmmml finds by its entry point `alloop`.

    openmmml loads it while it is imported itself, so that its base class is not here.
    """

    def createImpl(self, name: str, **arguments: Any) -> Any:
        """Return the potential; `modelPath` names the model file."""
        from alloop.engines.openmm_potential import AlloopPotential

        return AlloopPotential(name, **arguments)


def python_force(
    evaluator: Evaluator,
    numbers: Iterable[int],
    *,
    charge: int = 0,
    spin: int = 0,
    periodic: bool = False,
    whole: bool = False,
) -> openmm.PythonForce:
    """Return the force of a model on atoms of these atomic numbers.

    periodic: they fill OpenMM's box; whole: they are a molecule within it.
    """
    pbc = (periodic, periodic, periodic)
    size = len(elements := np.array(list(numbers), dtype=np.int64))
    zero = np.zeros((size, 3))
    cell = np.eye(3) if periodic else np.zeros((3, 3))
    frame = Frame(elements, zero, charge=charge, spin=spin, cell=cell, pbc=pbc)
    force = openmm.PythonForce(_Compute(evaluator, frame, whole))
    force.setUsesPeriodicBoundaryConditions(periodic or whole)
    return force


@dataclass(frozen=True, slots=True)
class _Compute:
    """Energy (kJ/mol) and forces (kJ/mol/nm) of a State; it pickles."""

    evaluator: Evaluator
    frame: Frame
    whole: bool

    def __call__(self, state: openmm.State) -> tuple[float, Floats]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cells = None
        if self.whole or any(self.frame.pbc):
            vectors = state.getPeriodicBoxVectors(asNumpy=True)
            cell = np.asarray(vectors.value_in_unit(unit.angstrom))
            if self.whole:
                positions = _whole(positions, cell)
            else:
                cells = cell[None]
        evaluation = self.evaluator.evaluate(
            repeated(self.frame, positions[None], cells)
        )
        energy = float(evaluation.energies[0]) / KJ_PER_MOL
        return energy, evaluation.forces * (_NANOMETRE / KJ_PER_MOL)


def _whole(positions: Floats, cell: Floats) -> Floats:
    """Return a molecule's positions with each atom at its image nearest to the first.

    OpenMM may put its atoms on both sides of the box.
    """
    steps = positions - positions[0]
    for axis in (2, 1, 0):  # vectors of OpenMM's boxes are reduced and triangular
        steps = (
            steps - np.round(steps[:, axis] / cell[axis, axis])[:, None] * cell[axis]
        )
    joined: Floats = positions[0] + steps
    return joined
