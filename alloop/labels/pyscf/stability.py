"""The stability of a converged mean field: its lowest curvature in orbital rotations.

Curvatures are eigenvalues of A + B (Seeger & Pople, J. Chem. Phys. 66, 3045 (1977)) in
hartree: the second derivative of the energy along a rotation of unit length is twice
that. Without the response of the orbitals they are orbital-energy differences. The
nonlocal (VV10) part of the response is left out.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
from pyscf import dft, lib, scf
from pyscf.soscf import newton_ah

from alloop.core.units import Floats

Hop: TypeAlias = Callable[[Floats], Floats]
_ROOTS, _CYCLES = 3, 60
_NEAR = 3e-3  # hartree from the limit, within which a coarse grid is not enough
_ANGLES = (0.3, 0.7, 1.1)  # radian


def is_unrestricted(mf: Any) -> bool:
    """Return True if alpha and beta electrons have different orbitals."""
    return isinstance(mf, scf.uhf.UHF)


def internal_curvature(mf: Any, limit: float) -> tuple[float, Floats] | None:
    """Return the lowest curvature within the reference, and its rotation.

    limit: the threshold (hartree) that the curvature will be compared with; near it,
    the full grid is used. None if there is no empty or no filled orbital.
    """
    if not _rotation_count(mf.mo_occ):
        return None
    value, rotation = _internal_lowest(_with_coarse_grid(mf))
    near = _has_grid(mf) and abs(value - limit) < _NEAR
    return _internal_lowest(mf) if near else (value, rotation)


def external_curvature(mf: Any, limit: float) -> float | None:
    """Return the lowest curvature from a restricted solution to an unrestricted one.

    limit: the threshold (hartree) that the curvature will be compared with; near it,
    the full grid is used. None if there is no empty or no filled orbital.
    """
    if not _rotation_count(mf.mo_occ):
        return None
    value = _external_lowest(_with_coarse_grid(mf))
    return (
        _external_lowest(mf) if _has_grid(mf) and abs(value - limit) < _NEAR else value
    )


def _has_grid(mf: Any) -> bool:
    return isinstance(mf, dft.rks.KohnShamDFT)


def _with_coarse_grid(mf: Any) -> Any:
    """Return a copy with a coarse grid for the functional; `mf` if it has no grid."""
    if not _has_grid(mf):
        return mf
    coarse = mf.copy()
    coarse.grids = type(mf.grids)(mf.mol)
    coarse.grids.level = 0
    return coarse


def _internal_lowest(mf: Any) -> tuple[float, Floats]:
    if is_unrestricted(mf):
        make, scale = newton_ah.gen_g_hop_uhf, 1.0
    else:  # PySCF's restricted Hessian counts both spins
        make, scale = newton_ah.gen_g_hop_rhf, 0.5
    _, hop, diagonal = make(mf, mf.mo_coeff, mf.mo_occ)
    return _lowest_eigenpair(lambda x: hop(x) * scale, diagonal * scale)


def rotate_downhill(mf: Any, rotation: Floats) -> Any:
    """Return the orbitals rotated by the angle that lowers the energy most."""
    turned = [
        _rotated_orbitals(mf.mo_coeff, mf.mo_occ, angle * rotation) for angle in _ANGLES
    ]
    return min(turned, key=lambda c: float(mf.energy_tot(mf.make_rdm1(c, mf.mo_occ))))


def frontier_turned(orbitals: Any, occupations: Any, angle: float) -> Any:
    """Return orbitals with the frontier orbitals of each spin rotated into each other.

    These are the highest occupied and the lowest empty one; angle in radian. The
    orbitals must be in order of energy.
    """
    vectors = []
    for filled in np.atleast_2d(occupations) > 0:
        turn = np.zeros(((~filled).sum(), filled.sum()))  # (virtual, occupied)
        turn[:1, -1:] = angle
        vectors.append(turn.ravel())
    return _rotated_orbitals(orbitals, occupations, np.concatenate(vectors))


def _external_lowest(mf: Any) -> float:
    filled = mf.mo_occ > 0
    orbo, orbv = mf.mo_coeff[:, filled], mf.mo_coeff[:, ~filled]
    gaps = mf.mo_energy[~filled][:, None] - mf.mo_energy[filled]  # (virtual, occupied)
    response = mf.gen_response(singlet=False, hermi=1)

    def hop(x: Floats) -> Floats:
        change = orbv @ x.reshape(gaps.shape) @ orbo.T * 2
        answer = orbv.T @ response(change + change.T) @ orbo
        return np.ravel(gaps * x.reshape(gaps.shape) + answer)

    return _lowest_eigenpair(hop, gaps.ravel())[0]


def _lowest_eigenpair(hop: Hop, diagonal: Floats) -> tuple[float, Floats]:
    """Return the lowest eigenvalue and its vector, by Davidson's method."""

    def precondition(residual: Floats, value: float, _x: Floats) -> Floats:
        divisor = diagonal - value
        divisor[np.abs(divisor) < 1e-8] = 1e-8
        return residual / divisor

    roots = min(_ROOTS, len(diagonal))
    starts = np.eye(len(diagonal))[np.argsort(diagonal, kind="stable")[:roots]]
    # Noise without symmetry: Davidson misses vectors that all starts are orthogonal to.
    noise = np.random.default_rng(0).standard_normal(starts.shape)
    starts += 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    values, vectors = lib.davidson(
        hop,
        list(starts),
        precondition,
        tol=1e-6,
        nroots=roots,
        max_cycle=_CYCLES,
        verbose=0,
    )
    single = roots == 1
    return float(np.atleast_1d(values)[0]), np.ravel(vectors if single else vectors[0])


def _rotation_count(occupations: Any) -> int:
    filled = np.atleast_2d(occupations) > 0
    return int((filled.sum(axis=1) * (~filled).sum(axis=1)).sum())


def _rotated_orbitals(orbitals: Any, occupations: Any, vector: Floats) -> Any:
    if np.ndim(occupations) == 1:
        return _rotate_spin(orbitals, occupations > 0, vector)
    sizes = [_rotation_count(spin) for spin in occupations]
    parts = np.split(vector, [sizes[0]])
    return np.array(
        [
            _rotate_spin(c, occupied > 0, part)
            for c, occupied, part in zip(orbitals, occupations, parts, strict=True)
        ]
    )


def _rotate_spin(orbitals: Floats, filled: Any, vector: Floats) -> Floats:
    turn = np.zeros((len(filled), len(filled)))
    turn[np.ix_(~filled, filled)] = vector.reshape((~filled).sum(), filled.sum())
    rotated: Floats = orbitals @ scipy.linalg.expm(turn - turn.T)
    return rotated
