"""The pair potential: laws, an independent sum, and its least-squares rows."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.potentials.analytic import Morse
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.testing import check_potential, check_rotation, check_stress

BASIS = PairBasis((1, 6, 8), radial=7, cutoff=4.0)
FRAMES = [from_atoms(molecule(name)) for name in ("H2O", "CH3OH", "CO2")]


def potential(basis: PairBasis = BASIS) -> PairwisePotential:
    rng = np.random.default_rng(4)
    return PairwisePotential(basis, rng.normal(size=basis.size))


def rattled_water(count: int) -> Batch:
    rng = np.random.default_rng(0)
    water = molecule("H2O")
    moved = water.positions + rng.normal(0.0, 0.07, (count, 3, 3))
    return pack_frames([Frame(water.numbers, positions) for positions in moved])


def test_it_keeps_all_laws() -> None:
    check_potential(potential(), FRAMES, tolerance=1e-7)


def test_it_keeps_symmetry_in_a_cell() -> None:
    carbon = bulk("C")
    carbon.rattle(0.05, seed=0)
    check_rotation(potential(), [from_atoms(carbon)], tolerance=1e-7)


def test_the_stress_is_the_slope_of_the_energy_under_strain() -> None:
    diamond, salt = bulk("C"), bulk("CO", "rocksalt", a=3.1) * (2, 1, 1)
    for atoms in (diamond, salt):
        atoms.rattle(0.1, seed=0)
    cells = [from_atoms(atoms) for atoms in (diamond, salt)]
    check_stress(potential(), cells, tolerance=1e-7)
    said = potential().predict(pack_frames([*cells, FRAMES[0]])).stress
    assert said is not None
    assert np.abs(said[:2]).max() > 0.1
    assert np.isnan(said[2]).all()
    assert potential().predict(pack_frames(FRAMES)).stress is None
    virials = BASIS.design_matrix(pack_frames(cells)).virials @ potential().coefficients
    volumes = np.array([abs(np.linalg.det(cell.cell)) for cell in cells])
    np.testing.assert_allclose(virials / volumes[:, None], said[:2], atol=1e-10)


def test_the_energy_is_the_plain_sum_over_pairs() -> None:
    model = potential()
    constants = dict(zip(BASIS.elements, model.coefficients[:3], strict=True))
    radial = model.coefficients[3:].reshape(-1, 7)
    for frame in FRAMES:
        expected = sum(constants[int(z)] for z in frame.numbers)
        for i in range(len(frame)):
            for j in range(i + 1, len(frame)):
                couple = tuple(sorted((int(frame.numbers[i]), int(frame.numbers[j]))))
                r = np.linalg.norm(frame.positions[i] - frame.positions[j])
                if r < 4.0:
                    phi, _ = BASIS.radial_functions(np.array([r]))
                    expected += radial[BASIS.element_pairs.index(couple)] @ phi[0]
        found = model.predict(pack_frames([frame])).energies[0]
        assert found == pytest.approx(expected, rel=1e-12)


def test_slopes_are_the_derivatives_of_the_functions() -> None:
    r = np.linspace(0.3, 3.95, 50)
    h = 1e-5
    up, down = BASIS.radial_functions(r + h)[0], BASIS.radial_functions(r - h)[0]
    np.testing.assert_allclose(
        BASIS.radial_functions(r)[1], (up - down) / (2 * h), atol=1e-7
    )


def test_rows_times_coefficients_are_the_predictions() -> None:
    model, batch = potential(), pack_frames(FRAMES)
    rows, said = BASIS.design_matrix(batch), model.predict(batch)
    assert rows.energies.shape == (3, BASIS.size)
    np.testing.assert_allclose(rows.energies @ model.coefficients, said.energies)
    np.testing.assert_allclose(
        rows.forces @ model.coefficients, said.forces, atol=1e-10
    )


def test_least_squares_on_the_rows_learns_a_pair_potential() -> None:
    """Another pair potential is within reach: the error must fall below 1 % of it."""
    train, test = rattled_water(60), rattled_water(90).select(range(60, 90))
    basis = PairBasis((1, 8))
    rows, labels = basis.design_matrix(train), Morse().predict(train)
    A = np.concatenate([rows.energies, rows.forces.reshape(-1, basis.size)])
    y = np.concatenate([labels.energies, labels.forces.ravel()])
    coefficients, *_ = np.linalg.lstsq(A, y, rcond=1e-8)
    said = PairwisePotential(basis, coefficients).predict(test)
    truth = Morse().predict(test)
    error = np.abs(said.forces - truth.forces).mean()
    assert error < 0.01 * np.abs(truth.forces).mean()


def test_descriptors_sum_the_functions_by_the_neighbours_element() -> None:
    water = FRAMES[0]  # O H H
    found = potential().predict(pack_frames([water]), descriptors=True).descriptors
    assert found is not None
    assert found.shape == (3, 3 * 7)
    r = np.linalg.norm(water.positions[1:] - water.positions[0], axis=1)
    np.testing.assert_allclose(found[0, :7], BASIS.radial_functions(r)[0].sum(axis=0))
    assert not found[0, 7:].any()  # no carbon, no other oxygen


def test_a_cell_repeats_the_energy() -> None:
    one = bulk("C")
    energy, double = (
        potential().predict(pack_frames([from_atoms(atoms)])).energies[0]
        for atoms in (one, one * (2, 1, 1))
    )
    assert double == pytest.approx(2 * energy, rel=1e-12)


def test_strangers_and_wrong_counts_are_refused() -> None:
    with pytest.raises(InputError, match=r"trained on \(H, O\), got C"):
        potential(PairBasis((1, 8))).predict(pack_frames(FRAMES))
    with pytest.raises(ValueError, match=f"expected {BASIS.size} coefficients"):
        PairwisePotential(BASIS, np.zeros(3))


def test_no_frames_give_no_predictions() -> None:
    said = potential().predict(pack_frames([]), descriptors=True)
    assert said.energies.shape == (0,)
    assert said.forces.shape == (0, 3)
