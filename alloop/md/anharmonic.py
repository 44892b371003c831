"""Anharmonic fundamentals by second-order vibrational perturbation theory.

The energy is a Taylor series in dimensionless normal coordinates q, in cm⁻¹:
V = ½ Σ ω_i q_i² + ⅙ Σ φ_ijk q_i q_j q_k + 1/24 Σ φ_ijkl q_i q_j q_k q_l. Cubic terms
count to second, quartic and Coriolis terms to first order (Mills, in Molecular
Spectroscopy: Modern Research, 1972; Watson's Hamiltonian). Where a fundamental lies
near an overtone or a combination, the term of that pair leaves the series and both
states are diagonalised together: GVPT2 (Barone, J. Chem. Phys. 122, 014108, 2005).
"""

from dataclasses import dataclass

import numpy as np
from ase import units
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from alloop.core.atoms import frame_masses
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.roles import Potential
from alloop.core.units import FORCE_TO_ACCELERATION, Booleans, Floats
from alloop.md.vibrations import Vibrations

STEP = 0.5  # q; smaller ones see the networks' ripples, larger ones higher terms
_PLACES = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # of the stencils, in steps
_FIRST = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12.0
_SECOND = np.array([-1.0, 16.0, -30.0, 16.0, -1.0]) / 12.0
_GAP = 200.0  # cm⁻¹, beyond which no pair of states counts as resonant
_SHIFT = 1.0  # cm⁻¹, of Martin's test
_HBAR = float(units._hbar / units._e * 1e15)  # eV fs
_WAVENUMBER = float(units.invcm)  # eV
_ROTATION = float(units._hbar**2 / (2.0 * units._amu * 1e-20) / units._e)  # eV amu Å²


@dataclass(frozen=True, slots=True, eq=False)
class QuarticForceField:
    """The Taylor series about a minimum in dimensionless normal coordinates, cm⁻¹.

    wavenumbers (modes,): ω; cubic (modes, modes, modes): φ_ijk; quartic (modes, modes):
    φ_iijj; rotations (3,): rotational constants B of the principal axes; coriolis
    (3, modes, modes): ζ. Without rotations both are empty. noise: largest difference of
    a φ_iijj by its two orders of differentiation, which are equal for a smooth energy.
    """

    wavenumbers: Floats
    cubic: Floats
    quartic: Floats
    rotations: Floats
    coriolis: Floats
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class FermiResonance:
    """A fundamental near an overtone (two equal modes) or a combination of two modes.

    gap: harmonic wavenumber of the pair less that of the fundamental; coupling: the
    matrix element of the two states; both cm⁻¹.
    """

    fundamental: int
    pair: tuple[int, int]
    gap: float
    coupling: float


@dataclass(frozen=True, slots=True, eq=False)
class AnharmonicVibrations:
    """Fundamentals (modes,) in cm⁻¹, in the order of the harmonic modes.

    zero_point: eV; constants (modes, modes): χ in cm⁻¹, without resonant terms; shares
    (modes,): weight of the fundamental in its state, 1 where nothing is resonant;
    noise: that of the force field, cm⁻¹.
    """

    fundamentals: Floats
    zero_point: float
    constants: Floats
    resonances: tuple[FermiResonance, ...]
    shares: Floats
    noise: float


def anharmonic_vibrations(
    vibrations: Vibrations, potential: Potential
) -> AnharmonicVibrations:
    """Return the fundamentals of a minimum; all its displaced frames are one batch.

    Raises InputError as `quartic_force_field` does.
    """
    return solve_force_field(quartic_force_field(vibrations, potential))


def quartic_force_field(
    vibrations: Vibrations, potential: Potential
) -> QuarticForceField:
    """Return cubic and semidiagonal quartic constants by differences of Hessians.

    Hessians at the minimum and at 4 displacements along each mode are differences of
    the forces at 4 displacements, so that errors go with the fourth power of the step:
    8 modes² frames and one more, since displacements by equal steps fall together.
    Raises InputError for cells, atoms, linear molecules of three or more atoms, and
    frames with imaginary modes.
    """
    _require_bent_minimum(vibrations)
    moves = _mode_moves(vibrations)
    count = len(moves)
    shifts = STEP * _PLACES[:, None, None] * np.eye(count)  # (places, modes, modes)
    points = shifts[:, :, None, None] + shifts.transpose(1, 0, 2)
    different, places = np.unique(
        points.reshape(-1, count) + 0.0, axis=0, return_inverse=True
    )  # + 0.0: no negative zeros
    slopes = _slopes(vibrations, potential, different, moves)
    grid = slopes[places].reshape(*points.shape[:-1], count)  # (place, i, j, place, k)
    hessians = np.einsum("sijtk,t->sijk", grid, _FIRST) / STEP
    cubic = np.einsum("sijk,s->ijk", hessians, _FIRST) / STEP
    quartic = np.einsum("sijj,s->ij", hessians, _SECOND) / STEP**2
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    return QuarticForceField(
        wavenumbers=vibrations.modes.wavenumbers,
        cubic=np.mean([cubic.transpose(order) for order in orders], axis=0),
        quartic=0.5 * (quartic + quartic.T),
        noise=float(np.abs(quartic - quartic.T).max()),
        **_rotational_terms(vibrations),
    )


def _mode_moves(vibrations: Vibrations) -> Floats:
    """Return the moves (modes, atoms, 3) in Å of one unit of each q."""
    modes = vibrations.modes
    widths = np.sqrt(_HBAR * FORCE_TO_ACCELERATION / np.sqrt(modes.squares))
    roots = np.sqrt(frame_masses(vibrations.frame.numbers))
    out: Floats = widths[:, None, None] * modes.vectors / roots[:, None]
    return out


def _slopes(
    vibrations: Vibrations, potential: Potential, points: Floats, moves: Floats
) -> Floats:
    """Return the derivatives by q (points, modes) in cm⁻¹ at points (points, modes)."""
    frame = vibrations.frame
    moved = frame.positions + np.einsum("pm,max->pax", points, moves)
    batch = pack_frames([frame] * len(points)).with_positions(moved.reshape(-1, 3))
    forces = potential.predict(batch).forces.reshape(len(points), -1)
    out: Floats = -forces @ moves.reshape(len(moves), -1).T / _WAVENUMBER
    return out


def solve_force_field(field: QuarticForceField) -> AnharmonicVibrations:
    """Return the fundamentals of a force field, by GVPT2.

    A pair within 200 cm⁻¹ of a fundamental is resonant where the error that the series
    makes is above 1 cm⁻¹ (Martin et al., J. Chem. Phys. 103, 2589, 1995). Pairs of
    resonant states do not couple with each other.
    """
    resonances = _fermi_resonances(field)
    constants = _anharmonic_constants(field, resonances)
    count = len(field.wavenumbers)

    def energy(*quanta: int) -> float:
        n = np.bincount(quanta, minlength=count).astype(float)
        upper = np.triu(np.outer(n + 0.5, n + 0.5) - 0.25)
        return float(field.wavenumbers @ n + (constants * upper).sum())

    fundamentals = np.array([energy(mode) for mode in range(count)])
    shares = np.ones(count)
    states: list[tuple[int, ...]] = [(mode,) for mode in range(count)]
    states += sorted({x.pair for x in resonances})
    coupled = np.diag([energy(*state) for state in states])
    for x in resonances:
        pair = states.index(x.pair)
        coupled[x.fundamental, pair] = coupled[pair, x.fundamental] = x.coupling
    number, polyads = connected_components(coupled != 0.0, directed=False)
    for polyad in range(number):
        members = np.flatnonzero(polyads == polyad)
        if len(members) > 1:
            values, vectors = np.linalg.eigh(coupled[np.ix_(members, members)])
            bright = members < count
            weights = vectors[bright] ** 2
            rows, places = linear_sum_assignment(-weights)
            fundamentals[members[bright]] = values[places]
            shares[members[bright]] = weights[rows, places]
    return AnharmonicVibrations(
        fundamentals=fundamentals,
        zero_point=_zero_point(field) * _WAVENUMBER,
        constants=constants,
        resonances=resonances,
        shares=shares,
        noise=field.noise,
    )


def _require_bent_minimum(vibrations: Vibrations) -> None:
    expected = "expected a bent molecule, or one of two atoms, at a minimum"
    if any(vibrations.frame.pbc):
        problem = "got a cell"
    elif len(vibrations.frame) == 1:
        problem = "got an atom"
    elif vibrations.geometry == "linear" and len(vibrations.frame) > 2:
        problem = "got a linear one, whose bends need terms that are not there"
    elif vibrations.imaginary:
        problem = "got imaginary modes; relax it first"
    else:
        return
    raise InputError(f"{expected}, for anharmonic wavenumbers: {problem}")


def _rotational_terms(vibrations: Vibrations) -> dict[str, Floats]:
    """Return the rotational constants in cm⁻¹ and Coriolis ζ about the same axes."""
    count = len(vibrations.modes.squares)
    if count == 1:  # two atoms: no mode turns into another
        return {"rotations": np.zeros(0), "coriolis": np.zeros((0, count, count))}
    masses = frame_masses(vibrations.frame.numbers)
    positions = vibrations.frame.positions
    positions = positions - masses @ positions / masses.sum()
    second = np.einsum("a,ax,ay->xy", masses, positions, positions)
    moments, axes = np.linalg.eigh(np.trace(second) * np.eye(3) - second)
    vectors = vibrations.modes.vectors
    crossed = np.cross(vectors[:, None], vectors[None]).sum(axis=2)  # (modes, modes, 3)
    return {
        "rotations": _ROTATION / moments / _WAVENUMBER,
        "coriolis": np.einsum("ijx,xt->tij", crossed, axes),
    }


def _fermi_resonances(field: QuarticForceField) -> tuple[FermiResonance, ...]:
    """Return the pairs that pass Martin's test, φ⁴/(256 or 64 |gap|³) > 1 cm⁻¹.

    That is the difference of the two levels' repulsion from its second order, for an
    overtone and for a combination.
    """
    resonances = []
    count = len(field.wavenumbers)
    for low, high in np.transpose(np.triu_indices(count)):
        for k in set(range(count)) - {low, high}:
            gap = float(field.wavenumbers[[low, high]].sum() - field.wavenumbers[k])
            norm = 4.0 if low == high else np.sqrt(8.0)
            coupling = float(field.cubic[low, high, k]) / norm
            if abs(gap) < _GAP and coupling**4 > _SHIFT * abs(gap) ** 3:
                pair = (int(low), int(high))
                resonances.append(FermiResonance(int(k), pair, gap, coupling))
    return tuple(resonances)


def _anharmonic_constants(
    field: QuarticForceField, resonances: tuple[FermiResonance, ...]
) -> Floats:
    """Return χ (modes, modes) in cm⁻¹ without the terms of the resonances.

    The cubic terms are split into partial fractions, so that a resonance is one of
    them: 1/(ω_i + ω_j - ω_k).
    """
    w, cubic = field.wavenumbers, field.cubic
    sums = w[:, None, None] + w[:, None]
    diagonal = np.einsum("iik->ik", cubic)
    less = _inverse_gaps(sums - w, resonances)  # (i, j, k)
    fractions = (
        1.0 / (sums + w) + less.transpose(2, 0, 1) + less.transpose(0, 2, 1) - less
    )
    x = 0.25 * field.quartic - 0.25 * (diagonal / w) @ diagonal.T
    x -= 0.125 * (cubic**2 * fractions).sum(axis=2)
    ratios = w[:, None] / w
    x += np.einsum("t,tij->ij", field.rotations, field.coriolis**2) * (
        ratios + ratios.T
    )
    x[np.diag_indices(len(w))] /= 4.0
    out: Floats = x
    return out


def _inverse_gaps(gaps: Floats, resonances: tuple[FermiResonance, ...]) -> Floats:
    """Return 1/gaps (i, j, k), zero at resonances and where nothing couples."""
    regular: Booleans = gaps != 0.0
    for x in resonances:
        first, second = x.pair
        regular[first, second, x.fundamental] = False
        regular[second, first, x.fundamental] = False
    out: Floats = np.divide(1.0, gaps, out=np.zeros_like(gaps), where=regular)
    return out


def _zero_point(field: QuarticForceField) -> float:
    """Return the energy of the ground state in cm⁻¹, which no resonance touches.

    Schuurman, Muir, Allen & Schaefer, J. Chem. Phys. 120, 11586 (2004).
    """
    w, cubic = field.wavenumbers, field.cubic
    trace = np.einsum("iik->k", cubic)
    sums = w[:, None, None] + w[:, None] + w
    ratios = w[:, None] / w
    energy = 0.5 * w.sum() + field.quartic.sum() / 32.0
    energy -= (trace**2 / w).sum() / 32.0 + (cubic**2 / sums).sum() / 48.0
    turning = np.einsum("t,tij->ij", field.rotations, field.coriolis**2)
    energy += (turning * (ratios + ratios.T - 2.0)).sum() / 8.0  # each pair twice
    energy -= field.rotations.sum() / 4.0  # Watson's term
    return float(energy)
