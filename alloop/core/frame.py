"""A frame: one molecular structure, frozen, named by its content."""

import hashlib
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from alloop.core.units import Floats, Integers

FrameId: TypeAlias = str  # 32 hexadecimal digits

DECIMALS = 8  # Å: frames round their positions, so that equal ids mean equal bytes
_SCHEMA = b"alloop frame 1"
_NO_CELL = np.zeros((3, 3))
_FARTHEST = 1e6  # Å
_THINNEST = 0.1  # Å


def round_positions(values: Floats) -> Floats:
    """Round to `DECIMALS` and turn -0.0 into 0.0."""
    return np.asarray(np.round(values, DECIMALS) + 0.0, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One molecular structure.

    numbers: (atoms,) atomic numbers. positions: (atoms, 3) in Å. charge in e. spin is
    2S = n_alpha - n_beta, as in PySCF. cell: (3, 3) rows in Å, zero without one.
    """

    numbers: Integers
    positions: Floats
    charge: int = 0
    spin: int = 0
    cell: Floats = field(default_factory=_NO_CELL.copy)
    pbc: tuple[bool, bool, bool] = (False, False, False)
    id: FrameId = field(init=False)

    def __post_init__(self) -> None:
        if not np.isfinite(self.numbers).all():
            raise ValueError("expected atomic numbers, one is not finite")
        numbers = np.array(self.numbers, dtype=np.int64)
        positions = round_positions(self.positions)
        if positions.shape != (len(numbers), 3):
            raise ValueError(
                f"expected positions of shape ({len(numbers)}, 3) for {len(numbers)} "
                f"atoms, got {positions.shape}"
            )
        self._freeze("numbers", numbers)
        self._freeze("positions", positions)
        self._freeze("cell", round_positions(self.cell).reshape(3, 3))
        a, b, c = (bool(periodic) for periodic in self.pbc)
        object.__setattr__(self, "pbc", (a, b, c))
        object.__setattr__(self, "id", self._digest())

    def _freeze(self, name: str, array: Floats | Integers) -> None:
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _digest(self) -> FrameId:
        state = np.array([self.charge, self.spin, *self.pbc], dtype="<i8")
        parts = (state, self.numbers, self.positions, self.cell)
        digest = hashlib.sha256(_SCHEMA)
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def frame_fault(frame: Frame) -> str | None:
    """Return why no program can work on the frame's coordinates and cell, or None."""
    if len(frame) == 0:
        return "the frame has no atoms"
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        return "positions or cell are not finite"
    if np.abs(frame.positions).max() > _FARTHEST:
        return f"coordinates beyond {_FARTHEST:g} Å lose their last digits"
    repeated = frame.cell[list(frame.pbc)]
    if any(np.linalg.norm(repeated, axis=1) < _THINNEST):
        return "a periodic direction has no cell vector"
    if len(repeated) and np.linalg.svd(repeated, compute_uv=False)[-1] < _THINNEST:
        return "the cell vectors of periodic directions are not independent"
    return None
