"""A campaign small enough to die a thousand times, and what one wants to know of it.

Its levels are Morse pairs that note every label they make, so that what was made twice
can be counted; `staleness` and `cluster` are the caller's.
"""

import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.history.reader import History, read_history
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level
from alloop.loop import events as e

TALLY = "CHAOS_TALLY"  # the file in which labels are noted
Print = dict[str, object]
Noted = Counter[str]

_TINY: dict[str, Any] = {
    "name": "chaos",
    "seed": 7,
    "start": [{"molecule": "H2O"}],
    "test": {"frames": 2, "temperature": 400, "each": 1, "spacing": 5}
    | {"examination": 3, "examination_spacing": 10},
    "seeds": {"cheap": 8, "expensive": 3, "temperature": 400},
    "explore": {"walkers": 2, "batch": 2, "steps": 20, "piece": 10, "stride": 5}
    | {"temperature": 400},
    "potential": {"kind": "pairwise"},
    "budget": {"cheap": 16, "expensive": 7},
    "limits": {"isolate": False},
    "store": "toy.zarr",
}


def noted(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Morse pairs; notes that a label begins, and that it ended, where one counts."""
    path, key = os.environ.get(TALLY), f"{settings['name']} {frame.id}"
    _note(path, f"begun {key}")
    morse = {"stiffness": settings["stiffness"], "stretch": settings["stretch"]}
    time.sleep(settings["wait"])
    result = label_with_toy(frame, toy_level(**morse).settings)
    _note(path, f"ended {key}")
    return result


def _note(path: str | None, line: str) -> None:
    if path is not None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)


def write_tiny(
    folder: Path, wait: float = 0.0, staleness: int = 0, **more: Any
) -> Path:
    """Write the campaign and return its file; wait: seconds a label takes."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        **_TINY,
        "levels": {
            "cheap": _level("cheap", 0.9, 0.02, wait),
            "expensive": _level("expensive", 1.0, 0.0, wait),
        },
        "training": {"kind": "asteroid", "every": 2, "staleness": staleness},
        "cluster": {"kind": "inline"},
        **more,
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _level(name: str, stiffness: float, stretch: float, wait: float) -> dict[str, Any]:
    settings = {"name": name, "stiffness": stiffness, "stretch": stretch, "wait": wait}
    return {"kind": "benchmarks.toys:noted", "settings": settings}


def made(history: History) -> Print:
    """What a campaign made, without times and places: frames, the bits of its labels,
    its models, and what each label was for.
    """
    found: Print = {f"frame {frame}": True for frame in history.label_index.frames}
    for (level, frame), record in history.label_index.labels.items():
        found[f"label {level} {frame}"] = (
            (record.energy, record.forces.tobytes())
            if isinstance(record, Label)
            else record.failure
        )
    for event in history.trained():
        found[f"model {event.generation}"] = event.model
    for entry in history.state.entries():
        found[f"{entry.purpose} {entry.fidelity} {entry.frame}"] = entry.good
    return found


def made_in(store: Path) -> Print:
    """The same of a store."""
    return made(read_history(store))


def committed_twice(history: History) -> int:
    """Labels that were made and committed more than once."""
    keys = Counter(
        (event.label.level, event.label.frame)
        for _, event in history.events()
        if isinstance(event, e.Labelled) and not event.cached
    )
    return sum(count - 1 for count in keys.values())


def tally(path: Path, since: int = 0) -> Noted:
    """How often each label was begun and ended, from this byte of the file on."""
    if not path.exists():
        return Counter()
    return Counter(path.read_bytes()[since:].decode().splitlines())


def labelled(history: History) -> frozenset[str]:
    """The frames that have labels."""
    return frozenset(frame for _, frame in history.label_index.labels)


def redone(found: Noted, alone: Noted, frames: Collection[str]) -> int:
    """Labels of these frames that were begun more often than in a campaign left
    alone.
    """
    more = found - alone
    return sum(
        count
        for key, count in more.items()
        if key.startswith("begun") and key.split()[-1] in frames
    )
