"""A level that loses some labels for as long as a file lies somewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.labels.result import Refused, Result
from alloop.labels.toy import label_with_toy, toy_level


def label_late(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs; every third frame runs into a time limit while the file is there."""
    if int(frame.id, 16) % 3 == 0 and Path(settings["path"]).exists():
        raise Refused(Failure.TIMEOUT, "the machine is slow today")
    return label_with_toy(frame, toy_level(burn=settings["burn"]).settings)
