"""What laws do to frames: turn, shuffle, put two together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alloop.core.batch import Batch, pack
from alloop.core.frame import Frame
from alloop.core.seeds import stream
from alloop.core.units import Floats, Integers


def rotation() -> Floats:
    """A proper rotation (3, 3) that is far from any axis."""
    Q, _ = np.linalg.qr(stream(0, "testing/rotation").normal(size=(3, 3)))
    out: Floats = Q * np.sign(np.linalg.det(Q))
    return out


def shuffled(frames: Sequence[Frame]) -> tuple[Batch, Batch, Integers]:
    """The batch, the same with each frame's atoms shuffled, and the order it took."""
    batch = pack(frames)
    rng = stream(0, "testing/permutation")
    order = np.concatenate(
        [span.start + rng.permutation(span.stop - span.start) for span in batch.spans()]
    )
    numbers, positions = batch.numbers[order], batch.positions[order]
    return batch, replace(batch, numbers=numbers, positions=positions), order


def closed(frames: Sequence[Frame]) -> list[Frame]:
    """The neutral singlets without a cell."""
    return [f for f in frames if f.charge == 0 and f.spin == 0 and not any(f.pbc)]


def pair(frame: Frame, distance: float) -> Frame:
    """The molecule and its copy, their nearest atoms `distance` Å apart."""
    u = rotation()[0]
    along = frame.positions @ u
    last, first = frame.positions[along.argmax()], frame.positions[along.argmin()]
    copied = frame.positions + last - first + distance * u
    return Frame(
        numbers=np.tile(frame.numbers, 2),
        positions=np.concatenate([frame.positions, copied]),
    )
