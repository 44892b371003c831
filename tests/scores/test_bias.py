"""What of the bias tells of the model, by hand."""

import numpy as np
import pytest

from alloop.core.seeds import random_stream
from alloop.loop.label_choice import unexplained_bias


def test_bias_that_geometry_explains_is_taken_away() -> None:
    rng = random_stream(1, "unexplained")
    descriptors = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 12))
    smooth = 0.5 + 0.3 * descriptors[:, 0]
    assert unexplained_bias(smooth, descriptors) == pytest.approx(
        np.zeros(40), abs=1e-10
    )
    odd = smooth.copy()
    odd[17] += 0.4
    left = unexplained_bias(odd, descriptors)
    assert left.argmax() == 17
    assert left[17] > 0.25


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_explain_little(frames: int) -> None:
    bias = np.arange(float(frames))
    left = unexplained_bias(bias, np.ones((frames, 4)))
    assert left == pytest.approx(np.abs(bias - bias.mean()))
