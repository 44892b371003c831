"""Relaxation, normal modes and thermal samples against textbooks and ASE."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.vibrations.data import VibrationsData
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.atoms import frame_masses, to_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN, FORCE_TO_ACCELERATION, KINETIC, Floats
from alloop.md.contacts import closest_contact
from alloop.md.thermal_frames import (
    harmonic_frames,
    normal_modes,
    numerical_hessian,
    rattled_frames,
    relax_frame,
    strained_frames,
    thermal_walkers,
)

SpringsOf = Callable[[Frame, Floats | float], Potential]
PER_CM = 2.0 * np.pi * 2.99792458e-5  # 1/fs


@dataclass(frozen=True)
class Emt:
    """ASE's effective-medium potential, frame by frame."""

    def predict(
        self,
        batch: Batch,
        *,
        descriptors: bool = False,  # noqa: ARG002
    ) -> Predictions:
        energies, forces = [], []
        for frame in batch.frames():
            atoms = to_atoms(frame)
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        return Predictions(np.array(energies), np.concatenate(forces))


@dataclass(frozen=True)
class Nowhere:
    def predict(
        self,
        batch: Batch,
        *,
        descriptors: bool = False,  # noqa: ARG002
    ) -> Predictions:
        return Predictions(np.zeros(len(batch)), np.full_like(batch.positions, np.nan))


@pytest.fixture
def stretched(water: Frame) -> Frame:
    moves = 0.15 * random_stream(0, "stretch").standard_normal((3, 3))
    return Frame(water.numbers, water.positions + moves)


def test_relaxation_finds_the_minimum(
    water: Frame, stretched: Frame, springs_of: SpringsOf
) -> None:
    potential = springs_of(water, np.array([[0, 40, 40], [40, 0, 5], [40, 5, 0]]))
    found = relax_frame(stretched, potential, fmax=1e-4)
    distances = np.linalg.norm(found.positions[:, None] - found.positions, axis=-1)
    expected = np.linalg.norm(water.positions[:, None] - water.positions, axis=-1)
    np.testing.assert_allclose(distances, expected, atol=1e-4)


def test_relaxation_takes_few_calls(stretched: Frame) -> None:
    found = relax_frame(stretched, Emt(), fmax=0.01, steps=40)
    forces = Emt().predict(pack_frames([found])).forces
    assert np.linalg.norm(forces, axis=1).max() < 0.01


def test_relaxation_that_runs_out_of_steps_gives_the_best_frame(
    stretched: Frame,
) -> None:
    before = np.linalg.norm(
        Emt().predict(pack_frames([stretched])).forces, axis=1
    ).max()
    found = relax_frame(stretched, Emt(), fmax=1e-9, steps=3)
    assert (
        np.linalg.norm(Emt().predict(pack_frames([found])).forces, axis=1).max()
        < before
    )


def test_relaxation_without_finite_forces_is_refused(water: Frame) -> None:
    with pytest.raises(InputError, match="expected finite forces"):
        relax_frame(water, Nowhere())


def test_a_diatomic_vibrates_at_the_root_of_k_over_mu(
    nitrogen: Frame, springs_of: SpringsOf
) -> None:
    modes = normal_modes(
        nitrogen, numerical_hessian(nitrogen, springs_of(nitrogen, 140.0))
    )
    mu = frame_masses(nitrogen.numbers)[0] / 2.0
    omega = np.sqrt(140.0 * FORCE_TO_ACCELERATION / mu)
    np.testing.assert_allclose(modes.wavenumbers, [omega / PER_CM], rtol=1e-5)


def test_carbon_dioxide_has_the_textbook_stretches(springs_of: SpringsOf) -> None:
    x = np.array([[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])
    carbon_dioxide = Frame(np.array([8, 6, 8]), x)
    k = 100.0
    bonds = k * np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=float)
    potential = springs_of(carbon_dioxide, bonds)
    modes = normal_modes(carbon_dioxide, numerical_hessian(carbon_dioxide, potential))
    oxygen, carbon, _ = frame_masses(carbon_dioxide.numbers)
    squares = k * np.array([1.0 / oxygen, 1.0 / oxygen + 2.0 / carbon])
    expected = np.sqrt(squares * FORCE_TO_ACCELERATION) / PER_CM
    assert len(modes.wavenumbers) == 4  # linear: 3N - 5
    np.testing.assert_allclose(modes.wavenumbers[:2], 0.0, atol=20.0)  # bends are free
    np.testing.assert_allclose(modes.wavenumbers[2:], expected, rtol=1e-4)


def test_frequencies_are_those_of_ase(water: Frame) -> None:
    minimum = relax_frame(water, Emt(), fmax=1e-5)
    second = numerical_hessian(minimum, Emt(), step=0.005)
    found = normal_modes(minimum, second).wavenumbers
    data = VibrationsData.from_2d(to_atoms(minimum), second)
    expected = np.sort(np.real(data.get_frequencies()))[-3:]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_saddle_has_an_imaginary_mode_and_can_still_be_sampled(
    nitrogen: Frame, springs_of: SpringsOf
) -> None:
    modes = normal_modes(
        nitrogen, numerical_hessian(nitrogen, springs_of(nitrogen, -5.0))
    )
    assert modes.wavenumbers[0] < -100.0
    frames = harmonic_frames(nitrogen, modes, 300.0, 50, random_stream(1, "saddle"))
    moved = [np.abs(frame.positions - nitrogen.positions).max() for frame in frames]
    assert 0.0 < max(moved) <= 0.4 + 1e-8


def test_every_mode_holds_half_a_kt(water: Frame, springs_of: SpringsOf) -> None:
    potential, kelvin, count = springs_of(water, 60.0), 300.0, 4000
    modes = normal_modes(water, numerical_hessian(water, potential))
    frames = harmonic_frames(water, modes, kelvin, count, random_stream(2, "thermal"))
    moves = np.stack([frame.positions - water.positions for frame in frames])
    root = np.sqrt(frame_masses(water.numbers))[:, None]
    q = np.einsum("cax,max->cm", moves * root, modes.vectors)
    energy = 0.5 * KINETIC * modes.squares * (q**2).mean(axis=0)
    np.testing.assert_allclose(energy, 0.5 * BOLTZMANN * kelvin, rtol=0.07)
    exact = potential.predict(pack_frames(frames)).energies.mean()
    assert exact == pytest.approx(1.5 * BOLTZMANN * kelvin, rel=0.1)


def test_samples_neither_shift_nor_turn(water: Frame, springs_of: SpringsOf) -> None:
    modes = normal_modes(water, numerical_hessian(water, springs_of(water, 60.0)))
    m = frame_masses(water.numbers)[:, None]
    for frame in harmonic_frames(water, modes, 500.0, 20, random_stream(3, "still")):
        move = frame.positions - water.positions
        np.testing.assert_allclose((m * move).sum(axis=0), 0.0, atol=1e-6)
        turn = (m * np.cross(water.positions, move)).sum(axis=0)
        np.testing.assert_allclose(turn, 0.0, atol=1e-6)


@given(st.floats(0.01, 2.0), st.integers(0, 1000))
def test_atoms_never_collide_however_wild_the_rattle(sigma: float, seed: int) -> None:
    x = np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.24, 0.9266, 0.0]])
    water = Frame(np.array([8, 1, 1]), x)
    for frame in rattled_frames(water, sigma, 3, np.random.default_rng(seed)):
        assert closest_contact(frame) >= 0.65


def test_rattled_coordinates_are_normal(water: Frame) -> None:
    frames = rattled_frames(water, 0.02, 2000, random_stream(4, "rattle"))
    moves = np.stack([frame.positions - water.positions for frame in frames])
    assert moves.std() == pytest.approx(0.02, rel=0.03)
    assert moves.mean() == pytest.approx(0.0, abs=1e-3)


def test_cells_are_strained_and_atoms_keep_their_fractions(water: Frame) -> None:
    cell = np.array([[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [0.0, 2.0, 10.0]])
    numbers = np.array([18, 18])
    fractions = np.array([[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]])
    boxed = Frame(numbers, fractions @ cell, cell=cell, pbc=(True, True, True))
    frames = strained_frames([boxed] * 3000, 0.03, random_stream(5, "strain"))
    inverse = np.linalg.inv(cell)
    strains = np.stack([inverse @ frame.cell for frame in frames]) - np.eye(3)
    np.testing.assert_allclose(strains, strains.transpose(0, 2, 1), atol=1e-8)
    widths = strains.std(axis=0)
    np.testing.assert_allclose(np.diag(widths), 0.03, rtol=0.05)
    np.testing.assert_allclose(widths[np.triu_indices(3, 1)], 0.03 / 2**0.5, rtol=0.05)
    assert np.abs(strains).max() <= 0.09 + 1e-6
    kept = [frame.positions @ np.linalg.inv(frame.cell) for frame in frames]
    np.testing.assert_allclose(
        kept, np.broadcast_to(fractions, (3000, 2, 3)), atol=1e-7
    )
    assert strained_frames([water], 0.03, random_stream(5, "strain")) == (water,)


def test_a_periodic_frame_keeps_what_would_be_its_rotations(
    water: Frame, springs_of: SpringsOf
) -> None:
    boxed = Frame(
        water.numbers, water.positions, cell=9.0 * np.eye(3), pbc=(True, True, True)
    )
    second = numerical_hessian(boxed, springs_of(water, 60.0))
    assert len(normal_modes(boxed, second).squares) == 6
    assert len(normal_modes(water, second).squares) == 3


def test_thermal_walkers_are_numbered_hot_and_reproducible(
    water: Frame, springs_of: SpringsOf
) -> None:
    modes = normal_modes(water, numerical_hessian(water, springs_of(water, 60.0)))

    def make() -> tuple[object, ...]:
        walkers = thermal_walkers(
            water, modes, 500.0, 4, random_stream(5, "w"), molecule=2, first_index=10
        )
        assert [walker.index for walker in walkers] == [10, 11, 12, 13]
        assert {walker.molecule for walker in walkers} == {2}
        assert all((walker.velocities != 0.0).any() for walker in walkers)
        return tuple(walker.frame.id for walker in walkers)

    assert make() == make()
    assert len(set(make())) == 4


def test_an_atom_has_no_modes_and_stays_where_it_is() -> None:
    atom = Frame(np.array([18]), np.array([[0.1, 0.2, 0.3]]))
    modes = normal_modes(atom, np.zeros((3, 3)))
    assert modes.squares.shape == (0,)
    assert modes.vectors.shape == (0, 1, 3)
    frames = harmonic_frames(atom, modes, 300.0, 2, random_stream(1, "atom"))
    assert [frame.id for frame in frames] == [atom.id] * 2
    walkers = thermal_walkers(atom, modes, 300.0, 1, random_stream(1, "atom"))
    assert np.abs(walkers[0].velocities).max() < 1e-12
