"""A level that leaves a line in a file for each label that it makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.frame import Frame
from alloop.labels.outcome import Result
from alloop.labels.toy import label_with_toy, toy_level


def label_counted(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs, after `burn` CPU seconds."""
    result = label_with_toy(frame, toy_level(burn=settings["burn"]).settings)
    with Path(settings["path"]).open("a") as lines:  # one short write: whole lines
        lines.write(f"{frame.id}\n")
    return result
