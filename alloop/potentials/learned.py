"""A trained network as a Potential, with units, references and repulsion added."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.stress import stress_from_virial
from alloop.core.units import Floats, Integers
from alloop.models.checkpoint import Checkpoint
from alloop.models.graph import Graph, to_graph
from alloop.models.layers import AtomOutput, Network
from alloop.models.network import (
    EvaluatedNetwork,
    build_network,
    energy_and_forces,
    energy_forces_virial,
)
from alloop.models.universal.converted import licence_text
from alloop.potentials.element_table import ElementTable
from alloop.potentials.repulsion import RepulsivePairs, Zbl, added, repulsion

CHUNK = 512  # atoms that a CPU gets at a time: more leave its cache
_LARGEST_CHUNK = 65536  # atoms that another device is tried with

_Part = TypeVar("_Part")
_Head = TypeVar("_Head")


class Chunks:
    """The number of atoms that a network gets at a time on its device.

    On a CPU it is constant, so that the same batch gives the same bits. Elsewhere it is
    halved whenever memory runs out, and stays so.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._size = None if torch.device(device).type == "cpu" else _LARGEST_CHUNK

    def evaluate(
        self, offsets: Integers, of_frames: Callable[[int, int], _Part]
    ) -> list[_Part]:
        """Return what `of_frames(start, stop)` returns for chunks of all frames.

        offsets (frames + 1,): where each frame's atoms begin. Raises InputError where a
        single frame does not fit into memory.
        """
        parts: list[_Part] = []
        start, frames = 0, len(offsets) - 1
        while start < frames or not parts:
            stop = self._end(offsets, start)
            try:
                parts.append(of_frames(start, stop))
            except torch.OutOfMemoryError:
                atoms = int(offsets[stop] - offsets[start])
            else:
                start = stop
                continue
            self._halve(atoms, stop - start)  # out here, the error holds no tensors
        return parts

    def _end(self, offsets: Integers, start: int) -> int:
        """Return the frame at which the chunk ends: whole frames, at least one."""
        size = CHUNK if self._size is None else self._size
        if offsets[-1] - offsets[start] <= size:
            return len(offsets) - 1
        stop = int(np.searchsorted(offsets, offsets[start] + size, side="right")) - 1
        return max(stop, start + 1)

    def _halve(self, atoms: int, frames: int) -> None:
        if frames <= 1:
            raise InputError(
                f"expected frames that fit into the memory of {self.device}, one of "
                f"{atoms} atoms does not; choose a smaller network, or `device: cpu`"
            )
        self._size = max(1, atoms // 2)
        torch.cuda.empty_cache()


class LearnedPotential:
    """A potential E = scale * network + Σ references + repulsion.

    The latter two are computed in float64, the network in the type of its weights.
    references: eV by atomic number, one for every element that the network was trained
    on. scale: eV by unit of the network. repulsion: what was subtracted from the labels
    that the network learned. device: where the network runs, as torch calls it, by
    default where its weights are. Frames go to the network in chunks; on a CPU these
    depend on their sizes alone, so that the same batch gives the same bits.
    """

    def __init__(
        self,
        network: Network,
        references: Mapping[int, float],
        scale: float = 1.0,
        device: str | None = None,
        repulsion: Zbl | None = None,
    ) -> None:
        weights = next(network.parameters())
        device = str(weights.device) if device is None else device
        self._network = copy.deepcopy(network).to(device).requires_grad_(False).eval()
        self._dtype = weights.dtype
        self._elements = ElementTable(references)
        self.scale = float(scale)
        self.device = device
        self.chunks = Chunks(device)
        self.repulsion = repulsion

    @property
    def network(self) -> Network:
        """A copy of the network that can be trained."""
        return copy.deepcopy(self._network).requires_grad_(True).train()

    @property
    def frozen_network(self) -> Network:
        """The network itself, which must not be trained or changed."""
        return self._network

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return self._dtype

    @property
    def references(self) -> dict[int, float]:
        """Reference energies in eV by atomic number."""
        return dict(self._elements.values)

    @property
    def licence(self) -> str | None:
        """The licence of the weights that training began with, None without one."""
        return licence_text(self._network.settings)

    @property
    def cutoff(self) -> float:
        """The distance in Å beyond which atoms do not interact."""
        return self._network.cutoff

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å), the stress of cells and descriptors.

        Descriptors are the network's last scalar features. Raises InputError for an
        element that the model was never trained on.
        """
        references = self.reference_energies(batch)
        if batch.pbc.any():
            return self._of_cells(batch, references, descriptors)

        def of_frames(start: int, stop: int) -> EvaluatedNetwork:
            return energy_and_forces(self._network, self._graph(batch, start, stop))

        parts = self.chunks.evaluate(batch.offsets, of_frames)
        return self.assemble_predictions(batch, references, parts, descriptors)

    @torch.no_grad()
    def atom_outputs(self, batch: Batch, start: int, stop: int) -> AtomOutput:
        """Return the network's outputs for the atoms of some frames of a batch."""
        return self._network.atom_outputs(self._graph(batch, start, stop))

    def atom_energies(self, batch: Batch) -> Floats:
        """Return the energy of each atom (atoms,) in eV; a frame's sum to its energy.

        They include references and repulsion. Raises InputError for an element that the
        model was never trained on.
        """
        references = self._elements.per_atom(batch)

        def of_frames(start: int, stop: int) -> torch.Tensor:
            return self.atom_outputs(batch, start, stop).energies

        parts = self.chunks.evaluate(batch.offsets, of_frames)
        energies = np.concatenate([to_array(part) for part in parts])
        rest = 0.0 if self.repulsion is None else self.repulsion.atom_energies(batch)
        out: Floats = references + self.scale * energies + rest
        return out

    def covering(self, batch: Batch) -> "LearnedPotential":
        """Return the potential with references for all elements of a batch.

        Those that it lacks are 0: energies are then off by a constant for each
        composition, forces are not.
        """
        references = self.references
        new = set(np.unique(batch.numbers).tolist()) - set(references)
        if not new:
            return self
        references |= dict.fromkeys(sorted(new), 0.0)
        return LearnedPotential(
            self._network, references, self.scale, self.device, self.repulsion
        )

    def on(self, device: str) -> Self:
        """Return the potential on another device; itself where it is there already."""
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved._network = copy.deepcopy(self._network).to(device)
        moved.device, moved.chunks = device, Chunks(device)
        return moved

    def reference_energies(self, batch: Batch) -> Floats:
        """Return the sum of the references of each frame, (frames,) in eV.

        Raises InputError for an element that the model was never trained on.
        """
        return self._elements.per_frame(batch)

    def assemble_predictions(
        self,
        batch: Batch,
        references: Floats,
        parts: Sequence[EvaluatedNetwork],
        descriptors: bool,
        stress: Floats | None = None,
        pairs: RepulsivePairs | None = None,
    ) -> Predictions:
        """Return a batch's predictions from the network's outputs for its parts.

        Units, references and repulsion are added. pairs: those that may repel, searched
        where they are not given.
        """
        energies = np.concatenate([to_array(part.energies) for part in parts])
        forces = np.concatenate([to_array(part.forces) for part in parts])
        predictions = Predictions(
            energies=references + self.scale * energies,
            forces=self.scale * forces,
            descriptors=_joined_descriptors(parts) if descriptors else None,
            stress=stress,
        )
        rest = self.repulsion
        if rest is None:
            return predictions
        return added(predictions, rest.of_pairs(batch, pairs or rest.pairs(batch)))

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        settings = {
            "network": self._network.settings,
            "scale": self.scale,
            "references": {str(z): e for z, e in self.references.items()},
        }
        if self.repulsion is not None:
            settings["repulsion"] = self.repulsion.settings
        state = self._network.state_dict()
        tensors = {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}
        return Checkpoint(self._network.kind, settings, tensors)

    def tensor(self, values: Floats) -> torch.Tensor:
        """Return values as a tensor of the network's type, on its device."""
        return torch.tensor(values, dtype=self._dtype, device=self.device)

    def _of_cells(
        self, batch: Batch, references: Floats, descriptors: bool
    ) -> Predictions:

        def of_frames(start: int, stop: int) -> tuple[EvaluatedNetwork, torch.Tensor]:
            return energy_forces_virial(self._network, self._graph(batch, start, stop))

        outputs = self.chunks.evaluate(batch.offsets, of_frames)
        virial = np.concatenate([to_array(virial) for _, virial in outputs])
        stress = stress_from_virial(batch, self.scale * virial)
        parts = [part for part, _ in outputs]
        return self.assemble_predictions(batch, references, parts, descriptors, stress)

    def _graph(self, batch: Batch, start: int, stop: int) -> Graph:
        part = frame_slice(batch, start, stop)
        return to_graph(part, self.cutoff, self._dtype, self.device)


class HeadedPotential(LearnedPotential, Generic[_Head]):
    """A learned potential that carries a further head of its network."""

    def __init__(self, plain: LearnedPotential, head: _Head) -> None:
        super().__init__(
            plain.frozen_network,
            plain.references,
            plain.scale,
            plain.device,
            plain.repulsion,
        )
        self.head = head


def without_head(checkpoint: Checkpoint, setting: str, prefix: str) -> Checkpoint:
    """Return the checkpoint without a head: its setting, and tensors with a prefix."""
    settings = {k: v for k, v in checkpoint.settings.items() if k != setting}
    tensors = {k: v for k, v in checkpoint.tensors.items() if not k.startswith(prefix)}
    return replace(checkpoint, settings=settings, tensors=tensors)


def from_checkpoint(checkpoint: Checkpoint, device: str = "cpu") -> LearnedPotential:
    """Return the potential that `LearnedPotential.checkpoint` described."""
    settings: dict[str, Any] = checkpoint.settings
    state = {
        name: torch.from_numpy(array.copy())
        for name, array in checkpoint.tensors.items()
    }
    dtype = next(t.dtype for t in state.values() if t.is_floating_point())
    network = build_network(
        checkpoint.kind, settings["network"], dtype=dtype, pretrained=False
    )
    network.load_state_dict(state)
    references = {int(z): e for z, e in settings["references"].items()}
    rest = repulsion(settings.get("repulsion"))
    return LearnedPotential(network, references, settings["scale"], device, rest)


def frame_slice(batch: Batch, start: int, stop: int) -> Batch:
    """Return the frames from `start` to before `stop`; the batch itself for all."""
    if stop - start == len(batch):
        return batch
    first, last = batch.offsets[start], batch.offsets[stop]
    return replace(
        batch,
        numbers=batch.numbers[first:last],
        positions=batch.positions[first:last],
        offsets=batch.offsets[start : stop + 1] - first,
        charges=batch.charges[start:stop],
        spins=batch.spins[start:stop],
        cells=batch.cells[start:stop],
        pbc=batch.pbc[start:stop],
    )


def to_array(tensor: torch.Tensor) -> Floats:
    """Return a network's tensor as an array of float64."""
    out: Floats = tensor.cpu().numpy().astype(np.float64)
    return out


def _joined_descriptors(parts: Sequence[EvaluatedNetwork]) -> Floats:
    out: Floats = np.concatenate([to_array(part.descriptors) for part in parts])
    return out
