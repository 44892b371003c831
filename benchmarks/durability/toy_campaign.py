"""A toy campaign that runs in a second and logs every label that it begins and ends.

Its levels are Morse pairs. The log lies outside the store, so that labels which a fault
made the campaign repeat can be counted.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from alloop.core.frame import Frame
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level

LABEL_LOG = "ALLOOP_LABEL_LOG"  # environment variable: the log's file
LABEL_SECONDS = "ALLOOP_LABEL_SECONDS"  # likewise: what a label takes longer
LabelLog: TypeAlias = Counter[str]  # "begun LEVEL FRAME" or "ended LEVEL FRAME"

_CAMPAIGN: dict[str, Any] = {
    "name": "faults",
    "seed": 7,
    "start": [{"molecule": "H2O"}],
    "validation": {"frames": 2, "temperature": 400, "each": 1, "spacing": 5}
    | {"examination": 3, "examination_spacing": 10},
    "seeds": {"cheap": 8, "expensive": 3, "temperature": 400},
    "explore": {"walkers": 2, "batch": 2, "steps": 20, "piece": 10, "stride": 5}
    | {"temperature": [400, 600]},
    "potential": {"kind": "pairwise"},
    "budget": {"cheap": 16, "expensive": 7},
    "limits": {"isolate": False},
    "store": "toy.zarr",
}


def write_campaign(
    folder: Path, label_seconds: float = 0.0, staleness: int = 0, **sections: Any
) -> Path:
    """Write the campaign and return its file.

    label_seconds: what a label takes; sections: those of the file to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        **_CAMPAIGN,
        "levels": {
            "cheap": _level("cheap", 0.9, 0.02, label_seconds),
            "expensive": _level("expensive", 1.0, 0.0, label_seconds),
        },
        "training": {"kind": "asteroid", "every": 2, "staleness": staleness},
        "cluster": {"kind": "inline"},
        **sections,
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _level(
    name: str, stiffness: float, stretch: float, label_seconds: float
) -> dict[str, Any]:
    settings = {"name": name, "stiffness": stiffness, "stretch": stretch}
    return {
        "kind": f"{__name__}:label_and_log",
        "settings": {**settings, "seconds": label_seconds},
    }


def label_and_log(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Label with Morse pairs and log it, if `LABEL_LOG` names a file."""
    path, key = os.environ.get(LABEL_LOG), f"{settings['name']} {frame.id}"
    _log(path, f"begun {key}")
    morse = {"stiffness": settings["stiffness"], "stretch": settings["stretch"]}
    time.sleep(settings["seconds"] + float(os.environ.get(LABEL_SECONDS, "0")))
    result = label_with_toy(frame, toy_level(**morse).settings)
    _log(path, f"ended {key}")
    return result


def _log(path: str | None, line: str) -> None:
    if path is not None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)


def read_label_log(path: Path, start: int = 0) -> LabelLog:
    """Count how often each label was begun and ended, from byte `start` on."""
    if not path.exists():
        return Counter()
    return Counter(path.read_bytes()[start:].decode().splitlines())
