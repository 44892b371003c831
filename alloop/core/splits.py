"""The split of a label: for training, for steering the campaign or for tests. Pure."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from alloop.core.frame import FrameId
from alloop.core.seeds import name_share

Split: TypeAlias = Literal["train", "validation", "test"]
# Of a label; the order is that of their codes in columns of stores.
Purpose: TypeAlias = Literal[
    "seed", "test", "flagged", "control", "bias", "given", "examination"
]

VALIDATION: Literal["test"] = "test"  # as stores write it: made by MD or supplied
EXAMINATION: Literal["examination"] = "examination"  # of MD on the finished model


def split_of(purpose: Purpose) -> Split:
    """Return the split that a label belongs to, by the purpose it was asked for.

    The validation set decides when to stop and which generation is best, whoever made
    it; only the examination is "test". All else is "train": models may learn from
    it.
    """
    if purpose == EXAMINATION:
        return "test"
    if purpose == VALIDATION:
        return "validation"
    return "train"


def held_out(frames: Iterable[FrameId], fraction: float) -> frozenset[FrameId]:
    """Return the frames to hold out for validation, about `fraction` of them.

    A frame's id alone decides, whatever the other frames. Empty where no frame would be
    left to train on.
    """
    ids = frozenset(frames)
    out = frozenset(x for x in ids if name_share(0, f"validation/{x}") < fraction)
    return frozenset() if out == ids else out
