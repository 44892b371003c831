"""Free energies of a diatomic in a double well, against the exact answer."""

import importlib.util
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN, Floats, Integers
from alloop.md.biases import HarmonicWindows, Hills, Metadynamics, MetadynamicsSettings
from alloop.md.collective_variables import Distance, Torsion, walker_variables
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.free_energy import (
    hills_free_energy,
    perturbation,
    weighted_free_energy,
    window_free_energy,
)
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin, maxwell_boltzmann

KELVIN = 300.0
THERMAL = BOLTZMANN * KELVIN  # eV
EDGES = np.linspace(1.0, 2.0, 21)  # Å
FREE = Guards(force=None, contact=None, bond=None, heat=None)
MOTION = DynamicsSettings(
    Langevin(0.02), temperature=KELVIN, timestep=2.0, stride=10, guards=FREE
)
VARIABLE = Distance((0, 1))
HILLS = MetadynamicsSettings(
    height=0.01, pace=100, factor=8.0, length_width=0.08, force=50.0
)


@dataclass(frozen=True)
class DoubleWell:
    """E(r) of a diatomic with minima near 1.1 and 1.9 Å and a barrier of 0.15 eV."""

    def energy(self, r: Floats) -> Floats:
        z = (r - 1.5) / 0.4
        return 0.15 * (z * z - 1.0) ** 2 + 0.03 * z

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        d, r = bonds(batch)
        z = (r - 1.5) / 0.4
        slope = (0.6 * z * (z * z - 1.0) + 0.03) / 0.4
        pull = (-slope / r)[:, None] * d
        forces = np.stack([-pull, pull], axis=1).reshape(-1, 3)
        return Predictions(self.energy(r), forces)


WELL = DoubleWell()


def bonds(batch: Batch) -> tuple[Floats, Floats]:
    x = batch.positions.reshape(-1, 2, 3)
    d = x[:, 1] - x[:, 0]
    return d, np.linalg.norm(d, axis=1)


def exact() -> Floats:
    """F of the bins: a free diatomic has the density r² exp(-E(r) / k_B T)."""
    fine = np.linspace(EDGES[0], EDGES[-1], 100 * (len(EDGES) - 1) + 1)
    r = 0.5 * (fine[1:] + fine[:-1])
    density = (r**2 * np.exp(-WELL.energy(r) / THERMAL)).reshape(len(EDGES) - 1, -1)
    return -THERMAL * np.log(density.mean(axis=1))


def mean_error(free: Floats) -> float:
    """Root mean square difference from the exact F, eV, the best constant added."""
    off = free - exact()
    return float(np.std(off))


def crew(lengths: Floats) -> list[Walker]:
    frames = [
        Frame(np.array([7, 7]), np.array([[0, 0, 0], [0, 0, r]])) for r in lengths
    ]
    return [
        Walker(i, 0, x, maxwell_boltzmann(x, KELVIN, random_stream(1, str(i))))
        for i, x in enumerate(frames)
    ]


def streams(count: int, name: str) -> list[np.random.Generator]:
    return [random_stream(2, f"{name}/{index}") for index in range(count)]


def made_hills(steps: int, walkers: int = 32) -> Hills:
    start = crew(np.full(walkers, 1.1))
    bias = Metadynamics.of(start, {0: [VARIABLE]}, HILLS, temperature=KELVIN)
    rngs = streams(walkers, "hills")
    run_dynamics(start, WELL, MOTION, steps, rngs, biases=[bias])
    return bias.hills


def visited(walkers: list[Walker], bias: object, skip: int, steps: int) -> Floats:
    """Return distances (frames, walkers), those of the first `skip` steps left out."""
    lengths: list[Floats] = []
    rngs = streams(len(walkers), "settling")
    moved = run_dynamics(walkers, WELL, MOTION, skip, rngs, biases=[bias]).walkers
    run_dynamics(
        moved,
        WELL,
        MOTION,
        steps,
        streams(len(walkers), "visits"),
        biases=[bias],
        observe=lambda frames: lengths.append(bonds(frames.batch)[1]),
    )
    return np.array(lengths)


def hills_error(hills: Hills) -> float:
    middles = 0.5 * (EDGES[1:] + EDGES[:-1])[:, None]
    return mean_error(hills_free_energy(hills, middles, HILLS.factor, periods=[0.0]))


def test_hills_sum_to_the_free_energy() -> None:
    hills = made_hills(2000)
    assert len(hills) == 20 * 32
    assert hills_error(hills) < 0.015
    middles = 0.5 * (EDGES[1:] + EDGES[:-1])[:, None]
    free = hills_free_energy(hills, middles, HILLS.factor, periods=[0.0])
    assert free.min() == 0.0
    assert free[10] > 0.12  # the barrier was crossed, at 6 k_B T
    other = hills_free_energy(hills, middles, HILLS.factor, periods=[0.0], molecule=1)
    assert not other.any()


TORSION = Torsion((0, 1, 2, 3))
SPRINGS = ((0, 1, 1.4), (1, 2, 1.4), (2, 3, 1.4), (0, 2, 2.2), (1, 3, 2.2))  # Å


@dataclass(frozen=True)
class Rotor:
    """Four atoms on springs that hold bonds and angles, with a torsional barrier.

    No volume element depends on the torsion φ: its free energy is exactly E(φ).
    """

    def energy(self, turn: Floats) -> Floats:
        return 0.07 * (1.0 - np.cos(2.0 * turn)) + 0.02 * np.sin(turn)

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        x = batch.positions.reshape(-1, 4, 3)
        turn, gradient = TORSION.evaluate(x)
        slope = 0.14 * np.sin(2.0 * turn) + 0.02 * np.cos(turn)
        energies, forces = self.energy(turn), -slope[:, None, None] * gradient
        for i, j, length in SPRINGS:
            d = x[:, i] - x[:, j]
            r = np.linalg.norm(d, axis=1)
            energies = energies + 10.0 * (r - length) ** 2
            pull = (-20.0 * (r - length) / r)[:, None] * d
            forces[:, i] += pull
            forces[:, j] -= pull
        return Predictions(energies, forces.reshape(-1, 3))


def test_hills_on_a_torsion_close_the_circle() -> None:
    """From -π to π the sum of hills is smooth, and the free energy of the rotor."""
    rotor, count = Rotor(), 32
    x = np.array([[0.4, 1.34, 0.0], [0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [1.0, -1.34, 0]])
    frame = Frame(np.full(4, 6), x)
    walkers = [
        Walker(i, 0, frame, maxwell_boltzmann(frame, KELVIN, random_stream(1, str(i))))
        for i in range(count)
    ]
    settings = replace(HILLS, angle_width=0.25)
    bias = Metadynamics.of(walkers, {0: [TORSION]}, settings, temperature=KELVIN)
    rngs = streams(count, "rotor")
    moved = run_dynamics(walkers, rotor, MOTION, 2500, rngs, biases=[bias])
    assert all(walker.stopped is None for walker in moved.walkers)
    points = np.linspace(-np.pi, np.pi, 33)[:, None]
    free = hills_free_energy(
        bias.hills, points, settings.factor, periods=[TORSION.period]
    )
    assert free[0] == pytest.approx(free[-1], abs=1e-12)
    off = free - rotor.energy(points[:, 0])
    assert np.std(off) < 0.015


@dataclass(frozen=True)
class Windowed:
    values: Floats
    windows: Integers
    centres: Floats
    stiffness: Floats


def sampled_windows(each: int, steps: int) -> Windowed:
    centres, count = np.linspace(0.95, 2.05, 12), 12 * each
    windows = np.repeat(np.arange(12), each)
    walkers = crew(centres[windows])
    batch = pack_frames([x.frame for x in walkers])
    variables = walker_variables(batch, [[VARIABLE]] * count)
    stiffness = np.full(12, 6.0)  # eV/Å²: neighbours overlap
    bias = HarmonicWindows(
        variables, centres[windows][:, None], stiffness[windows][:, None]
    )
    values = visited(walkers, bias, 100, steps)
    return Windowed(values.ravel(), np.tile(windows, len(values)), centres, stiffness)


@pytest.fixture(scope="module")
def windowed() -> Windowed:
    return sampled_windows(each=8, steps=600)


def wham_weights(data: Windowed) -> Floats:
    """Return logarithms of frames' weights by plain iteration of WHAM's equations."""
    off = data.values - data.centres[:, None]
    reduced = 0.5 * data.stiffness[:, None] * off**2 / THERMAL
    counts = np.bincount(data.windows).astype(float)
    offsets = np.zeros(len(counts))
    for _ in range(2000):
        weights = 1.0 / (counts[:, None] * np.exp(offsets[:, None] - reduced)).sum(0)
        offsets = -np.log((weights * np.exp(-reduced)).sum(1))
        offsets -= offsets[0]
    return np.log(weights)


def test_windows_give_the_free_energy(windowed: Windowed) -> None:
    free = weighted_free_energy(windowed.values, wham_weights(windowed), EDGES, KELVIN)
    assert mean_error(free) < 0.004


@pytest.mark.skipif(
    importlib.util.find_spec("pymbar") is None, reason="pymbar is not installed"
)
def test_mbar_agrees_with_iterated_wham(windowed: Windowed) -> None:
    shuffled = np.random.default_rng(0).permutation(len(windowed.values))
    free = window_free_energy(
        windowed.values[shuffled],
        windowed.windows[shuffled],
        windowed.centres,
        windowed.stiffness,
        EDGES,
        temperature=KELVIN,
    )
    expected = weighted_free_energy(
        windowed.values, wham_weights(windowed), EDGES, KELVIN
    )
    np.testing.assert_allclose(free, expected, atol=1e-5)


def test_without_pymbar_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pymbar", None)
    with pytest.raises(InputError, match=r"pip install 'alloop\[free-energy\]'"):
        window_free_energy(
            np.ones(3),
            np.zeros(3, dtype=int),
            np.ones(1),
            np.ones(1),
            EDGES,
            temperature=KELVIN,
        )


def test_bins_without_frames_are_infinite() -> None:
    values, edges = np.array([0.5, 0.5, 1.5]), np.array([0.0, 1.0, 2.0, 3.0])
    free = weighted_free_energy(values, np.zeros(3), edges, KELVIN)
    np.testing.assert_allclose(free, [0.0, THERMAL * np.log(2.0), np.inf])


@pytest.mark.slow
def test_a_bias_that_stands_gives_the_free_energy_to_one_meV() -> None:
    hills = made_hills(5000)
    assert hills_error(hills) < 0.008
    walkers = crew(np.linspace(1.0, 2.0, 256))
    rare = replace(HILLS, pace=10**9)  # no more hills
    bias = Metadynamics.of(
        walkers, {0: [VARIABLE]}, rare, temperature=KELVIN, hills=hills
    )
    values = visited(walkers, bias, 300, 2000).ravel()
    none = np.zeros(len(values), dtype=int)
    logarithms = hills.evaluate(values[:, None], none, np.zeros((1, 1)))[0] / THERMAL
    free = weighted_free_energy(values, logarithms, EDGES, KELVIN)
    assert mean_error(free) < 0.001


@pytest.mark.slow
def test_windows_give_the_free_energy_to_one_meV() -> None:
    data = sampled_windows(each=40, steps=4000)
    free = weighted_free_energy(data.values, wham_weights(data), EDGES, KELVIN)
    assert mean_error(free) < 0.001


def test_perturbation_between_two_oscillators_is_exact() -> None:
    """k/2 x² sampled, k'/2 x² wanted: the difference is kT/2 ln k'/k."""
    rng = np.random.default_rng(3)
    soft, stiff = 5.0, 8.0
    x = rng.normal(0.0, np.sqrt(THERMAL / soft), 200_000)
    differences = 0.5 * (stiff - soft) * x**2 + 2.0
    found = perturbation(differences, np.zeros(len(x)), KELVIN)
    exact = 2.0 + 0.5 * THERMAL * np.log(stiff / soft)
    assert found == pytest.approx(exact, abs=2e-3 * THERMAL)
    wide = rng.normal(0.0, np.sqrt(2.0 * THERMAL / soft), 200_000)
    weights = -0.5 * (soft - soft / 2) * wide**2 / THERMAL  # back to the soft one
    differences = 0.5 * (stiff - soft) * wide**2 + 2.0
    found = perturbation(differences, weights, KELVIN)
    assert found == pytest.approx(exact, abs=4e-3 * THERMAL)
