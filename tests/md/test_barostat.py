"""Constant pressure: volumes against exact ensembles, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.seeds import random_stream
from alloop.core.stress import voigt
from alloop.core.units import BOLTZMANN, GIGAPASCAL, KINETIC, Floats
from alloop.md.barostat import Barostat
from alloop.md.dynamics import DynamicsSettings, Exploration, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin, VelocityVerlet, maxwell_boltzmann
from tests.md.conftest import Push

KELVIN = 300.0
KT = BOLTZMANN * KELVIN
FREE = Guards(None, None, None, None, volume=None)


@dataclass(frozen=True)
class Material:
    """Atoms that feel nothing, in a cell whose energy is a function of its volume.

    energy and slope: U(V) in eV and dU/dV in eV/Å³.
    """

    energy: Callable[[Floats], Floats] = np.zeros_like
    slope: Callable[[Floats], Floats] = np.zeros_like

    def predict(self, batch: Batch, **_: object) -> Predictions:
        volume = np.linalg.det(batch.cells)
        stress = np.zeros((len(batch), 6))
        stress[:, :3] = self.slope(volume)[:, None]
        return Predictions(
            self.energy(volume), np.zeros_like(batch.positions), None, stress
        )


GAS = Material()
STIFF, REST = 0.004, 700.0  # eV/Å³ and Å³
SPRING = Material(
    lambda v: 0.5 * STIFF * (v - REST) ** 2 / REST, lambda v: STIFF * (v / REST - 1.0)
)


@dataclass(frozen=True)
class Elastic:
    """A cell with U = C V₀/2 Σ E², E = (F Fᵀ - 1)/2, in rows a F = h; free atoms."""

    modulus: float
    length: float

    def predict(self, batch: Batch, **_: object) -> Predictions:
        F = batch.cells / self.length
        E = 0.5 * (F @ F.transpose(0, 2, 1) - np.eye(3))
        scale = self.modulus * self.length**3
        virial = scale * F.transpose(0, 2, 1) @ E @ F
        volume = np.linalg.det(batch.cells)[:, None]
        energies = 0.5 * scale * np.square(E).sum(axis=(1, 2))
        forces = np.zeros_like(batch.positions)
        return Predictions(energies, forces, None, voigt(virial) / volume)


def walkers(count: int, atoms: int, volume: float) -> list[Walker]:
    length = volume ** (1 / 3)
    made = []
    for index in range(count):
        rng = random_stream(1, f"start/{index}")
        frame = Frame(
            np.full(atoms, 18),
            rng.uniform(0.0, length, (atoms, 3)),
            cell=length * np.eye(3),
            pbc=(True, True, True),
        )
        v = maxwell_boltzmann(frame, KELVIN, rng)
        made.append(Walker(index, 0, frame, v))
    return made


def streams(count: int, name: str = "md") -> list[np.random.Generator]:
    return [random_stream(2, f"{name}/{index}") for index in range(count)]


def settings(barostat: Barostat, **others: object) -> DynamicsSettings:
    """Free atoms fly straight, however long a step is."""
    known = {"integrator": Langevin(0.02), "temperature": KELVIN, "timestep": 20.0}
    return DynamicsSettings(
        **{**known, "stride": 2, "guards": FREE, "barostat": barostat, **others}
    )


@dataclass(frozen=True)
class Sampled:
    """What is observed of walkers: (times, walkers, ...), and of the last state."""

    cells: Floats
    pressures: Floats
    found: Exploration

    @property
    def volumes(self) -> Floats:
        return np.asarray(np.linalg.det(self.cells))


def sample(
    potential: object,
    start: list[Walker],
    dynamics: DynamicsSettings,
    steps: int,
    skip: int = 30,
    biases: tuple[Material, ...] = (),
) -> Sampled:
    cells, pressures = [], []

    def observe(frames: ScoredFrames) -> None:
        cells.append(frames.batch.cells)
        v = np.asarray(frames.velocities).reshape(len(start), -1, 3)
        mass = 39.948 * KINETIC
        flow = mass * np.einsum("wai,waj->wij", v, v)
        volume = np.linalg.det(frames.batch.cells)[:, None, None]
        s = np.asarray(frames.predictions.stress)
        stress = s[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
        pressures.append(flow / volume - stress)

    rngs = streams(len(start))
    options = {"observe": observe, "biases": biases}
    found = run_dynamics(start, potential, dynamics, steps, rngs, **options)
    return Sampled(np.array(cells[skip:]), np.array(pressures[skip:]), found)


def agrees(values: Floats, expected: float, within: float) -> None:
    """Averages of independent walkers (times, walkers) have this mean.

    The error bar must be small enough for the comparison to mean something.
    """
    each = values.mean(axis=0)
    error = each.std(ddof=1) / np.sqrt(len(each))
    assert error < within * abs(expected)
    assert abs(each.mean() - expected) < 4.0 * error


@pytest.mark.parametrize("shape", ["isotropic", "anisotropic"])
def test_an_ideal_gas_has_the_volumes_of_its_equation_of_state(shape) -> None:
    """p(V) ~ V^N exp(-P V/kT): mean (N + 1) kT/P, variance (N + 1) (kT/P)²."""
    atoms, pressure = 6, 1e-4
    unit = KT / pressure
    barostat = Barostat(pressure, 400.0, 1.0 / pressure, 1, shape)
    start = walkers(120, atoms, (atoms + 1) * unit)
    found = sample(GAS, start, settings(barostat), 300)
    agrees(found.volumes, (atoms + 1) * unit, 0.03)
    agrees((found.volumes - (atoms + 1) * unit) ** 2, (atoms + 1) * unit**2, 0.12)


@pytest.mark.parametrize(
    ("interval", "potential", "biases"),
    [(1, SPRING, ()), (10, SPRING, ()), (1, GAS, (SPRING,))],
)
def test_a_spring_of_volume_fluctuates_as_its_integral_says(
    interval, potential, biases
) -> None:
    """However long the steps of the barostat are, and if the spring is a bias."""
    atoms, pressure = 4, 0.0004
    v = np.linspace(1.0, 2500.0, 20000)
    log = atoms * np.log(v) - (SPRING.energy(v) + pressure * v) / KT
    p = np.exp(log - log.max())
    p /= p.sum()
    mean = float(p @ v)
    variance = float(p @ (v - mean) ** 2)
    barostat = Barostat(pressure, 400.0, 1.0 / STIFF, interval)
    start = walkers(120, atoms, REST)
    found = sample(potential, start, settings(barostat), 400, biases=biases)
    agrees(found.volumes, mean, 0.02)
    agrees((found.volumes - mean) ** 2, variance, 0.1)


MODULUS, LENGTH = 0.05, 8.0  # eV/Å³ and Å


def sheared(steps: int) -> tuple[Sampled, float]:
    """An elastic cell with two free atoms, and the pressure that is set."""
    bare = LENGTH**3
    barostat = Barostat(2 * KT / bare, 400.0, 1.0 / MODULUS, 1, "anisotropic")
    crystal = Elastic(MODULUS, LENGTH)
    found = sample(crystal, walkers(120, 2, bare), settings(barostat), steps)
    return found, barostat.pressure


def test_a_crystal_shears_as_equipartition_says() -> None:
    """<ε_xy²> = kT/(2 C V₀)."""
    F = sheared(400)[0].cells / LENGTH
    E = 0.5 * (F @ np.swapaxes(F, -1, -2) - np.eye(3))
    agrees(E[..., 0, 1] ** 2, KT / (2.0 * MODULUS * LENGTH**3), 0.05)


@pytest.mark.slow
def test_a_crystal_presses_as_the_virial_theorem_says() -> None:
    """<V (P_int - P)> = -kT along each axis, exactly, whatever the material."""
    found, pressure = sheared(40000)
    excess = found.volumes[..., None, None] * (found.pressures - pressure * np.eye(3))
    for axis in range(3):
        agrees(excess[..., axis, axis], -KT, 0.2)
    shear = excess[..., 0, 2].mean(axis=0)
    assert abs(shear.mean()) < 4.0 * shear.std(ddof=1) / np.sqrt(len(shear))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["isotropic", "anisotropic"])
def test_a_gas_has_the_volumes_of_its_equation_of_state_within_a_percent(shape) -> None:
    atoms, pressure = 6, 1e-4
    unit = KT / pressure
    barostat = Barostat(pressure, 400.0, 1.0 / pressure, 1, shape)
    start = walkers(120, atoms, (atoms + 1) * unit)
    found = sample(GAS, start, settings(barostat), 6000)
    agrees(found.volumes, (atoms + 1) * unit, 0.01)
    agrees((found.volumes - (atoms + 1) * unit) ** 2, (atoms + 1) * unit**2, 0.04)


def test_the_volume_moves_more_slowly_the_longer_its_relaxation_time() -> None:
    start = walkers(40, 4, 1500.0)
    moved = []
    for time in (400.0, 4000.0):
        barostat = Barostat(0.0004, time, 1.0 / STIFF, 1)
        found = sample(SPRING, start, settings(barostat), 8, skip=0).volumes
        moved.append(1500.0 - found[-1].mean())
    assert 0.0 < moved[1] < 0.3 * moved[0]


def test_two_pieces_are_the_same_bits_again_and_walkers_keep_their_cells() -> None:
    dynamics = settings(Barostat(0.0004, 100.0, 1.0 / STIFF, 10))
    runs = []
    for _ in range(2):
        here = walkers(3, 4, REST)
        for piece in range(2):
            rngs = streams(3, f"piece/{piece}")
            here = list(run_dynamics(here, SPRING, dynamics, 25, rngs).walkers)
        runs.append(here)
    for one, again in zip(*runs, strict=True):
        assert one.frame.id == again.frame.id
        assert one.velocities.tobytes() == again.velocities.tobytes()
        assert not np.allclose(one.frame.cell, walkers(1, 4, REST)[0].frame.cell)


def test_a_walkers_cell_does_not_depend_on_its_company() -> None:
    dynamics = settings(Barostat(0.0004, 100.0, 1.0 / STIFF, 10))
    start = walkers(3, 4, REST)
    together = run_dynamics(start, SPRING, dynamics, 30, streams(3)).walkers
    alone = run_dynamics(start[1:2], SPRING, dynamics, 30, streams(3)[1:2]).walkers
    np.testing.assert_allclose(together[1].frame.cell, alone[0].frame.cell, atol=1e-8)


def test_a_cell_that_collapses_stops_its_walker_where_it_was_before() -> None:
    """A model whose energy falls without end as the cell shrinks."""
    hole = Material(lambda v: 0.2 * v, lambda v: np.full_like(v, 0.2))
    barostat = Barostat(0.0, 100.0, 1.0, 2)
    dynamics = settings(barostat, guards=replace(FREE, volume=1.3, back=5))
    found = run_dynamics(walkers(2, 4, REST), hole, dynamics, 400, streams(2))
    for walker in found.walkers:
        assert walker.stopped is not None
        assert "a cell 1.3" in walker.stopped
        assert np.linalg.det(walker.frame.cell) > REST / 1.3
    still = settings(barostat, guards=replace(FREE, volume=None))
    hot = replace(still, temperature=0.0)
    cold = run_dynamics(walkers(1, 4, REST), hole, hot, 20, streams(1)).walkers[0]
    assert np.linalg.det(cold.frame.cell) < REST  # without noise it only falls


def test_without_a_barostat_cells_stay_as_they_are() -> None:
    start = walkers(2, 4, REST)
    dynamics = replace(settings(Barostat()), barostat=None)
    found = run_dynamics(start, SPRING, dynamics, 20, streams(2)).walkers
    for walker, begun in zip(found, start, strict=True):
        np.testing.assert_array_equal(walker.frame.cell, begun.frame.cell)


def test_what_cannot_be_at_constant_pressure_is_one_sentence(water: Frame) -> None:
    molecule = Walker(0, 0, water, np.zeros((3, 3)))
    with pytest.raises(
        InputError, match="expected cells that repeat in all directions"
    ):
        run_dynamics([molecule], GAS, settings(Barostat()), 10, streams(1))
    pair = walkers(1, 2, REST)
    with pytest.raises(InputError, match="expected a potential that gives the stress"):
        run_dynamics(pair, Push(0.0), settings(Barostat()), 10, streams(1))
    with pytest.raises(InputError, match="expected a thermostat"):
        settings(Barostat(), integrator=VelocityVerlet())
    with pytest.raises(InputError, match="expected a finite pressure"):
        Barostat(float("nan"))
    for wrong in ({"time": 0.0}, {"compressibility": -1.0}, {"interval": 0}):
        with pytest.raises(InputError, match=f"positive {next(iter(wrong))} of the"):
            Barostat(**wrong)


def test_a_gigapascal_is_what_it_is() -> None:
    assert pytest.approx(0.00624150907) == GIGAPASCAL  # 1e9 J/m³ in eV/Å³
