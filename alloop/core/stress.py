"""Stress of cells in Voigt order (xx, yy, zz, yz, xz, xy), eV/Å³, with ASE's sign."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alloop.core.batch import Batch
from alloop.core.units import Floats

_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def voigt(tensor: Floats) -> Floats:
    """Return symmetrised tensors (..., 3, 3) in Voigt order (..., 6)."""
    both = (tensor + np.swapaxes(tensor, -1, -2)) / 2
    out: Floats = np.stack([both[..., a, b] for a, b in VOIGT], axis=-1)
    return out


def tensor_of_voigt(values: Floats) -> Floats:
    """Return the symmetric tensors (..., 3, 3) of values in Voigt order (..., 6)."""
    out = np.zeros((*values.shape[:-1], 3, 3))
    for place, (a, b) in enumerate(VOIGT):
        out[..., a, b] = out[..., b, a] = values[..., place]
    return out


def stress_from_virial(batch: Batch, virial: Floats) -> Floats:
    """Return the stress (frames, 6) in eV/Å³ from dE/dstrain (frames, 3, 3) in eV.

    NaN for frames that are not periodic in all directions.
    """
    periodic = batch.pbc.all(axis=1)
    volume = np.where(periodic, np.abs(np.linalg.det(batch.cells)), np.nan)
    out: Floats = voigt(virial) / volume[:, None]
    return out


def from_any_shape(values: Any) -> Floats | None:
    """Return the stress (6,) from (6,), (9,) or (3, 3) values, None for others."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape == (6,):
        return array
    return voigt(array.reshape(3, 3)) if array.shape in ((9,), (3, 3)) else None


def stack_stress(stresses: Sequence[Floats | None]) -> Floats | None:
    """Return the stress (frames, 6) of frames, NaN where one has none.

    None where no frame has one.
    """
    if all(stress is None for stress in stresses):
        return None
    rows = [np.full(6, np.nan) if stress is None else stress for stress in stresses]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def virial_per_atom(batch: Batch, stress: Floats) -> Floats:
    """Return the stress times volume over the number of atoms, (frames, 6) in eV."""
    volume = np.abs(np.linalg.det(batch.cells))
    out: Floats = stress * (volume / np.maximum(batch.sizes, 1))[:, None]
    return out


def stress_from_details(details: Mapping[str, Any]) -> Floats | None:
    """Return the stress (6,) that labels of older stores have among their details."""
    values = [details.get(f"stress_{name}") for name in _NAMES]
    if any(not isinstance(value, float) for value in values):
        return None
    return np.array(values, dtype=np.float64)
