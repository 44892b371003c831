"""Learned potentials whose arrays stay on their device, for batches at new positions.

MD asks for the same molecules again and again: what belongs to these is copied to the
device once, and positions, energies and forces never leave it.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alloop.core.arrays import AnyArray, is_numpy, to_numpy
from alloop.core.batch import Batch, same_molecules
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.stress import stress_from_virial
from alloop.models.graph import Graph, to_graph
from alloop.models.neighbours import FIXED, is_static
from alloop.models.network import (
    EvaluatedNetwork,
    energy_and_forces,
    energy_forces_virial,
)
from alloop.potentials.compiled import CompiledPotential, compiled_for
from alloop.potentials.learned import LearnedPotential, frame_slice
from alloop.potentials.repulsion import added

Evaluate: TypeAlias = Callable[[Tensor], EvaluatedNetwork]  # of positions (atoms, 3)


class PlacedPotential:
    """A learned potential for one batch on its device; implements DevicePotential.

    evaluate: the network as a function of positions alone, compiled code say; by
    default the network itself, in chunks that fit into memory. Neighbours of molecules
    above `FIXED` atoms and of cells are searched on this machine, from a copy of their
    positions.
    """

    def __init__(
        self,
        potential: LearnedPotential,
        batch: Batch,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.potential = potential
        self._batch, self._evaluate = batch, evaluate
        self._static = is_static(batch, FIXED)
        self._references = self.place(potential.reference_energies(batch))
        rest = potential.repulsion if self._static else None
        self._pairs = None if rest is None else rest.pairs(batch, self.place, FIXED)
        self._graphs: dict[tuple[int, int], Graph] = {}

    def place(self, array: AnyArray) -> Any:
        """Return a copy of numpy's array on the device, of the same type of number."""
        return torch.tensor(array, device=self.potential.device)

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å), the stress of cells and descriptors.

        They lie where the batch's positions do. ValueError for positions on the device
        of other molecules than this potential's.
        """
        if is_numpy(batch.positions):
            return self.potential.predict(batch, descriptors=descriptors)
        if not same_molecules(batch, self._batch):
            raise ValueError("expected the molecules that the potential was placed for")
        if self._static:
            return self._of_molecules(batch, descriptors)
        return self._of_cells(batch, descriptors)

    def _of_molecules(self, batch: Batch, descriptors: bool) -> Predictions:
        positions: Any = batch.positions
        moved = positions.to(self.potential.dtype)

        def of_frames(start: int, stop: int) -> EvaluatedNetwork:
            graph = self._graph(start, stop)
            graph.pos = moved[batch.offsets[start] : batch.offsets[stop]]
            return energy_and_forces(self.potential.frozen_network, graph)

        if self._evaluate is not None:
            parts = [self._evaluate(moved)]
        else:
            parts = self.potential.chunks.evaluate(batch.offsets, of_frames)
        predictions = self._assembled(parts, descriptors, None)
        rest = self.potential.repulsion
        if rest is None or self._pairs is None:
            return predictions
        return added(predictions, rest.of_pairs(batch, self._pairs))

    def _of_cells(self, batch: Batch, descriptors: bool) -> Predictions:
        host = batch.with_cells(to_numpy(batch.positions), to_numpy(batch.cells))
        potential = self.potential

        def of_frames(start: int, stop: int) -> tuple[EvaluatedNetwork, Tensor]:
            part = frame_slice(host, start, stop)
            graph = to_graph(part, potential.cutoff, potential.dtype, potential.device)
            return energy_forces_virial(potential.frozen_network, graph)

        outputs = potential.chunks.evaluate(batch.offsets, of_frames)
        stress = None
        if batch.pbc.any():
            virial = potential.scale * torch.cat([virial for _, virial in outputs])
            stress = self.place(stress_from_virial(host, to_numpy(virial.double())))
        predictions = self._assembled(
            [part for part, _ in outputs], descriptors, stress
        )
        rest = potential.repulsion
        if rest is None:
            return predictions
        return added(predictions, rest.predict(host).moved(self.place))

    def _assembled(
        self, parts: list[EvaluatedNetwork], descriptors: bool, stress: Any
    ) -> Predictions:
        energies, forces, features = (
            torch.cat([part[index] for part in parts]).double() for index in range(3)
        )
        scale: Any = self.potential.scale
        return Predictions(
            energies=self._references + scale * energies,
            forces=scale * forces,
            descriptors=features if descriptors else None,  # type: ignore[arg-type]
            stress=stress,
        )

    def _graph(self, start: int, stop: int) -> Graph:
        potential = self.potential
        if (start, stop) not in self._graphs:
            part = frame_slice(self._batch, start, stop)
            graph = to_graph(
                part, potential.cutoff, potential.dtype, potential.device, FIXED
            )
            self._graphs[start, stop] = graph
        return self._graphs[start, stop]


def moving_potential(
    potential: Potential, batch: Batch, compile: bool
) -> tuple[Potential, str | None]:
    """Return the potential in the form that moves this batch fastest.

    A learned one stays on its device, where that is not the CPU, and is compiled if
    wanted; the reason is one sentence where that is impossible, else None.
    """
    fast, why = compiled_for(potential, batch) if compile else (potential, None)
    if not isinstance(potential, LearnedPotential):
        return fast, why
    if torch.device(potential.device).type == "cpu":
        return fast, why
    evaluate = fast.evaluate if isinstance(fast, CompiledPotential) else None
    return PlacedPotential(potential, batch, evaluate), why
