"""Random streams by name, and splits of frames and labels that never change.

The same name gives the same numbers, whatever ran before.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np

from alloop.core.frame import FrameId


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream called `name` of a campaign with this seed."""
    return np.random.Generator(np.random.PCG64(_hashed_integer(seed, name)))


def torch_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for libraries that take an integer."""
    return _hashed_integer(seed, name) & (2**63 - 1)


def name_share(seed: int, name: str) -> float:
    """Return the name's number in [0, 1), for splits that never change."""
    return (_hashed_integer(seed, name) & (2**53 - 1)) / 2**53


def _hashed_integer(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest(), "little")


Split: TypeAlias = Literal["train", "validation", "test"]
# Of a label; the order is that of their codes in columns of stores.
Purpose: TypeAlias = Literal[
    "seed", "test", "flagged", "control", "bias", "given", "examination", "beyond"
]

VALIDATION: Literal["test"] = "test"  # as stores write it: made by MD or supplied
EXAMINATION: Literal["examination"] = "examination"  # of MD on the finished model
BEYOND: Literal["beyond"] = "beyond"  # beyond that MD: bonds turned and stretched


def split_of(purpose: Purpose) -> Split:
    """Return the split that a label belongs to, by the purpose it was asked for.

    The validation set decides when to stop and which generation is best, whoever made
    it; only the examination, and frames beyond its MD, are "test". All else is "train":
    models may learn from it.
    """
    if purpose in (EXAMINATION, BEYOND):
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
