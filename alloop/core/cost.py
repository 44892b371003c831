"""What a label costs, by level and size of the molecule. Pure numpy."""

from dataclasses import dataclass

import numpy as np

from alloop.core.frame import Frame
from alloop.core.levels import LevelId

_VALENCE = ((2, 1), (10, 5), (18, 9), (36, 18), (54, 27), (86, 43))


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of a label at one level: seconds = scale * size(frame)**power.

    labels: how many measured labels stand behind it; spread: typical factor between
    prediction and measurement (1 is perfect).
    """

    level: LevelId
    scale: float
    power: float
    labels: int = 0
    spread: float = 1.0

    def seconds(self, frame: Frame) -> float:
        """Predicted CPU seconds of the frame's label."""
        return float(self.scale * size(frame) ** self.power)


def size(frame: Frame) -> float:
    """Orbitals of a minimal basis: 1 for H and He, 5 for the next row, then 9, ..."""
    return float(sum(_orbitals(int(z)) for z in frame.numbers))


def _orbitals(z: int) -> int:
    return next(count for last, count in (*_VALENCE, (z, 43)) if z <= last)


def fit(
    level: LevelId, frames: list[Frame], seconds: list[float], power: float
) -> Cost:
    """The cost of a level from measured labels; `power` is what theory expects."""
    logs = np.log(np.maximum(seconds, 1e-6))
    sizes = np.log([size(frame) for frame in frames])
    scale = float(np.exp(np.median(logs - power * sizes)))
    off = np.abs(logs - power * sizes - np.log(scale))
    return Cost(level, scale, power, len(frames), float(np.exp(off.mean())))
