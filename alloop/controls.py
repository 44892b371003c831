"""Control campaigns: what would the same label cost have bought without the cleverness?

"standard" trains on expensive labels alone, and gets as many more of them as the cheap
labels cost. "random" picks its frames at random. Each is a fork of the finished
campaign before their paths part: first labels and test set are the same.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.config import Setup
from alloop.core.records import Label, Unlabelled
from alloop.loop import events as e
from alloop.loop.history import CODEC, History
from alloop.loop.ledger import Ledger
from alloop.loop.prices import cheap_in_expensive
from alloop.running import attributes
from alloop.store.archive import Archive

NAMES = ("standard", "random")


@dataclass(frozen=True, slots=True)
class Shared:
    """The labels of the finished campaign, as a cache that is only read."""

    ledger: Ledger

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """The record under this key, or None."""
        return self.ledger.labels.get((level, frame))

    def put(self, record: Label | Unlabelled) -> None:
        """Nothing: the finished campaign is closed."""


def stores(store: Path) -> dict[str, Path]:
    """The control stores that exist beside a campaign's store."""
    return {name: _store(store, name) for name in NAMES if _store(store, name).exists()}


def prepare(name: str, setup: Setup, history: History) -> Setup:
    """A control's configuration; its store is forked where it is not there yet."""
    changes = _changes(name, setup, history)
    own = setup.varied(changes, _store(setup.store, name), history.opened)
    if not own.store.exists():
        _fork(history, own, name)
    return own


def _changes(name: str, setup: Setup, history: History) -> dict[str, Any]:
    title = {"name": f"{setup.name}-{name}"}
    if name == "random":
        return {**title, "flag": {"selection": "random"}}
    budget = setup.rules.budget.expensive + round(cheap_in_expensive(history))
    return {
        **title,
        "budget": {"cheap": 0, "expensive": budget},
        "seeds": {"cheap": 0},
        "training": {"kind": "standard"},
    }


def _fork(history: History, setup: Setup, name: str) -> None:
    """A new store with the history up to where the control goes its own way.

    Of the turn there only the event is taken: other rules decide what follows it. The
    store appears whole or not at all.
    """
    parting = e.Train if name == "standard" else e.Explore
    partial = setup.store.with_name(f"{setup.store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    attrs = attributes(setup) | {"parent": str(history.path), "control": name}
    with (
        Archive.open(history.path, CODEC) as parent,
        Archive.create(partial, attrs=attrs, codec=CODEC) as child,
    ):
        for entry in history.entries:
            turn = entry.turn
            if isinstance(turn.event, e.Trained | e.Opened) and turn.event.model:
                child.put_model(turn.event.model, parent.model(turn.event.model))
            if any(isinstance(command, parting) for command in turn.commands):
                child.append(e.Turn(turn.event))
                break
            child.append(turn)
    partial.rename(setup.store)


def _store(store: Path, name: str) -> Path:
    return store.with_suffix(".controls") / f"{name}.zarr"
