"""`MLPotential('alloop', modelPath=...)` of openmmml."""

from collections.abc import Iterable
from typing import Any

import openmm
from openmm import app
from openmmml.mlpotential import MLPotentialImpl

from alloop.core.errors import InputError
from alloop.engines.evaluator import Evaluator
from alloop.engines.openmm_force import python_force


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


def _numbers(topology: app.Topology, chosen: list[int] | None) -> list[int]:
    atoms = list(topology.atoms())
    if any(atom.element is None for atom in atoms):
        raise InputError("expected an element for each atom of the topology")
    indices = range(len(atoms)) if chosen is None else chosen
    return [atoms[index].element.atomic_number for index in indices]
