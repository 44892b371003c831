"""Training states in a folder, one file a stage, and the progress for others to read.

Files are replaced atomically.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from alloop.core.errors import DamagedError, InputError
from alloop.core.roles import Trainer
from alloop.files.targets import replace_atomically
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)

_FILE = "progress.json"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The present stage, its steps so far and in all, and its recent mean loss."""

    stage: str
    step: int
    steps: int
    loss: float

    def __str__(self) -> str:
        return f"{self.stage} {self.step} of {self.steps}, loss {self.loss:.3g}"


def write_progress(folder: Path, progress: TrainingProgress) -> None:
    """Replace the progress in the folder; errors of the disk are ignored.

    Nothing depends on the file.
    """
    part = folder / f".{_FILE}.{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        part.replace(folder / _FILE)


def read_progress(folder: Path) -> TrainingProgress | None:
    """Return the last progress that a training wrote to its folder, or None."""
    try:
        told = TrainingProgress(**json.loads((folder / _FILE).read_text("utf-8")))
        str(told)  # raises where a value is no number
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return told


class StateKeeper(Protocol):
    """A store of training states; `StateFolder` is one on disk.

    A name is 32 hexadecimal digits and stands for one training of one stage, with its
    labels, seed and settings: a state under another name is never resumed.
    """

    def should_save(self) -> bool:
        """Return True if it is time to save.

        It may look at a clock, since no result depends on it.
        """

    def save(self, name: str, state: Checkpoint) -> None:
        """Save a state in place of the last one of that name."""

    def load(self, name: str) -> Checkpoint | None:
        """Return the last state of that name, or None where there is none."""

    def report(self, progress: TrainingProgress) -> None:
        """Receive the progress of the training, each time that a loss is recorded."""


@runtime_checkable
class ResumableTrainer(Protocol):
    """A trainer whose trainings can be resumed after a kill."""

    def saving_to(self, keeper: StateKeeper) -> Trainer:
        """Return the same trainer, which resumes from the keeper's states."""
        ...


@dataclass(slots=True)
class StateFolder:
    """A folder of training states as safetensors files; implements StateKeeper.

    every: seconds of the clock between two saves, from the first step on. A file that
    is not a whole state of alloop's is ignored, and the training starts again. The
    states of finished stages stay, so that a training of several stages resumes in the
    right one: the caller removes the folder once it has the trained model.
    """

    folder: Path
    every: float = 30.0
    _last: float | None = None

    def should_save(self) -> bool:
        """Return True if `every` seconds have passed since the last save.

        The first call starts the clock.
        """
        now = time.monotonic()
        self._last = now if self._last is None else self._last
        return now - self._last >= self.every

    def save(self, name: str, state: Checkpoint) -> None:
        """Write a file beside the old one, sync it, and rename it over the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self._path(name)) as partial:
            partial.write_bytes(checkpoint_to_bytes(state))
        self._last = time.monotonic()

    def load(self, name: str) -> Checkpoint | None:
        """Return the state of that name, or None where there is no whole one."""
        try:
            return checkpoint_from_bytes(self._path(name).read_bytes())
        except (FileNotFoundError, InputError, DamagedError):
            return None

    def report(self, progress: TrainingProgress) -> None:
        """Write the progress of the training to the folder."""
        write_progress(self.folder, progress)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
