"""Slopes by a program: what goes in and out, what does not fit, what torch makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from alloop.core.batch import pack
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import stream
from alloop.models.compiling import Code, NotCompiled
from alloop.models.network import Network, build
from alloop.training import compiled
from alloop.training.compiled import compiled_slopes
from alloop.training.fit import Aids, fit_with
from alloop.training.losses import Drawn, Labelled, Targets
from alloop.training.pool import Pool, make_pool
from alloop.training.slopes import eager
from tests.training.springs import SETTINGS, bits, network, pool, stage

LOSS = Labelled(0.3)


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

    def keep(function: Code, example: object, *, general: bool = False) -> Code:
        functions.append(function)
        return function

    monkeypatch.setattr(compiled, "compiled", keep)
    monkeypatch.setattr(compiled, "_programs", {})
    return functions


@dataclass(frozen=True)
class Shaken:
    """Forces at positions moved by chance shall vanish."""

    width: float

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


def mixed_pool(sizes: tuple[int, ...] = (2, 3, 5, 3, 4, 6, 2, 5)) -> Pool:
    rng = stream(0, "mixed")
    frames = [
        Frame(rng.choice([1, 6, 8], size=n), 1.5 * rng.normal(size=(n, 3)))
        for n in sizes
    ]
    forces = rng.normal(size=(sum(sizes), 3))
    labels = LabelSet(pack(frames), rng.normal(size=len(sizes)), forces)
    return make_pool(labels, 1.0, cutoff=4.0).weighed(rng.uniform(0.5, 1.5, len(sizes)))


def gap(found: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> float:
    """The distance of two gradients over the length of the second."""
    ours, theirs = (torch.cat([g.flatten() for g in x]) for x in (found, true))
    return float((ours - theirs).norm() / theirs.norm())


def agree(net: Network, loss, batch: tuple, slopes: Callable) -> None:
    found, true = slopes(*batch), eager(net, loss)(*batch)
    torch.testing.assert_close(found.loss, true.loss, rtol=1e-5, atol=0.0)
    assert gap(found.gradients, true.gradients) < 1e-5


@pytest.mark.parametrize("loss", [LOSS, Labelled(0.1, "l1"), Shaken(0.1)])
def test_every_objective_goes_in_and_out_as_flat_tensors(traced, loss) -> None:
    net, frames = network(), mixed_pool()
    batch = frames.take(np.array([0, 4]))
    drawn = loss.draw(batch[0], torch.Generator().manual_seed(0))
    agree(net, loss, (*batch, drawn), compiled_slopes(net, loss, (*batch, drawn), True))
    other = frames.take(np.array([5, 2, 1]))
    drawn = loss.draw(other[0], torch.Generator().manual_seed(1))
    agree(net, loss, (*other, drawn), compiled_slopes(net, loss, (*other, drawn), True))


def test_one_program_serves_all_networks_of_a_kind(traced) -> None:
    batch = (*pool().take(np.arange(4)), ())
    for seed in range(3):
        net = network(seed)
        agree(net, LOSS, batch, compiled_slopes(net, LOSS, batch, False))
    assert len(traced) == 1
    compiled_slopes(network(), Labelled(0.2), batch, False)
    compiled_slopes(build("painn", SETTINGS | {"channels": 4}), LOSS, batch, False)
    compiled_slopes(network(), LOSS, (*pool().take(np.arange(3)), ()), False)
    assert len(traced) == 4


def test_only_some_programs_are_kept(traced) -> None:
    batch = (*pool().take(np.arange(4)), ())
    for rho in np.linspace(0.0, 1.0, 12):
        compiled_slopes(network(), Labelled(float(rho)), batch, False)
    assert len(compiled._programs) == 8


def test_a_program_that_gives_another_gradient_is_not_used(monkeypatch) -> None:
    def bad(function: Code, example: object, *, general: bool = False) -> Code:
        return lambda *flat: tuple(1.01 * x for x in function(*flat))

    monkeypatch.setattr(compiled, "compiled", bad)
    monkeypatch.setattr(compiled, "_programs", {})
    with pytest.raises(NotCompiled, match="gradient differs"):
        compiled_slopes(network(), LOSS, (*pool().take(np.arange(4)), ()), False)


def test_shapes_that_do_not_fit_are_taken_as_torch_does(monkeypatch) -> None:
    def narrow(function: Code, example, *, general: bool = False) -> Code:
        def run(*flat: Tensor) -> tuple[Tensor, ...]:
            for ours, theirs in zip(flat, example, strict=True):
                assert ours.shape == theirs.shape
            return function(*flat)

        return run

    monkeypatch.setattr(compiled, "compiled", narrow)
    monkeypatch.setattr(compiled, "_programs", {})
    net, frames = network(), mixed_pool()
    slopes = compiled_slopes(net, LOSS, (*frames.take(np.array([0, 1])), ()), True)
    for pair in ([0, 1], [1, 2], [2, 3], [4, 5], [5, 6], [6, 7], [7, 0], [7, 0]):
        agree(net, LOSS, (*frames.take(np.array(pair)), ()), slopes)
    assert sum(slopes.agreed.values()) == 1


def test_without_a_compiler_a_training_runs_and_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, course = fit_with(network(), pool(), stage(5, True), 1, Aids())
    assert course.engine.startswith("plain, not compiled: there is no C++ compiler")
    plain, _ = fit_with(network(), pool(), stage(5), 1, Aids())
    assert bits(found) == bits(plain)


def test_random_numbers_belong_to_their_step(traced) -> None:
    runs = [
        fit_with(network(), pool(), stage(6, mode), 3, Aids(objective=Shaken(0.1)))
        for mode in (True, False, False)
    ]
    assert runs[0][1].losses == pytest.approx(runs[1][1].losses, rel=1e-5)
    assert bits(runs[1][0]) == bits(runs[2][0])
    other, _ = fit_with(network(), pool(), stage(6), 4, Aids(objective=Shaken(0.1)))
    assert bits(other) != bits(runs[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["painn", "egnn"])
def test_compiled_gradients_are_torchs_own(kind: str) -> None:
    net = build(kind, {"channels": 16, "layers": 2, "radial": 4}, dtype=torch.float64)
    same = make_pool(pool().labels, 1.0, 4.0, torch.float64)
    batch = (*same.take(np.arange(4)), ())
    slopes = compiled_slopes(net, LOSS, batch, False)
    agree(net, LOSS, (*same.take(np.arange(3, 7)), ()), slopes)
    assert list(slopes.agreed.values()) == [True]


@pytest.mark.slow
def test_mixed_sizes_are_compiled_once() -> None:
    # Lengths that are equal in the first batch must stay equal: 10 atoms, 42 edges.
    net, frames = build("painn", SETTINGS), mixed_pool()
    slopes = compiled_slopes(net, LOSS, (*frames.take(np.array([4, 5])), ()), True)
    for pair in ([1, 2], [2, 3], [0, 5], [6, 7]):
        agree(net, LOSS, (*frames.take(np.array(pair)), ()), slopes)
    assert all(slopes.agreed.values())


@pytest.mark.slow
def test_a_compiled_training_gives_the_same_bits_again() -> None:
    runs = [fit_with(network(), pool(), stage(50, True), 1, Aids()) for _ in "ab"]
    assert runs[0][1].engine == "compiled"
    assert bits(runs[0][0]) == bits(runs[1][0])
    plain, _ = fit_with(network(), pool(), stage(50), 1, Aids())
    for ours, theirs in zip(runs[0][0].parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
