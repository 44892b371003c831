"""Superposition of two geometries of the same molecule (Kabsch)."""

import numpy as np

from alloop.core.units import Floats


def kabsch_rotation(onto: Floats, moved: Floats, *, mirror: bool = False) -> Floats:
    """Return the matrix (3, 3) with which `moved @ matrix` comes closest to `onto`.

    Both (atoms, 3) in Å, centred at the origin; mirror: reflections are allowed too. W.
    Kabsch, Acta Cryst. A32, 922 (1976).
    """
    u, _, vt = np.linalg.svd(moved.T @ onto)
    handed = 1.0 if mirror else np.sign(np.linalg.det(u @ vt))
    matrix: Floats = u @ np.diag([1.0, 1.0, handed]) @ vt
    return matrix


def centred(positions: Floats) -> Floats:
    """Return positions (atoms, 3) relative to their mean."""
    out: Floats = positions - positions.mean(axis=0)
    return out


def largest_shift(one: Floats, other: Floats) -> float:
    """Return the largest distance between equal atoms after superposition, Å.

    Mirror images are the same geometry, since their energy and forces are the same.
    """
    one, other = centred(one), centred(other)
    moved = other @ kabsch_rotation(one, other, mirror=True)
    return float(np.linalg.norm(moved - one, axis=1).max())


def pair_distances(positions: Floats) -> Floats:
    """Return all pair distances (frames, pairs) of geometries (frames, atoms, 3), Å."""
    i, j = np.triu_indices(positions.shape[1], k=1)
    out: Floats = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    return out
