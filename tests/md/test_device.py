"""MD whose arrays stay on a torch device gives what numpy's gives, within rounding."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from alloop.core.arrays import to_numpy
from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import DevicePotential, FittedScorer, Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.barostat import Barostat
from alloop.md.dynamics import DynamicsSettings, Exploration, run_dynamics, snapshot
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin, VelocityVerlet, maxwell_boltzmann
from alloop.models.graph import Graph
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.placed import PlacedPotential, moving_potential
from alloop.scores.committee import Committee
from alloop.scores.leverage import fit_leverage
from alloop.scores.qresidual import atom_descriptors, fit_qresidual

NAMES = ("CH3CH2OH", "H2O", "H", "CH3OH", "H2O", "H2CO")
HOT = DynamicsSettings(temperature=600.0, stride=5)


def learned(scale: float = 0.3, seed: int = 1) -> LearnedPotential:
    network = build_network("painn", {"channels": 8, "layers": 2}, seed, torch.float64)
    references = {1: -13.6, 6: -1029.4, 8: -2041.8, 18: 0.0}
    return LearnedPotential(network, references, scale)


def crew(frames: list[Frame]) -> list[Walker]:
    def hot(index: int) -> Floats:
        rng = random_stream(1, str(index))
        return maxwell_boltzmann(frames[index], 600.0, rng)

    walkers = [Walker(i, 0, frame, hot(i)) for i, frame in enumerate(frames)]
    return [*walkers[:-1], replace(walkers[-1], stopped="before")]


def molecules() -> list[Frame]:
    return [from_atoms(molecule(name)) for name in NAMES]


def crystals() -> list[Frame]:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    rng = np.random.default_rng(0)
    atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return [from_atoms(atoms), from_atoms(atoms * (2, 1, 1)), from_atoms(atoms)]


def both(
    frames: list[Frame],
    dynamics: DynamicsSettings,
    scorer: FittedScorer,
    steps: int = 20,
    scale: float = 0.3,
) -> tuple[Exploration, Exploration]:
    potential, walkers, seen = learned(scale), crew(frames), []
    placed = PlacedPotential(potential, pack_frames(frames))
    assert isinstance(placed, DevicePotential)

    def moved(on: Potential) -> Exploration:
        shown: list[ScoredFrames] = []
        seen.append(shown)
        return run_dynamics(
            walkers,
            on,
            dynamics,
            steps,
            [random_stream(2, str(i)) for i in range(len(walkers))],
            scorer=scorer,
            threshold=1.0,
            keep=6,
            controls=4,
            control_rng=random_stream(3, "controls"),
            observe=shown.append,
        )

    found = moved(potential), moved(placed)
    for one, other in zip(*seen, strict=True):
        assert dict(one.stopped) == dict(other.stopped)
        np.testing.assert_array_equal(one.eligible, other.eligible)
        np.testing.assert_allclose(other.surprise, one.surprise, rtol=1e-6)
        np.testing.assert_allclose(other.velocities, one.velocities, atol=1e-9)
        np.testing.assert_allclose(other.batch.positions, one.batch.positions, 1e-7)
    return found


def require_alike(one: Exploration, other: Exploration) -> None:
    for a, b in zip(one.walkers, other.walkers, strict=True):
        assert (a.step, a.stopped) == (b.step, b.stopped)
        np.testing.assert_allclose(b.frame.positions, a.frame.positions, atol=1e-7)
        np.testing.assert_allclose(b.frame.cell, a.frame.cell, atol=1e-7)
        np.testing.assert_allclose(b.velocities, a.velocities, atol=1e-9)
    left, right = (*one.candidates, *one.controls), (*other.candidates, *other.controls)
    for c, d in zip(left, right, strict=True):
        assert (c.walker, c.step, c.origin) == (d.walker, d.step, d.origin)
        assert d.surprise == pytest.approx(c.surprise, rel=1e-6)
        assert d.energy == pytest.approx(c.energy, abs=1e-8)
        np.testing.assert_allclose(d.forces, c.forces, atol=1e-7)
        np.testing.assert_allclose(d.descriptor, c.descriptor, atol=1e-7)
    assert one.scored == other.scored
    assert other.temperature == pytest.approx(one.temperature, rel=1e-9)


def fitted(kind: str, frames: list[Frame]) -> FittedScorer:
    if kind == "committee":
        return Committee((learned(seed=2), learned(seed=3)))
    potential, batch = learned(), pack_frames(frames)
    described = (batch, atom_descriptors(potential, batch))
    if kind == "leverage":
        return fit_leverage(described, described)
    return fit_qresidual(*described, *described)


@pytest.mark.parametrize("kind", ["leverage", "committee"])
def test_langevin_with_a_scorer(kind: str) -> None:
    frames = molecules()
    one, other = both(frames, HOT, fitted(kind, frames))
    require_alike(one, other)
    assert len(one.candidates) >= 6
    assert len(one.controls) == 4


@pytest.mark.parametrize(
    ("dynamics", "reasons"),
    [
        (replace(HOT, guards=Guards(force=0.2)), {"force", "atoms at"}),
        (replace(HOT, guards=Guards(bond=1.1, surprise=3.0)), {"a bond", "surprise"}),
        (DynamicsSettings(VelocityVerlet(), stride=5, centre=False), set()),
        (DynamicsSettings(Langevin(0.1), temperature=0.0, stride=5), set()),
    ],
)
def test_guards_and_integrators(dynamics: DynamicsSettings, reasons: set[str]) -> None:
    frames = molecules()
    one, other = both(frames, dynamics, fitted("leverage", frames), scale=2.0)
    require_alike(one, other)
    stopped = " ".join(walker.stopped or "" for walker in one.walkers)
    assert all(reason in stopped for reason in reasons)


@pytest.mark.parametrize("barostat", [None, Barostat(interval=5, shape="anisotropic")])
def test_cells(barostat: Barostat | None) -> None:
    frames = crystals()
    cold = DynamicsSettings(temperature=80.0, stride=4, barostat=barostat)
    one, other = both(frames, cold, fitted("q-residual", frames), steps=12)
    require_alike(one, other)


def test_a_walker_that_explodes_is_stopped_before_nan_spreads() -> None:
    frames = molecules()
    potential, walkers = learned(), crew(frames)
    walkers[1] = replace(walkers[1], velocities=1e308 * np.ones((3, 3)))
    verlet = DynamicsSettings(VelocityVerlet(), timestep=1.0, guards=Guards(heat=None))
    rngs = [random_stream(2, str(i)) for i in range(len(walkers))]
    with np.errstate(all="ignore"):
        here, there = (
            run_dynamics(walkers, on, verlet, 10, rngs)
            for on in (potential, PlacedPotential(potential, pack_frames(frames)))
        )
    require_alike(here, there)
    assert there.walkers[1].stopped == "not finite"
    assert there.walkers[0].step == 10


def test_no_array_leaves_the_device_between_two_scored_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers may be looked at, whole arrays are not copied."""
    frames = molecules()
    potential = learned()
    placed = PlacedPotential(potential, pack_frames(frames))
    copied: list[tuple[int, ...]] = []

    def counted(array: torch.Tensor) -> torch.Tensor:
        copied.append(tuple(array.shape))
        return array

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    walkers = crew(frames)
    rngs = [random_stream(2, str(i)) for i in range(len(walkers))]
    counts = []
    for steps in (5, 10):
        copied.clear()
        run_dynamics(walkers, placed, replace(HOT, stride=100), steps, rngs)
        counts.append(len(copied))
    assert counts[0] == counts[1] <= 5  # the walkers at the end


def test_predictions_lie_where_the_positions_do() -> None:
    batch, potential = pack_frames(molecules()), learned()
    placed = PlacedPotential(potential, batch)
    there = batch.with_cells(placed.place(batch.positions), placed.place(batch.cells))
    on_device = placed.predict(there, descriptors=True)
    assert isinstance(on_device.forces, torch.Tensor)
    assert on_device.forces.dtype == torch.float64
    plain, here = (p.predict(batch, descriptors=True) for p in (potential, placed))
    for name in ("energies", "forces", "descriptors"):
        value = getattr(plain, name)
        np.testing.assert_array_equal(getattr(here, name), value)
        np.testing.assert_allclose(
            to_numpy(getattr(on_device, name)), value, rtol=1e-12
        )
    other = replace(there, numbers=np.roll(batch.numbers, 1))
    with pytest.raises(ValueError, match="placed for"):
        placed.predict(other)


def test_walkers_that_do_not_fit_into_memory_are_predicted_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, potential, sizes = pack_frames(molecules()), learned(), []
    placed = PlacedPotential(potential, batch)
    there = batch.with_cells(placed.place(batch.positions), placed.place(batch.cells))
    whole = to_numpy(placed.predict(there).forces)
    graph_of = PlacedPotential._graph

    def little_memory(own: PlacedPotential, start: int, stop: int) -> Graph:
        atoms = int(batch.offsets[stop] - batch.offsets[start])
        sizes.append(atoms)
        if atoms > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return graph_of(own, start, stop)

    monkeypatch.setattr(PlacedPotential, "_graph", little_memory)
    for _ in range(2):
        found = to_numpy(placed.predict(there).forces)
        np.testing.assert_allclose(found, whole, atol=1e-12)
    assert max(sizes) == len(batch.numbers)
    assert max(sizes[-5:]) <= 12  # what fitted is remembered


def test_a_snapshot_is_the_same_on_a_device() -> None:
    frames = molecules()
    potential, scorer = learned(), fitted("leverage", frames)
    walkers = crew(frames)
    placed = PlacedPotential(potential, pack_frames(frames))
    one, other = (snapshot(walkers, on, HOT, scorer) for on in (potential, placed))
    np.testing.assert_allclose(other.surprise, one.surprise, rtol=1e-9)
    np.testing.assert_allclose(other.predictions.energies, one.predictions.energies)
    np.testing.assert_array_equal(other.eligible, one.eligible)


def test_on_a_cpu_the_potential_moves_walkers_as_it_is() -> None:
    potential, batch = learned(), pack_frames(molecules())
    assert moving_potential(potential, batch, compile=False) == (potential, None)

    @dataclass(frozen=True)
    class Own:
        def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
            raise NotImplementedError

    assert moving_potential(Own(), batch, compile=False) == (Own(), None)
