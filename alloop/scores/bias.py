"""ASTEROID's bias: how much a model disagrees with a cheap label.

Bukharin et al., ICML 2023, section 3.
"""

import numpy as np

from alloop.core.units import Floats, Integers


def bias(model: Floats, cheap: Floats, offsets: Integers) -> Floats:
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
    return bias(model, best_scale(model, cheap) * cheap, offsets)


def unexplained(bias: Floats, descriptors: Floats, components: int = 3) -> Floats:
    """How far each frame's bias lies from what its geometry explains (frames,).

    Most of the bias is the difference between two levels, which is smooth: a linear
    function of the descriptors' (frames, features) leading principal components is
    fitted to it and taken away. What is left tells of the model, not of the levels.
    """
    kept = max(0, min(components, len(bias) - 2, descriptors.shape[1]))
    centred = descriptors - descriptors.mean(axis=0)
    modes, spread, _ = np.linalg.svd(centred, full_matrices=False)
    design = np.column_stack([np.ones(len(bias)), (modes * spread)[:, :kept]])
    fitted = design @ np.linalg.lstsq(design, bias)[0]
    left: Floats = np.abs(bias - fitted)
    return left
