"""Comparisons for the checks, and frames that are rotated, shuffled or joined.

A failed comparison raises AssertionError with a sentence, even under `python -O`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.seeds import random_stream
from alloop.core.units import Floats, Integers


def require(holds: bool | np.bool_, sentence: str) -> None:
    """Raise AssertionError with the sentence unless it holds."""
    if not holds:
        raise AssertionError(sentence)


def joined_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions of single frames as those of their batch."""
    return Predictions(
        energies=np.concatenate([part.energies for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
    )


def force_scale(forces: Floats) -> float:
    """Return the factor of tolerances: the largest force component, at least 1."""
    return max(1.0, float(np.abs(forces).max(initial=0.0)))


def require_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Require an array of this shape, in float64 and finite."""
    require(array.shape == shape, f"expected {name} {shape}, got {array.shape}")
    double = array.dtype == np.float64
    require(double, f"expected {name} in float64, got {array.dtype}")
    require(np.isfinite(array).all(), f"{name} are not all finite")


def require_same(
    law: str, got: Predictions, want: Predictions, tolerance: float
) -> None:
    """Require energies and forces that are equal within the tolerance."""
    limit = tolerance * force_scale(want.forces)
    require_close(f"the energy changes with {law}", got.energies, want.energies, limit)
    require_close(f"forces do not follow {law}", got.forces, want.forces, limit)


def require_close(sentence: str, got: Floats, want: Floats, limit: float) -> None:
    """Require that no element is off by more than the limit; nan fails."""
    worst = float(np.abs(got - want).max(initial=0.0))
    require(worst <= limit, f"{sentence}: off by {worst:.3g}, {limit:.3g} allowed")


def require_equal_bits(what: str, got: Predictions, want: Predictions) -> None:
    """Require equal bits of energies, forces and descriptors."""
    equal = np.array_equal(got.energies, want.energies)
    equal = equal and np.array_equal(got.forces, want.forces)
    if got.descriptors is not None and want.descriptors is not None:
        equal = equal and np.array_equal(got.descriptors, want.descriptors)
    require(equal, f"{what} does not give the same bits")


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
