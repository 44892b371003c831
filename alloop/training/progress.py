"""How far a training is: told by its process in a file, read by whoever shows it."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "progress.json"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The stage under way, its steps so far and in all, its mean loss of late."""

    stage: str
    step: int
    steps: int
    loss: float

    def __str__(self) -> str:
        return f"{self.stage} {self.step} of {self.steps}, loss {self.loss:.3g}"


def write_progress(folder: Path, told: TrainingProgress) -> None:
    """Replace what the folder says, if the disk allows: nothing depends on it."""
    part = folder / f".{_FILE}.{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(told)), encoding="utf-8")
        part.replace(folder / _FILE)


def read_progress(folder: Path) -> TrainingProgress | None:
    """What a training said last in its folder, if it has said anything."""
    try:
        return TrainingProgress(**json.loads((folder / _FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
