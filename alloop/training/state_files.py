"""States of trainings in a folder: one file a training, replaced as a whole."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from alloop.core.errors import DamagedError, InputError
from alloop.core.roles import Trainer
from alloop.files.atomic_write import replace_atomically
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.training.progress import TrainingProgress, write_progress

if TYPE_CHECKING:
    from alloop.training.saved_state import StateKeeper


@runtime_checkable
class ResumableTrainer(Protocol):
    """A trainer whose trainings can go on where they were killed."""

    def keeping(self, keeper: "StateKeeper") -> Trainer:
        """The same trainer, which goes on from what the keeper has."""
        ...


@dataclass(slots=True)
class StateFolder:
    """Keeps states as safetensors files in a folder; implements Keeper.

    every: seconds of the clock between two saves, from the first step on. A file that
    is not a whole state of ours is passed over, and the training starts again. The
    states of finished stages stay, so that a training of several stages goes on where
    it was: whoever has the trained model removes the folder.
    """

    folder: Path
    every: float = 30.0
    _last: float | None = None

    def due(self) -> bool:
        """Whether the last save is long enough ago; the first question starts time."""
        now = time.monotonic()
        self._last = now if self._last is None else self._last
        return now - self._last >= self.every

    def save(self, name: str, state: Checkpoint) -> None:
        """Write beside the file, sync, and rename over it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self._path(name)) as partial:
            partial.write_bytes(checkpoint_to_bytes(state))
        self._last = time.monotonic()

    def load(self, name: str) -> Checkpoint | None:
        """The state of that name, where a whole one is there."""
        try:
            return checkpoint_from_bytes(self._path(name).read_bytes())
        except (FileNotFoundError, InputError, DamagedError):
            return None

    def tell(self, told: TrainingProgress) -> None:
        """Say in the folder how far the training is."""
        write_progress(self.folder, told)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
