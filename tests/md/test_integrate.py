"""Integrators against what is known of harmonic clouds and of ASE."""

from collections.abc import Callable

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.md import verlet
from ase.units import fs
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.atoms import frame_masses, to_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import ASE_VELOCITY, BOLTZMANN, FORCE_TO_ACCELERATION, Floats
from alloop.md.integrate import (
    BodyConstants,
    Evaluate,
    Langevin,
    PhasePoint,
    StepConditions,
    VelocityVerlet,
    body_constants,
    kinetic_energy,
    maxwell_boltzmann,
    velocity_temperature,
    without_drift,
)

KELVIN = 400.0
CLOUDS = 400
NO_NOISE = np.zeros((0, 3))


def asking(potential: Potential, batch: Batch) -> Evaluate:
    return lambda x, v: PhasePoint(x, v, potential.predict(batch.with_positions(x)))


def thermal(frames: list[Frame], potential: Potential, kelvin: float) -> PhasePoint:
    rng = random_stream(1, "thermal")
    batch = pack_frames(frames)
    v = np.concatenate([maxwell_boltzmann(frame, kelvin, rng) for frame in frames])
    return PhasePoint(batch.positions, v, potential.predict(batch))


def langevin_of_clouds(
    cloud: Potential, timestep: float, steps: int
) -> tuple[Floats, Floats, BodyConstants]:
    """Positions and velocities (steps, clouds, 3, 3) of carbon clouds at KELVIN."""
    rng = random_stream(2, "clouds")
    spread = np.sqrt(BOLTZMANN * KELVIN / 3.0)  # ω² = 3 k/m, k = 1 eV/Å²
    frames = []
    for _ in range(CLOUDS):
        x = spread * rng.standard_normal((3, 3))
        frames.append(Frame(np.full(3, 6), x - x.mean(axis=0)))
    batch = pack_frames(frames)
    moved = body_constants(batch, np.ones(CLOUDS, dtype=bool))
    phase = thermal(frames, cloud, KELVIN)
    conditions, ask = StepConditions(timestep, KELVIN), asking(cloud, batch)
    q, v = np.empty((2, steps, CLOUDS, 3, 3))
    for step in range(steps):
        noise = rng.standard_normal((3 * CLOUDS, 3))
        phase = Langevin(0.05).step(phase, moved, conditions, noise, ask)
        q[step] = phase.positions.reshape(CLOUDS, 3, 3)
        v[step] = phase.velocities.reshape(CLOUDS, 3, 3)
    return q, v, moved


def test_the_energy_error_of_verlet_grows_with_the_square_of_the_time_step(
    water: Frame, springs_of: Callable[[Frame, float], Potential]
) -> None:
    potential, batch = springs_of(water, 30.0), pack_frames([water])
    moved = body_constants(batch, np.ones(1, dtype=bool))
    steps = np.array([0.1, 0.2, 0.4, 0.8])
    errors = []
    for h in steps:
        phase = thermal([water], potential, 600.0)
        energies, conditions = [], StepConditions(float(h))
        for _ in range(round(80.0 / h)):
            phase = VelocityVerlet().step(
                phase, moved, conditions, NO_NOISE, asking(potential, batch)
            )
            total = phase.predictions.energies + kinetic_energy(phase.velocities, moved)
            energies.append(float(total[0]))
        errors.append(np.std(energies))
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_verlet_walks_the_same_path_as_ase(water: Frame) -> None:
    class Reference:
        def predict(
            self,
            batch: Batch,
            *,
            descriptors: bool = False,  # noqa: ARG002
        ) -> Predictions:
            atoms = to_atoms(batch.frame(0))
            atoms.calc = EMT()
            energy = np.array([atoms.get_potential_energy()])
            return Predictions(energy, atoms.get_forces())

    phase = thermal([water], Reference(), 300.0)
    atoms = to_atoms(water)
    atoms.calc = EMT()
    atoms.set_velocities(phase.velocities * ASE_VELOCITY)
    verlet.VelocityVerlet(atoms, timestep=0.5 * fs).run(20)
    batch = pack_frames([water])
    moved = body_constants(batch, np.ones(1, dtype=bool))
    for _ in range(20):
        phase = VelocityVerlet().step(
            phase, moved, StepConditions(0.5), NO_NOISE, asking(Reference(), batch)
        )
    np.testing.assert_allclose(phase.positions, atoms.positions, atol=1e-6)
    assert kinetic_energy(phase.velocities, moved)[0] == pytest.approx(
        atoms.get_kinetic_energy(), rel=1e-5
    )


def test_langevin_keeps_temperature_and_its_fluctuation(cloud: Potential) -> None:
    q, v, moved = langevin_of_clouds(cloud, timestep=1.0, steps=800)
    kelvin = np.array([velocity_temperature(x.reshape(-1, 3), moved) for x in v[::5]])
    omega2 = 3.0 * FORCE_TO_ACCELERATION / frame_masses(np.array([6]))[0]
    expected = KELVIN * (1.0 - omega2 / 4.0)  # exact for BAOAB on a harmonic well
    assert kelvin.mean() == pytest.approx(expected, rel=0.015)
    freedom = 6  # 3N - 3
    assert kelvin.var() == pytest.approx(2.0 * KELVIN**2 / freedom, rel=0.06)
    potential = 0.5 * 3.0 * (q[::5] ** 2).sum(axis=(-1, -2)).mean()
    assert potential == pytest.approx(0.5 * freedom * BOLTZMANN * KELVIN, rel=0.02)


def test_baoab_samples_positions_without_bias_even_at_a_large_time_step(
    cloud: Potential,
) -> None:
    omega = np.sqrt(3.0 * FORCE_TO_ACCELERATION / frame_masses(np.array([6]))[0])
    h = 1.0 / omega
    q, v, moved = langevin_of_clouds(cloud, timestep=float(h), steps=600)
    kelvin = np.mean([velocity_temperature(x.reshape(-1, 3), moved).mean() for x in v])
    assert kelvin == pytest.approx(0.75 * KELVIN, rel=0.02)  # 1 - (ωh)²/4
    variance = (q**2).mean()
    expected = BOLTZMANN * KELVIN / 3.0 * (1.0 - 1.0 / 3.0)
    assert variance == pytest.approx(expected, rel=0.02)


def test_every_element_gets_its_share_of_kinetic_energy(
    water: Frame, springs_of: Callable[[Frame, float], Potential]
) -> None:
    frames = [water] * 300
    potential, batch = springs_of(water, 20.0), pack_frames(frames)
    moved = body_constants(batch, np.ones(len(frames), dtype=bool))
    phase, rng = thermal(frames, potential, KELVIN), random_stream(3, "shares")
    m, shares = frame_masses(water.numbers), []
    for _ in range(500):
        noise = rng.standard_normal(batch.positions.shape)
        phase = Langevin(0.1).step(
            phase,
            moved,
            StepConditions(0.25, KELVIN),
            noise,
            asking(potential, batch),
        )
        squares = phase.velocities.reshape(-1, 3, 3) ** 2
        shares.append(squares.sum(axis=2).mean(axis=0) * m / FORCE_TO_ACCELERATION)
    held = 3.0 * BOLTZMANN * KELVIN * (1.0 - m / m.sum())  # the centre takes its part
    np.testing.assert_allclose(np.mean(shares, axis=0), held, rtol=0.03)


def test_langevin_does_not_carry_an_isolated_molecule_away(cloud: Potential) -> None:
    q, v, _ = langevin_of_clouds(cloud, timestep=1.0, steps=200)
    np.testing.assert_allclose(v.mean(axis=2), 0.0, atol=1e-12)
    np.testing.assert_allclose(q.mean(axis=2), 0.0, atol=1e-8)


def test_a_free_centre_of_mass_has_its_own_share_of_the_temperature(
    cloud: Potential,
) -> None:
    batch = pack_frames([Frame(np.full(3, 6), np.zeros((3, 3)))] * CLOUDS)
    moved = body_constants(batch, np.zeros(CLOUDS, dtype=bool))
    assert (moved.freedom == 9).all()
    phase = PhasePoint(batch.positions, np.zeros((3 * CLOUDS, 3)), cloud.predict(batch))
    rng, kelvin = random_stream(4, "free"), []
    for step in range(600):
        noise = rng.standard_normal((3 * CLOUDS, 3))
        phase = Langevin(0.1).step(
            phase, moved, StepConditions(0.5, KELVIN), noise, asking(cloud, batch)
        )
        if step >= 200:
            kelvin.append(velocity_temperature(phase.velocities, moved).mean())
    assert np.mean(kelvin) == pytest.approx(KELVIN, rel=0.02)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_thermal_velocities_have_no_drift_and_on_demand_no_rotation(
    atoms: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = Frame(rng.integers(1, 18, atoms), 2.0 * rng.standard_normal((atoms, 3)))
    m = frame_masses(frame.numbers)[:, None]
    turning = maxwell_boltzmann(frame, 300.0, rng)
    still = maxwell_boltzmann(frame, 300.0, rng, rotation=False)
    for v in (turning, still):
        np.testing.assert_allclose((m * v).sum(axis=0), 0.0, atol=1e-10)
    angular = (m * np.cross(frame.positions, still)).sum(axis=0)
    np.testing.assert_allclose(angular, 0.0, atol=1e-9)


def test_a_linear_molecule_at_rest_keeps_its_vibration(nitrogen: Frame) -> None:
    v = maxwell_boltzmann(nitrogen, 300.0, random_stream(5, "linear"), rotation=False)
    np.testing.assert_allclose(v[:, :2], 0.0, atol=1e-12)
    assert abs(v[0, 2]) > 0.0


def test_thermal_velocities_have_the_temperature_that_was_asked_for(
    water: Frame,
) -> None:
    frames = [water] * 4000
    rng = random_stream(6, "draws")
    v = np.concatenate([maxwell_boltzmann(frame, 350.0, rng) for frame in frames])
    moved = body_constants(pack_frames(frames), np.ones(len(frames), dtype=bool))
    kelvin = velocity_temperature(v, moved)
    assert kelvin.mean() == pytest.approx(350.0, rel=0.03)
    assert kelvin.std() == pytest.approx(350.0 * np.sqrt(2.0 / 6.0), rel=0.06)


def test_a_lone_atom_has_no_temperature() -> None:
    atom = Frame(np.array([18]), np.zeros((1, 3)))
    moved = body_constants(pack_frames([atom]), np.ones(1, dtype=bool))
    assert velocity_temperature(np.zeros((1, 3)), moved) == pytest.approx(0.0)


def test_only_walkers_that_are_held_lose_their_drift(water: Frame) -> None:
    batch = pack_frames([water, water])
    v = np.ones((6, 3))
    held = without_drift(v, body_constants(batch, np.array([True, False])))
    np.testing.assert_allclose(held[:3], 0.0, atol=1e-12)
    np.testing.assert_allclose(held[3:], 1.0)
