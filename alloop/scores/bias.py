"""The part of ASTEROID's bias (`alloop.core.bias`) that is due to the model."""

import numpy as np

from alloop.core.units import Floats


def unexplained_bias(bias: Floats, descriptors: Floats, components: int = 3) -> Floats:
    """Return the part of each frame's bias that its geometry does not explain.

    bias and result: (frames,). Most of the bias is the difference between two levels,
    which is smooth: a linear function of the descriptors' (frames, features) leading
    principal components is fitted to it and subtracted. The absolute rest is due to the
    model, not to the levels.
    """
    count = max(0, min(components, len(bias) - 2, descriptors.shape[1]))
    centred = descriptors - descriptors.mean(axis=0)
    modes, spread, _ = np.linalg.svd(centred, full_matrices=False)
    design = np.column_stack([np.ones(len(bias)), (modes * spread)[:, :count]])
    fitted = design @ np.linalg.lstsq(design, bias)[0]
    left: Floats = np.abs(bias - fitted)
    return left
