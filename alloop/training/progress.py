"""The progress of a training, written by its process to a file for others to read."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
