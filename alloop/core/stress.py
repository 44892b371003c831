"""Stress of cells in Voigt order (xx, yy, zz, yz, xz, xy), eV/Å³, with ASE's sign."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from alloop.core.batch import Batch
from alloop.core.units import Floats

_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
_INDICES = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def voigt(tensor: Floats) -> Floats:
    """Return symmetrised tensors (..., 3, 3) in Voigt order (..., 6)."""
    both = (tensor + np.swapaxes(tensor, -1, -2)) / 2
    out: Floats = np.stack([both[..., a, b] for a, b in _INDICES], axis=-1)
    return out


def stress_from_virial(batch: Batch, virial: Floats) -> Floats:
    """Return the stress (frames, 6) in eV/Å³ from dE/dstrain (frames, 3, 3) in eV.

    NaN for frames that are not periodic in all directions.
    """
    whole = batch.pbc.all(axis=1)
    volume = np.where(whole, np.abs(np.linalg.det(batch.cells)), np.nan)
    out: Floats = voigt(virial) / volume[:, None]
    return out


def stress_from_details(details: Mapping[str, Any]) -> Floats | None:
    """Return the stress (6,) that labels of older stores have among their details."""
    values = [details.get(f"stress_{name}") for name in _NAMES]
    if any(not isinstance(value, float) for value in values):
        return None
    return np.array(values, dtype=np.float64)
