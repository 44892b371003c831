"""Batches cut into chunks of whole frames that fit into a device's memory."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from alloop.core.errors import InputError
from alloop.core.units import Integers

CHUNK = 4096  # atoms that a CPU gets at a time
_LARGEST = 65536  # atoms that another device is tried with

_Part = TypeVar("_Part")


class Chunks:
    """The number of atoms that a network gets at a time on its device.

    On a CPU it is constant, so that the same batch gives the same bits. Elsewhere it is
    halved whenever memory runs out, and stays so.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._most = None if torch.device(device).type == "cpu" else _LARGEST

    def evaluate(
        self, offsets: Integers, of_frames: Callable[[int, int], _Part]
    ) -> list[_Part]:
        """Return what `of_frames(start, stop)` returns for chunks of all frames.

        offsets (frames + 1,): where each frame's atoms begin. Raises InputError where a
        single frame does not fit into memory.
        """
        found: list[_Part] = []
        start, frames = 0, len(offsets) - 1
        while start < frames or not found:
            stop = self._end(offsets, start)
            try:
                found.append(of_frames(start, stop))
            except torch.OutOfMemoryError:
                atoms = int(offsets[stop] - offsets[start])
            else:
                start = stop
                continue
            self._halve(atoms, stop - start)  # out here, the error holds no tensors
        return found

    def _end(self, offsets: Integers, start: int) -> int:
        """Return the frame at which the chunk ends: whole frames, at least one."""
        most = CHUNK if self._most is None else self._most
        if offsets[-1] - offsets[start] <= most:
            return len(offsets) - 1
        stop = int(np.searchsorted(offsets, offsets[start] + most, side="right")) - 1
        return max(stop, start + 1)

    def _halve(self, atoms: int, frames: int) -> None:
        if frames <= 1:
            raise InputError(
                f"expected frames that fit into the memory of {self.device}, one of "
                f"{atoms} atoms does not; choose a smaller network, or `device: cpu`"
            )
        self._most = max(1, atoms // 2)
        torch.cuda.empty_cache()
