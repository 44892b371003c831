"""ASTEROID's bias: the disagreement between a model and a cheap label.

Bukharin et al., ICML 2023, section 3. The paper prints the sum over components, its
code takes the mean; only with the mean do the weights not vanish.
"""

import numpy as np

from alloop.core.units import Floats, Integers


def frame_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """Return B = mean abs(F_model - F_cheap) of each frame, (frames,) in eV/Å.

    model and cheap are forces (atoms, 3) in eV/Å; offsets (frames + 1,). The mean over
    components is used, not the printed sum, so that molecules of different size
    compare.
    """
    frames = len(offsets) - 1
    if frames == 0:
        return np.zeros(0)
    per_atom = np.abs(model - cheap).mean(axis=1)
    out: Floats = np.add.reduceat(per_atom, offsets[:-1]) / np.diff(offsets)
    return out


def best_scale(model: Floats, cheap: Floats) -> float:
    """Return the factor a that brings a F_cheap closest to F_model in least squares.

    It is 1 where the cheap forces are all zero.
    """
    squares = float((cheap * cheap).sum())
    return float((model * cheap).sum()) / squares if squares > 0.0 else 1.0


def scaled_bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
    """Return B after the cheap forces are scaled by `best_scale`, (frames,) in eV/Å.

    The error of a cheap level that is too stiff or too soft by the same factor
    everywhere does not count.
    """
    return frame_bias(model, best_scale(model, cheap) * cheap, offsets)
