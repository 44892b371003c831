"""Changes of frames for the checks: rotating, shuffling and joining them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.seeds import random_stream
from alloop.core.units import Floats, Integers


def fixed_rotation() -> Floats:
    """Return a proper rotation (3, 3) that is far from any axis."""
    Q, _ = np.linalg.qr(random_stream(0, "testing/rotation").normal(size=(3, 3)))
    out: Floats = Q * np.sign(np.linalg.det(Q))
    return out


def shuffled_atoms(frames: Sequence[Frame]) -> tuple[Batch, Batch, Integers]:
    """Return the batch, the batch with atoms shuffled in each frame, and the order."""
    batch = pack_frames(frames)
    rng = random_stream(0, "testing/permutation")
    order = np.concatenate(
        [
            span.start + rng.permutation(span.stop - span.start)
            for span in batch.atom_slices()
        ]
    )
    numbers, positions = batch.numbers[order], batch.positions[order]
    return batch, replace(batch, numbers=numbers, positions=positions), order


def closed_shell_molecules(frames: Sequence[Frame]) -> list[Frame]:
    """Return the neutral singlets without a cell."""
    return [f for f in frames if f.charge == 0 and f.spin == 0 and not any(f.pbc)]


def molecule_pair(frame: Frame, distance: float) -> Frame:
    """Return the molecule and its copy, their nearest atoms `distance` Å apart."""
    u = fixed_rotation()[0]
    along = frame.positions @ u
    last, first = frame.positions[along.argmax()], frame.positions[along.argmin()]
    copied = frame.positions + last - first + distance * u
    return Frame(
        numbers=np.tile(frame.numbers, 2),
        positions=np.concatenate([frame.positions, copied]),
    )
