"""`MLPotential('alloop', modelPath=...)` of openmmml, as an OpenMM PythonForce."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import app, unit
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import KJ_PER_MOL, LENGTH_UNITS, Floats
from alloop.engines.evaluator import Evaluator, repeated

_NANOMETRE = LENGTH_UNITS["nm"]  # Å


class AlloopPotentialFactory(MLPotentialImplFactory):  # type: ignore[misc]
    """Makes the potential that openmmml finds by its entry point `alloop`."""

    def createImpl(self, name: str, **arguments: Any) -> "AlloopPotential":
        """Return the potential; `modelPath` names the model file."""
        return AlloopPotential(name, **arguments)


class AlloopPotential(MLPotentialImpl):  # type: ignore[misc]
    """A model of alloop as an openmmml potential.

    modelPath: the model file. Further arguments of `createSystem` and
    `createMixedSystem`: charge (e) and spin (2S) of the atoms, and the fields of
    `Evaluator` (`watch`, `outside`, `threads`, `compile`, `scored`). Some atoms of a
    periodic box are one whole molecule without a cell, smaller than half the box.
    """

    def __init__(self, name: str, modelPath: str = "", **_: Any) -> None:
        self.name = name
        self.path = modelPath

    def getMLLongRange(self) -> bool:
        """Return False: a molecule in a box does not see its own images."""
        return False

    def addForces(  # noqa: PLR0913 - openmmml's signature
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        *,
        charge: int = 0,
        spin: int = 0,
        modelPath: str = "",
        **options: Any,
    ) -> None:
        """Add a PythonForce for the atoms, all of them by default."""
        path = modelPath or self.path
        if not path:
            raise InputError("expected a model file, got none; give modelPath=...")
        names = {"watch", "outside", "threads", "compile", "scored"}
        fields = {key: options[key] for key in options if key in names}
        chosen = None if atoms is None else list(atoms)
        boxed = topology.getPeriodicBoxVectors() is not None
        force = python_force(
            Evaluator.of_file(path, **fields),
            _numbers(topology, chosen),
            charge=charge,
            spin=spin,
            periodic=boxed and chosen is None,
            whole=boxed and chosen is not None,
        )
        force.setForceGroup(forceGroup)
        if chosen is not None:
            force.setParticles(chosen)
        system.addForce(force)


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
        found = self.evaluator.evaluate(repeated(self.frame, positions[None], cells))
        energy = float(found.energies[0]) / KJ_PER_MOL
        return energy, found.forces * (_NANOMETRE / KJ_PER_MOL)


def _whole(positions: Floats, cell: Floats) -> Floats:
    """Return a molecule's positions with each atom at its image nearest to the first.

    OpenMM may put its atoms on both sides of the box.
    """
    steps = positions - positions[0]
    for axis in (2, 1, 0):  # vectors of OpenMM's boxes are reduced and triangular
        steps = (
            steps - np.round(steps[:, axis] / cell[axis, axis])[:, None] * cell[axis]
        )
    whole: Floats = positions[0] + steps
    return whole


def _numbers(topology: app.Topology, chosen: list[int] | None) -> list[int]:
    atoms = list(topology.atoms())
    if any(atom.element is None for atom in atoms):
        raise InputError("expected an element for each atom of the topology")
    indices = range(len(atoms)) if chosen is None else chosen
    return [atoms[index].element.atomic_number for index in indices]
