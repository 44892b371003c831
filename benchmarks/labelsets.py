"""Labels made on the spot, by a level's short name."""

from collections.abc import Sequence

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Label, LabelSet
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name


def labelled(frames: Sequence[Frame], level: str) -> LabelSet:
    """Labels of all frames, in eV and eV/Å; RuntimeError where one fails."""
    labeller = DirectLabeller(level_from_name(level))
    made = [labeller.label(frame) for frame in frames]
    good = [label for label in made if isinstance(label, Label)]
    if len(good) < len(made):
        failed = len(made) - len(good)
        raise RuntimeError(f"expected {level} labels of all frames, {failed} failed")
    energies = np.array([label.energy for label in good])
    return LabelSet(
        pack_frames(frames), energies, np.concatenate([x.forces for x in good])
    )
