"""The stress of cells: the derivative of the energy by the strain, over the volume."""

import numpy as np

from alloop.core.batch import Batch
from alloop.core.units import Floats

_ORDER = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # xx yy zz yz xz xy


def voigt(batch: Batch, virial: Floats) -> Floats:
    """Return the stress (frames, 6) in eV/Å³ from dE/dstrain (frames, 3, 3) in eV.

    It is in Voigt's order and with ASE's sign; NaN for frames that are not periodic in
    all directions.
    """
    whole = batch.pbc.all(axis=1)
    volume = np.where(whole, np.abs(np.linalg.det(batch.cells)), np.nan)
    both = (virial + np.swapaxes(virial, 1, 2)) / 2
    columns = [both[:, a, b] for a, b in _ORDER]
    out: Floats = np.stack(columns, axis=1) / volume[:, None]
    return out
