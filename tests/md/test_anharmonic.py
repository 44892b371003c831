"""Perturbation theory against diagonalised Hamiltonians, Morse and literature."""

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pytest
from ase import units
from ase.build import molecule

from alloop.core.atoms import frame_masses, from_atoms
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.units import Floats
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.md.anharmonic import (
    QuarticForceField,
    anharmonic_vibrations,
    quartic_force_field,
    solve_force_field,
)
from alloop.md.thermal_frames import relax_frame
from alloop.md.vibrations import Vibrations, harmonic_vibrations
from alloop.potentials.labeller_potential import LabellerPotential

STATES = {2: 16, 3: 6}  # of each oscillator, by the number of these


@dataclass(frozen=True)
class MorseBonds:
    """Σ D (1 - exp(-a (r - r0)))² over the given pairs, analytic forces."""

    pairs: tuple[tuple[int, int], ...]
    depth: float  # eV
    width: float  # 1/Å
    length: float  # Å

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        x = batch.positions.reshape(len(batch), -1, 3)
        energies, forces = np.zeros(len(batch)), np.zeros_like(x)
        for i, j in self.pairs:
            d = x[:, j] - x[:, i]
            r = np.linalg.norm(d, axis=1)
            decay = np.exp(-self.width * (r - self.length))
            energies += self.depth * (1.0 - decay) ** 2
            slope = 2.0 * self.depth * self.width * (1.0 - decay) * decay
            forces[:, i] += (slope / r)[:, None] * d
            forces[:, j] -= (slope / r)[:, None] * d
        return Predictions(energies, forces.reshape(-1, 3))


@dataclass
class SeriesPotential:
    """A quartic force field, cm⁻¹, as a potential of positions near a frame."""

    frame: Frame
    slopes: Floats  # (modes, 3 atoms): of each q by the positions, 1/Å
    field: QuarticForceField
    frames: int = 0  # predicted so far

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        self.frames += len(batch)
        moved = batch.positions.reshape(len(batch), -1) - self.frame.positions.ravel()
        q = moved @ self.slopes.T
        w, cubic, quartic = (
            self.field.wavenumbers,
            self.field.cubic,
            self.field.quartic,
        )
        # Σ φ_iijj q_i² q_j²/8 has each pair twice, and φ_iiii three times its 1/24
        factors = quartic / 8.0 - np.diag(np.diag(quartic)) / 12.0
        energies = q**2 @ w / 2.0 + np.einsum("ijk,pi,pj,pk->p", cubic, q, q, q) / 6.0
        energies += np.einsum("ij,pi,pj->p", factors, q**2, q**2)
        slopes = q * w + np.einsum("ijk,pj,pk->pi", cubic, q, q) / 2.0
        slopes += 4.0 * q * (q**2 @ factors)
        forces = -slopes @ self.slopes * units.invcm
        return Predictions(energies * units.invcm, forces.reshape(-1, 3))


def oscillators(count: int) -> tuple[list[Floats], list[Floats]]:
    """Return q and i p of each oscillator as matrices of their product basis."""
    steps = np.diag(np.sqrt(np.arange(1, STATES[count])), 1)
    eye = np.eye(STATES[count])

    def placed(matrix: Floats, mode: int) -> Floats:
        return reduce(np.kron, [matrix if i == mode else eye for i in range(count)])

    q = [placed((steps + steps.T) / np.sqrt(2.0), mode) for mode in range(count)]
    ip = [placed((steps - steps.T) / np.sqrt(2.0), mode) for mode in range(count)]
    return q, ip


def hamiltonian(field: QuarticForceField, strength: float) -> Floats:
    """Return H with cubic terms times strength, quartic and Coriolis its square."""
    w = field.wavenumbers
    count = len(w)
    q, ip = oscillators(count)
    shape = (STATES[count],) * count
    quanta = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    total = np.diag((quanta + 0.5) @ w)
    for i, j, k in np.ndindex(count, count, count):
        total += strength * field.cubic[i, j, k] / 6.0 * q[i] @ q[j] @ q[k]
    for i, j in np.ndindex(count, count):
        factor = 1.0 / 24.0 if i == j else 1.0 / 8.0
        square = factor * field.quartic[i, j] * q[i] @ q[i] @ q[j] @ q[j]
        total += strength**2 * square
    for rotation, zeta in zip(field.rotations, field.coriolis, strict=True):
        momentum = np.zeros_like(total)  # i π
        for i, j in np.ndindex(count, count):
            momentum += zeta[i, j] * np.sqrt(w[j] / w[i]) * q[i] @ ip[j]
        total += strength**2 * rotation * (-momentum @ momentum)
        total -= strength**2 * rotation / 4.0 * np.eye(len(total))
    return total


def levels(field: QuarticForceField, strength: float) -> Floats:
    """Return energies of the ground state and, above it, of the fundamentals."""
    values, vectors = np.linalg.eigh(hamiltonian(field, strength))
    count = len(field.wavenumbers)
    singles = [STATES[count] ** (count - 1 - mode) for mode in range(count)]
    places = [int(np.argmax(np.abs(vectors[state]))) for state in (0, *singles)]
    energies = values[places]
    return np.concatenate([energies[:1], energies[1:] - energies[0]])


@pytest.fixture(scope="module")
def field() -> QuarticForceField:
    """Three modes, each coupled with each, none resonant, that turn in space."""
    rng = np.random.default_rng(3)
    cubic = rng.normal(0.0, 60.0, (3, 3, 3))
    cubic = sum(cubic.transpose(x) for x in np.array([*_permutations()])) / 6.0
    quartic = rng.normal(0.0, 30.0, (3, 3))
    zeta = rng.normal(0.0, 0.5, (3, 3, 3))
    return QuarticForceField(
        wavenumbers=np.array([1000.0, 1730.0, 2290.0]),
        cubic=cubic,
        quartic=quartic + quartic.T,
        rotations=np.array([9.0, 14.0, 27.0]),
        coriolis=zeta - zeta.transpose(0, 2, 1),
    )


def _permutations() -> list[tuple[int, int, int]]:
    return [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def test_the_series_is_that_of_the_hamiltonian(field: QuarticForceField) -> None:
    small = 0.1
    solved = solve_force_field(field)
    assert solved.resonances == ()
    harmonic = np.concatenate([[field.wavenumbers.sum() / 2.0], field.wavenumbers])
    second = (levels(field, small) - harmonic) / small**2  # an error of small² is left
    found = np.concatenate([[solved.zero_point / units.invcm], solved.fundamentals])
    assert np.abs(second[1:]).min() > 50.0
    np.testing.assert_allclose(found - harmonic, second, rtol=5e-3, atol=0.05)


def test_fermi_resonances_are_those_of_the_full_solution() -> None:
    """Two modes, the overtone of one 10 cm⁻¹ off the other: 110 cm⁻¹ of repulsion."""
    cubic = np.zeros((2, 2, 2))
    cubic[0, 0, 1] = cubic[0, 1, 0] = cubic[1, 0, 0] = 150.0
    none = np.zeros(0)
    field = QuarticForceField(
        wavenumbers=np.array([700.0, 1410.0]),
        cubic=cubic,
        quartic=np.array([[12.0, 8.0], [8.0, 10.0]]),
        rotations=none,
        coriolis=np.zeros((0, 2, 2)),
    )
    solved = solve_force_field(field)
    (resonance,) = solved.resonances
    assert (resonance.fundamental, resonance.pair) == (1, (0, 0))
    assert resonance.gap == pytest.approx(-10.0)
    assert resonance.coupling == pytest.approx(150.0 / 4.0)
    assert 0.4 < solved.shares[1] < 0.7
    assert solved.shares[0] == 1.0
    exact = levels(field, 1.0)[1:]
    np.testing.assert_allclose(solved.fundamentals, exact, atol=2.0)
    removed = replace(field, wavenumbers=np.array([700.0, 1610.0]))
    away = solve_force_field(removed)  # 210 cm⁻¹: the series has it
    assert away.resonances == ()
    np.testing.assert_allclose(away.fundamentals, levels(removed, 1.0)[1:], atol=2.0)


def test_a_morse_oscillator_is_solved_exactly() -> None:
    frame = from_atoms(molecule("CO"), 0, 0)
    depth, width = 11.2, 2.3
    length = float(np.linalg.norm(frame.positions[0] - frame.positions[1]))
    potential = MorseBonds(((0, 1),), depth, width, length)
    vibrations = harmonic_vibrations(frame, potential)
    solved = anharmonic_vibrations(vibrations, potential)
    carbon, oxygen = frame_masses(frame.numbers) * units._amu
    reduced = carbon * oxygen / (carbon + oxygen)
    angular = width * 1e10 * np.sqrt(2.0 * depth * units._e / reduced)
    quantum = units._hbar * angular / units._e / units.invcm  # cm⁻¹
    excess = quantum**2 * units.invcm / (4.0 * depth)
    shift = solved.fundamentals - vibrations.modes.wavenumbers
    assert shift == pytest.approx(-2.0 * excess, rel=1e-3)
    within = 0.3  # cm⁻¹, which the harmonic wavenumber errs by at a step of 0.005 Å
    assert solved.fundamentals == pytest.approx(quantum - 2.0 * excess, abs=within)
    zero_point = solved.zero_point / units.invcm
    assert zero_point == pytest.approx(quantum / 2.0 - excess / 4.0, abs=within)


@pytest.fixture(scope="module")
def bent() -> tuple[Vibrations, MorseBonds]:
    """Water of three Morse pairs."""
    frame = from_atoms(molecule("H2O"), 0, 0)
    sides = frame.positions - frame.positions[[1, 2, 0]]
    longest = float(np.linalg.norm(sides, axis=1).max())
    equal = np.array(
        [[0, 0, 0], [longest, 0, 0], [longest / 2, longest * 0.75**0.5, 0]]
    )
    frame = replace(frame, positions=equal)
    potential = MorseBonds(((0, 1), (0, 2), (1, 2)), 4.0, 2.0, longest)
    return harmonic_vibrations(frame, potential), potential


def test_coriolis_constants_of_a_planar_molecule(
    bent: tuple[Vibrations, MorseBonds],
) -> None:
    """ζ² of XY2 sum to 1 for the antisymmetric mode, and 1/B_c is 1/B_a + 1/B_b."""
    field = quartic_force_field(*bent)
    zeta = np.abs(field.coriolis).max(axis=0)
    turning = [(zeta[i] ** 2).sum() for i in range(3)]
    assert sorted(turning)[-1] == pytest.approx(1.0, abs=1e-6)
    assert sum(turning) == pytest.approx(2.0, abs=1e-6)
    one, two, three = sorted(1.0 / field.rotations)
    assert one + two == pytest.approx(three)


def test_constants_are_those_of_the_potential(
    bent: tuple[Vibrations, MorseBonds], field: QuarticForceField
) -> None:
    """A known series in the modes of a frame is found again."""
    vibrations, _ = bent
    frame, modes = vibrations.frame, vibrations.modes
    roots = np.sqrt(frame_masses(frame.numbers))[:, None]
    hbar = units._hbar / units._amu * 1e5  # amu Å²/fs
    spread = np.sqrt(hbar / np.sqrt(modes.squares))
    slopes = (modes.vectors * roots).reshape(3, -1) / spread[:, None]
    known = replace(field, wavenumbers=modes.wavenumbers)
    potential = SeriesPotential(frame, slopes, known)
    found = quartic_force_field(vibrations, potential)
    assert potential.frames == 8 * 3**2 + 1
    assert found.noise < 1e-2
    np.testing.assert_allclose(found.cubic, known.cubic, atol=1e-3)
    np.testing.assert_allclose(found.quartic, known.quartic, atol=1e-2)


def test_degenerate_modes_stay_degenerate(bent: tuple[Vibrations, MorseBonds]) -> None:
    vibrations, potential = bent
    ring = replace(vibrations.frame, numbers=np.array([8, 8, 8]))
    solved = anharmonic_vibrations(harmonic_vibrations(ring, potential), potential)
    one, two, three = solved.fundamentals
    assert one == pytest.approx(two, abs=0.1)
    assert three - two > 100.0


@pytest.mark.parametrize("name", ["CO2", "O"])
def test_what_has_no_bent_minimum_is_refused(name: str) -> None:
    frame = from_atoms(molecule(name), 0, 0)
    pairs = ((0, 1), (0, 2)) if len(frame) > 1 else ()
    potential = MorseBonds(pairs, 4.0, 2.0, 1.18)
    with pytest.raises(InputError, match="expected a bent molecule"):
        anharmonic_vibrations(harmonic_vibrations(frame, potential), potential)


def test_saddle_points_are_refused(bent: tuple[Vibrations, MorseBonds]) -> None:
    vibrations, potential = bent
    apart = replace(vibrations.frame, positions=1.6 * vibrations.frame.positions)
    with pytest.raises(InputError, match="imaginary modes; relax it first"):
        anharmonic_vibrations(harmonic_vibrations(apart, potential), potential)


@pytest.mark.slow
def test_water_at_hartree_fock_against_analytic_hessians() -> None:
    """PySCF's second derivatives, displaced along each mode by another step."""
    from pyscf import gto, scf

    level = DirectLabeller(level_from_name("hf/sto-3g"))
    potential = LabellerPotential(level)
    frame = relax_frame(from_atoms(molecule("H2O")), potential, fmax=1e-4)
    vibrations = harmonic_vibrations(frame, potential)
    found = quartic_force_field(vibrations, potential)
    modes = vibrations.modes
    hbar = units._hbar / units._amu * 1e5  # amu Å²/fs
    roots = np.sqrt(frame_masses(frame.numbers))[:, None]
    spread = np.sqrt(hbar / np.sqrt(modes.squares))[:, None, None]
    moves = spread * modes.vectors / roots

    def hessian(positions: Floats) -> Floats:
        atoms = list(zip("OHH", positions, strict=True))
        field = scf.RHF(gto.M(atom=atoms, basis="sto-3g", verbose=0))
        field.conv_tol = 1e-12
        field.kernel()
        second = field.Hessian().kernel() * units.Hartree / units.Bohr**2
        flat = second.transpose(0, 2, 1, 3).reshape(9, 9)
        turned: Floats = moves.reshape(3, 9) @ flat @ moves.reshape(3, 9).T
        return turned / units.invcm

    step = 0.1
    centre = hessian(frame.positions)
    for mode, move in enumerate(moves):
        ahead = hessian(frame.positions + step * move)
        behind = hessian(frame.positions - step * move)
        cubic = (ahead - behind) / (2.0 * step)
        quartic = np.diag(ahead + behind - 2.0 * centre) / step**2
        np.testing.assert_allclose(found.cubic[mode], cubic, atol=1.5)
        np.testing.assert_allclose(found.quartic[mode], quartic, atol=1.5)
    assert found.noise < 0.5
