"""Force calls of a trained network as compiled code, for batches at new positions.

MD asks for the same molecules again and again: everything but the positions stays. The
code depends on a network's settings, neither on its weights nor on the molecules, so
that it is made once and serves the next generation too.
"""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from alloop.core.batch import Batch, pack_frames, same_molecules
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.stress import stress_from_virial
from alloop.core.units import Floats
from alloop.models.compilation import Code, NotCompiled, compile_function
from alloop.models.graph import Graph, to_graph
from alloop.models.layers import Network
from alloop.models.neighbours import FIXED, SMALL, is_static, neighbour_pairs
from alloop.models.network import (
    EvaluatedNetwork,
    energy_and_forces,
    energy_forces_virial,
)
from alloop.potentials.freed_memory import keep_freed_memory
from alloop.potentials.learned import LearnedPotential, frame_slice

# Pairs of atoms that the code gets at once: on a CPU what it makes of them stays in the
# cache (32 ethanols in two parts take 0.87 of the time), elsewhere it fits into memory.
_PAIRS_ON_CPU, _PAIRS_ELSEWHERE = 1280, 2**20
_CACHE_SIZE = 32  # codes, and results of checking one on a batch
_AGREE = 1e-4  # of the largest value: code that differs by more is not used
_SKIN = 0.5  # Å, which a hot hydrogen crosses half of in some ten steps
_MOVE = 0.05  # Å, between the positions that were traced and those that are checked

_Key: TypeAlias = tuple[Any, ...]
_codes: OrderedDict[_Key, Code | NotCompiled] = OrderedDict()


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of compiled code: what lists it takes and whether it gives virials.

    skin: Å beyond the cutoff, up to which pairs are listed; 0 where all pairs of
    molecules are. stress: whether the virials of frames follow the descriptors.
    """

    skin: float = 0.0
    stress: bool = False


@dataclass(slots=True, eq=False)
class _Block:
    """The atoms from `first` to before `stop`: their code and its other inputs.

    frame_range: the frames from the one to before the other. frames: these, where their
    pairs were listed; with a skin they serve until an atom has moved half of it, or a
    cell has changed.
    """

    potential: LearnedPotential
    frame_range: tuple[int, int]
    first: int
    stop: int
    frames: Batch
    code: Code
    form: _Form
    inputs: "_GraphInputs"

    def evaluate(
        self, positions: Tensor, cells: Floats | None = None
    ) -> Sequence[Tensor]:
        """Return the network's output at the positions of all blocks (atoms, 3).

        cells (frames, 3, 3) of all blocks in Å, where they are not those of before.
        """
        moved = positions[self.first : self.stop]
        if self.form.skin:
            part = (
                self.frames.cells if cells is None else cells[slice(*self.frame_range)]
            )
            self._follow(moved.double().numpy(), part)
        try:
            return self.code(moved, *self.inputs.tensors)
        except AssertionError:  # as many pairs as the code was not made for
            network = self.potential.frozen_network
            plain = _tensor_function(network, self.inputs, self.form)
            return plain(moved, *self.inputs.tensors)

    def _follow(self, positions: Floats, cells: Floats) -> None:
        squares = np.square(positions - self.frames.positions).sum(axis=1)
        still = squares.max() <= (0.5 * self.form.skin) ** 2  # False where one is NaN
        if not (still and np.array_equal(cells, self.frames.cells)):
            self.frames = self.frames.with_cells(positions, cells)
            self.inputs = _graph_inputs(self.potential, self.frames, self.form)


class CompiledPotential:
    """A learned potential with compiled code for one batch, in parts of whole frames.

    Other batches are predicted by the potential itself. Energies, forces and
    descriptors agree with the potential's own within rounding of the network's type
    (1e-5 of their size for float32), not bit by bit: where pairs are listed anew as
    atoms move, the last bits also depend on where they were.
    """

    def __init__(
        self, potential: LearnedPotential, batch: Batch, parts: Sequence[_Block]
    ) -> None:
        self.potential = potential
        self._batch, self._parts = batch, parts
        self._references = potential.reference_energies(batch)
        rest = potential.repulsion
        fixed = rest is not None and is_static(batch)
        self._pairs = rest.pairs(batch) if rest is not None and fixed else None

    def evaluate(self, positions: Tensor) -> EvaluatedNetwork:
        """Return the network's output for the batch at positions (atoms, 3) in Å."""
        return EvaluatedNetwork(*self._outputs(positions)[:3])

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å) and the network's scalar features.

        In cells the stress too.
        """
        if not same_molecules(batch, self._batch):
            return self.potential.predict(batch, descriptors=descriptors)
        positions = self.potential.tensor(batch.positions)
        outputs = self._outputs(positions, batch.cells)
        stress = None
        if len(outputs) > 3:
            dE = self.potential.scale * outputs[3].double().numpy()
            stress = stress_from_virial(batch, dE)
        return self.potential.assemble_predictions(
            batch,
            self._references,
            [EvaluatedNetwork(*outputs[:3])],
            descriptors,
            stress,
            self._pairs,
        )

    def _outputs(
        self, positions: Tensor, cells: Floats | None = None
    ) -> Sequence[Tensor]:
        """Return energies, forces, descriptors and, of cells, virials."""
        outputs = [part.evaluate(positions, cells) for part in self._parts]
        if len(outputs) == 1:
            return outputs[0]
        return [torch.cat(kind) for kind in zip(*outputs, strict=True)]


def compiled_for(potential: Potential, batch: Batch) -> tuple[Potential, str | None]:
    """Return the potential compiled for this batch, or as it is with the reason.

    The code is for this batch at any positions; the reason is one sentence, None where
    there is code. Only learned potentials are compiled. The pairs of larger molecules
    and of cells are listed with a skin, which needs code for any number of pairs: where
    a network has none, or on a card, all pairs are listed up to `FIXED` atoms, and
    cells are not compiled. The code is checked against the network before it is used.
    The process keeps freed memory from then on. Raises InputError for an element that
    the model was never trained on.
    """
    if not isinstance(potential, LearnedPotential):
        return potential, "only learned potentials are compiled"
    if not len(batch):
        return potential, "there are no frames to compile for"
    potential.reference_energies(batch)  # raises for an unknown element
    if is_static(batch):
        parts = _blocks(potential, batch, _Form())
    else:
        parts = NotCompiled("neither cells nor over 64 atoms are compiled on a card")
        if torch.device(potential.device).type == "cpu":
            form = _Form(_SKIN, stress=bool(batch.pbc.any()))
            parts = _blocks(potential, batch, form)
        if isinstance(parts, NotCompiled) and is_static(batch, FIXED):
            parts = _blocks(potential, batch, _Form())
    if isinstance(parts, NotCompiled):
        return potential, f"force calls are not compiled: {parts}"
    keep_freed_memory()
    return CompiledPotential(potential, batch, parts), None


def _blocks(
    potential: LearnedPotential, batch: Batch, form: _Form
) -> list[_Block] | NotCompiled:
    """Return the batch in parts with their code, or the error that prevented it."""
    blocks = []
    for start, stop in _cut_batch(potential, batch, form):
        part = frame_slice(batch, start, stop)
        code = _potential_code(potential, part, form)
        if isinstance(code, NotCompiled):
            return code
        first, last = (int(batch.offsets[x]) for x in (start, stop))
        inputs = _graph_inputs(potential, part, form)
        blocks.append(
            _Block(
                potential=potential,
                frame_range=(start, stop),
                first=first,
                stop=last,
                frames=part,
                code=code,
                form=form,
                inputs=inputs,
            )
        )
    return blocks


def _cut_batch(
    potential: LearnedPotential, batch: Batch, form: _Form
) -> list[tuple[int, int]]:
    """Return the first and last frames of parts with about equally many pairs."""
    on_cpu = torch.device(potential.device).type == "cpu"
    counts = batch.sizes * (batch.sizes - 1)
    if form.skin:
        pairs = neighbour_pairs(batch, potential.cutoff + form.skin)
        owners = batch.frame_index[pairs.centres]
        counts = np.bincount(owners, minlength=len(batch))
    total = np.cumsum([0, *counts])
    parts = -(-int(total[-1]) // (_PAIRS_ON_CPU if on_cpu else _PAIRS_ELSEWHERE))
    ends = np.linspace(0.0, total[-1], max(parts, 1) + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(total, ends), len(batch)])
    return list(pairwise(cuts.tolist()))


def _potential_code(
    potential: LearnedPotential, batch: Batch, form: _Form
) -> Code | NotCompiled:
    """Return the network's code for all batches if it works for this one.

    Otherwise return code for this batch alone, if its pairs do not change (no skin), or
    the error that prevented it.
    """
    code = _cached_code(
        (*_code_key(potential), form.stress),
        lambda: _compile_potential(potential, _sample_batch(), form, general=True),
    )
    if not isinstance(code, NotCompiled):
        fits = _cached_code(
            (*_code_key(potential, batch), form),
            lambda: _checked_code(code, potential, batch, form),
        )
        if form.skin or not isinstance(fits, NotCompiled):
            return fits
    elif form.skin:
        return code
    key = (*_code_key(potential, batch), "alone")
    return _cached_code(key, lambda: _batch_code(potential, batch))


def _batch_code(potential: LearnedPotential, batch: Batch) -> Code:
    code = _compile_potential(potential, batch, _Form(), general=False)
    return _checked_code(code, potential, batch, _Form())


def _cached_code(key: _Key, make: Callable[[], Code]) -> Code | NotCompiled:
    """Return the cached code of a key, or make it.

    A failure is cached too, so that it costs its time once.
    """
    if key not in _codes:
        try:
            _codes[key] = make()
        except NotCompiled as why:
            _codes[key] = why
        while len(_codes) > _CACHE_SIZE:
            _codes.popitem(last=False)
    _codes.move_to_end(key)
    return _codes[key]


def _code_key(potential: LearnedPotential, batch: Batch | None = None) -> _Key:
    network = potential.frozen_network
    settings = json.dumps(network.settings, sort_keys=True)
    names = ("numbers", "offsets", "charges", "spins") if batch is not None else ()
    molecules = tuple(getattr(batch, name).tobytes() for name in names)
    return (network.kind, settings, potential.dtype, potential.device, *molecules)


def _sample_batch() -> Batch:
    """Return the batch that general code is traced on, always the same.

    Seven frames, 61 atoms, 520 edges: lengths that few networks have among their own.
    """
    rng = np.random.default_rng(0)
    frames = [
        Frame(np.ones(size, np.int64), 3.0 * rng.standard_normal((size, 3)))
        for size in (11, 7, 13, 5, 10, 9, 6)
    ]
    return pack_frames(frames)


@dataclass(frozen=True, slots=True, eq=False)
class _GraphInputs:
    """The graph of a batch, and the inputs of its code besides the positions.

    tensors: `_FIELDS` of the graph, then the network's tensors in the order of `names`.
    """

    graph: Graph
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]


_FIELDS = ("z", "edge_index", "shift", "batch", "charge", "spin")


def _graph_inputs(
    potential: LearnedPotential, batch: Batch, form: _Form
) -> _GraphInputs:
    network = potential.frozen_network
    graph = to_graph(
        batch,
        network.cutoff + form.skin,
        potential.dtype,
        potential.device,
        small=SMALL if form.skin else FIXED,
    )
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    fields = [graph[name] for name in _FIELDS]
    tensors = [tensor.detach() for tensor in state.values()]
    return _GraphInputs(graph, tuple(state), (*fields, *tensors))


def _compile_potential(
    potential: LearnedPotential, batch: Batch, form: _Form, *, general: bool
) -> Code:
    inputs = _graph_inputs(potential, batch, _Form())
    if not potential.frozen_network.is_traceable(inputs.graph):
        raise NotCompiled(f"{potential.frozen_network.kind} cannot be traced")
    function = _tensor_function(potential.frozen_network, inputs, form)
    changing = range(1 + len(_FIELDS)) if general else ()  # not those of the weights
    return compile_function(
        function, (inputs.graph.pos, *inputs.tensors), any_length=changing
    )


def _checked_code(
    code: Code, potential: LearnedPotential, batch: Batch, form: _Form
) -> Code:
    """Return the code after checking it; raise NotCompiled if it differs.

    It must agree with the network on the batch, whose positions are moved a little.
    """
    inputs = _graph_inputs(potential, batch, form)
    rng = np.random.default_rng(0)
    moved = batch.positions + _MOVE * rng.standard_normal(batch.positions.shape)
    tensors = (potential.tensor(moved), *inputs.tensors)
    expected = _tensor_function(potential.frozen_network, inputs, form)(*tensors)
    try:
        off = _relative_difference(code(*tensors), expected)
    except (AssertionError, RuntimeError) as error:
        raise NotCompiled("the code is for other shapes") from error
    if not off < _AGREE:
        raise NotCompiled(f"the code strays by {off:.1e} from the network")
    return code


def _tensor_function(network: Network, inputs: _GraphInputs, form: _Form) -> Code:
    """Return the network's output as a function of tensors alone."""

    def evaluate(positions: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        graph = copy.copy(inputs.graph)
        graph.pos = positions
        for name, field in zip(_FIELDS, tensors, strict=False):
            graph[name] = field
        graph.num_graphs = graph.charge.shape[0]
        weights = dict(zip(inputs.names, tensors[len(_FIELDS) :], strict=True))
        called = _NetworkWithTensors(network, weights)
        if not form.stress:
            return tuple(energy_and_forces(called, graph))
        outputs, virial = energy_forces_virial(called, graph)
        return (*outputs, virial)

    return evaluate


class _NetworkWithTensors(torch.nn.Module):
    """A network with other tensors in place of its own."""

    def __init__(self, network: Network, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._call, self._tensors = (network,), tensors  # hidden from torch

    def forward(self, graph: Graph) -> Any:
        """Return energies and descriptors."""
        return torch.func.functional_call(self._call[0], self._tensors, (graph,))


def _relative_difference(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest value of its kind."""
    pairs = zip(values, expected, strict=True)
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs
    )
