"""ASTEROID's bias: how much a model disagrees with a cheap label.

Bukharin et al., ICML 2023, section 3. The paper prints the sum over components; its
code takes the mean, and only that leaves weights which do not vanish.
"""

import numpy as np

from alloop.core.units import Floats, Integers


def frame_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """B = mean abs(F_model - F_cheap) over each frame's components, (frames,) eV/Å.

    model and cheap are forces (atoms, 3) in eV/Å; offsets (frames + 1,). The mean, not
    the printed sum, so that molecules of different size compare.
    """
    frames = len(offsets) - 1
    if frames == 0:
        return np.zeros(0)
    per_atom = np.abs(model - cheap).mean(axis=1)
    out: Floats = np.add.reduceat(per_atom, offsets[:-1]) / np.diff(offsets)
    return out


def best_scale(model: Floats, cheap: Floats) -> float:
    """The factor a that brings a F_cheap closest to F_model in least squares; 1 where
    the cheap forces are all zero."""
    squares = float((cheap * cheap).sum())
    return float((model * cheap).sum()) / squares if squares > 0.0 else 1.0


def scaled_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """B after the best common factor: what is left when a cheap level that is merely
    too stiff or too soft everywhere is forgiven, (frames,) eV/Å."""
    return frame_bias(model, best_scale(model, cheap) * cheap, offsets)
