"""Levels that leave a line in a file for each label, or move a clock."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alloop.core.frame import Frame
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level


def label_counted(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs, after `burn` CPU seconds, and as long as a file FILE.hold is there;
    FILE.held then tells of the frame."""
    hold, held = (Path(f"{settings['path']}.{word}") for word in ("hold", "held"))
    while hold.exists():
        held.write_text(frame.id)
        time.sleep(0.05)
    result = label_with_toy(frame, toy_level(burn=settings["burn"]).settings)
    with Path(settings["path"]).open("a") as lines:  # one short write: whole lines
        lines.write(f"{frame.id}\n")
    return result


class Clock:
    """Another clock, moved on at will."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.moved = 0.0

    def __call__(self) -> float:
        return self._clock() + self.moved


CLOCK = Clock(time.time)


def label_minutes(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs, after so many minutes of the clock."""
    CLOCK.moved += 60.0 * settings["minutes"]
    return label_with_toy(frame, toy_level(stiffness=settings["stiffness"]).settings)


RUDE = "\x1b[2J\x1b]0;title\x07\x9b31m[bold]rude[/bold]\r\nsecond line"


def label_rude(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs; of one frame in four a failure that writes to the terminal."""
    if frame.id[0] in "0123":
        raise RuntimeError(RUDE)
    return label_with_toy(frame, toy_level(**settings).settings)
