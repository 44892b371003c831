"""Slopes by a program: what goes in and out, what does not fit, what torch makes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.models.compilation import Code, NotCompiled
from alloop.models.network import Network, build_network
from alloop.training import compiled_gradients
from alloop.training.compiled_gradients import compile_gradients
from alloop.training.fit import fit_stage
from alloop.training.graph_pool import GraphPool, make_graph_pool
from alloop.training.losses import Drawn, LabelLoss, Targets, eager_gradients
from alloop.training.stage_state import StageTask
from alloop.training.stages import Schedule, Stage, program_steps
from tests.training.springs import SETTINGS, bits, network, pool, stage

LOSS = LabelLoss(0.3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def traced(monkeypatch) -> list[Code]:
    """The functions that would be compiled, run by torch as they are."""
    functions: list[Code] = []

    def keep(function: Code, example: object, *, any_length: Sequence[int]) -> Code:
        functions.append(function)
        return function

    monkeypatch.setattr(compiled_gradients, "compile_function", keep)
    monkeypatch.setattr(compiled_gradients, "_programs", {})
    return functions


@dataclass(frozen=True)
class Shaken:
    """Forces at positions moved by chance shall vanish."""

    width: float

    @property
    def program(self) -> "Shaken":
        return self

    def draw(self, graph, generator: torch.Generator) -> Drawn:
        return (self.width * torch.randn(graph.pos.shape, generator=generator),)

    def __call__(
        self,
        network: Network,
        graph,
        target: Targets,  # noqa: ARG002
        drawn: Drawn,
    ) -> Tensor:
        graph = graph.clone()
        graph.pos = (graph.pos + drawn[0]).requires_grad_()
        energies = network(graph).energies
        (slope,) = torch.autograd.grad(energies.sum(), graph.pos, create_graph=True)
        return slope.square().mean()


def mixed_pool(sizes: tuple[int, ...] = (2, 3, 5, 3, 4, 6, 2, 5)) -> GraphPool:
    rng = random_stream(0, "mixed")
    frames = [
        Frame(rng.choice([1, 6, 8], size=n), 1.5 * rng.normal(size=(n, 3)))
        for n in sizes
    ]
    forces = rng.normal(size=(sum(sizes), 3))
    labels = LabelSet(pack_frames(frames), rng.normal(size=len(sizes)), forces)
    return make_graph_pool(labels, 1.0, cutoff=4.0).with_weights(
        rng.uniform(0.5, 1.5, len(sizes))
    )


def gap(found: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> float:
    """The distance of two gradients over the length of the second."""
    ours, theirs = (torch.cat([g.flatten() for g in x]) for x in (found, true))
    return float((ours - theirs).norm() / theirs.norm())


def agree(net: Network, loss, batch: tuple, slopes: Callable) -> None:
    found, true = slopes(*batch), eager_gradients(net, loss)(*batch)
    torch.testing.assert_close(found.loss, true.loss, rtol=1e-5, atol=0.0)
    assert gap(found.gradients, true.gradients) < 1e-5


@pytest.mark.parametrize("loss", [LOSS, LabelLoss(0.1, "l1"), Shaken(0.1)])
def test_every_objective_goes_in_and_out_as_flat_tensors(traced, loss) -> None:
    net, frames = network(), mixed_pool()
    batch = frames.select(np.array([0, 4]))
    drawn = loss.draw(batch[0], torch.Generator().manual_seed(0))
    agree(
        net, loss, (*batch, drawn), compile_gradients(net, loss, (*batch, drawn), True)
    )
    other = frames.select(np.array([5, 2, 1]))
    drawn = loss.draw(other[0], torch.Generator().manual_seed(1))
    agree(
        net, loss, (*other, drawn), compile_gradients(net, loss, (*other, drawn), True)
    )


def test_one_program_serves_all_networks_of_a_kind(traced) -> None:
    batch = (*pool().select(np.arange(4)), ())
    for seed in range(3):
        net = network(seed)
        agree(net, LOSS, batch, compile_gradients(net, LOSS, batch, False))
    assert len(traced) == 1
    compile_gradients(network(), LabelLoss(0.2), batch, False)
    compile_gradients(
        build_network("painn", SETTINGS | {"channels": 4}), LOSS, batch, False
    )
    compile_gradients(network(), LOSS, (*pool().select(np.arange(3)), ()), False)
    assert len(traced) == 4


def test_stages_that_weigh_energies_differently_share_a_program(traced) -> None:
    net, frames = network(), pool().select(np.arange(4))
    for loss in (LabelLoss(0.3), LabelLoss(0.0), LabelLoss(0.8)):
        batch = (*frames, loss.draw(frames[0], torch.Generator()))
        agree(net, loss, batch, compile_gradients(net, loss, batch, False))
        constant = eager_gradients(net, loss)(*frames, ())
        assert gap(eager_gradients(net, loss)(*batch).gradients, constant[1]) == 0.0
    assert len(traced) == 1
    schedules = [Schedule(energy=0.0), Schedule(energy=0.05), Schedule(norm="l1")]
    stages = [Stage(f"{i}", "cheap", 10, schedule=x) for i, x in enumerate(schedules)]
    assert [program_steps(stage, stages) for stage in stages] == [20, 20, 10]


def test_only_some_programs_are_kept(traced) -> None:
    batch = (*pool().select(np.arange(4)), ())
    for rho in np.linspace(0.0, 1.0, 12):
        compile_gradients(network(), LabelLoss(float(rho)), batch, False)
    assert len(compiled_gradients._programs) == 8


def test_a_program_that_gives_another_gradient_is_not_used(monkeypatch) -> None:
    def bad(function: Code, example: object, *, any_length: Sequence[int]) -> Code:
        return lambda *flat: tuple(1.01 * x for x in function(*flat))

    monkeypatch.setattr(compiled_gradients, "compile_function", bad)
    monkeypatch.setattr(compiled_gradients, "_programs", {})
    with pytest.raises(NotCompiled, match="gradient differs"):
        compile_gradients(network(), LOSS, (*pool().select(np.arange(4)), ()), False)


def test_shapes_that_do_not_fit_are_taken_as_torch_does(monkeypatch) -> None:
    def narrow(function: Code, example, *, any_length: Sequence[int]) -> Code:
        def run(*flat: Tensor) -> tuple[Tensor, ...]:
            for ours, theirs in zip(flat, example, strict=True):
                assert ours.shape == theirs.shape
            return function(*flat)

        return run

    monkeypatch.setattr(compiled_gradients, "compile_function", narrow)
    monkeypatch.setattr(compiled_gradients, "_programs", {})
    net, frames = network(), mixed_pool()
    slopes = compile_gradients(net, LOSS, (*frames.select(np.array([0, 1])), ()), True)
    for pair in ([0, 1], [1, 2], [2, 3], [4, 5], [5, 6], [6, 7], [7, 0], [7, 0]):
        agree(net, LOSS, (*frames.select(np.array(pair)), ()), slopes)
    assert sum(slopes.agreed.values()) == 1


def test_without_a_compiler_a_training_runs_and_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, course = fit_stage(StageTask(network(), pool(), stage(5, True), 1))
    assert course.engine.startswith("plain, not compiled: there is no C++ compiler")
    plain, _ = fit_stage(StageTask(network(), pool(), stage(5), 1))
    assert bits(found) == bits(plain)


def test_random_numbers_belong_to_their_step(traced) -> None:
    runs = [
        fit_stage(
            StageTask(network(), pool(), stage(6, mode), 3, objective=Shaken(0.1))
        )
        for mode in (True, False, False)
    ]
    assert runs[0][1].losses == pytest.approx(runs[1][1].losses, rel=1e-5)
    assert bits(runs[1][0]) == bits(runs[2][0])
    other, _ = fit_stage(
        StageTask(network(), pool(), stage(6), 4, objective=Shaken(0.1))
    )
    assert bits(other) != bits(runs[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["painn", "egnn"])
def test_compiled_gradients_are_torchs_own(kind: str) -> None:
    net = build_network(
        kind, {"channels": 16, "layers": 2, "radial": 4}, dtype=torch.float64
    )
    same = make_graph_pool(pool().labels, 1.0, 4.0, torch.float64)
    batch = (*same.select(np.arange(4)), ())
    slopes = compile_gradients(net, LOSS, batch, False)
    agree(net, LOSS, (*same.select(np.arange(3, 7)), ()), slopes)
    assert list(slopes.agreed.values()) == [True]


@pytest.mark.slow
def test_mixed_sizes_are_compiled_once() -> None:
    # Lengths that are equal in the first batch must stay equal: 10 atoms, 42 edges.
    net, frames = build_network("painn", SETTINGS), mixed_pool()
    slopes = compile_gradients(net, LOSS, (*frames.select(np.array([4, 5])), ()), True)
    for pair in ([1, 2], [2, 3], [0, 5], [6, 7]):
        agree(net, LOSS, (*frames.select(np.array(pair)), ()), slopes)
    assert all(slopes.agreed.values())


@pytest.mark.slow
def test_a_compiled_training_gives_the_same_bits_again() -> None:
    runs = [fit_stage(StageTask(network(), pool(), stage(50, True), 1)) for _ in "ab"]
    assert runs[0][1].engine == "compiled"
    assert bits(runs[0][0]) == bits(runs[1][0])
    plain, _ = fit_stage(StageTask(network(), pool(), stage(50), 1))
    for ours, theirs in zip(runs[0][0].parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
