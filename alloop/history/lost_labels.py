"""Labels that columns hold but the journal has lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alloop.core.errors import StoreError
from alloop.core.levels import LevelId
from alloop.core.records import Label, Unlabelled
from alloop.history.column_labels import read_labels
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.store import root
from alloop.store.journal import FOLDER, Journal
from alloop.store.set_aside import foreign, parts


@dataclass(frozen=True, slots=True)
class SetAsideLabels:
    """A read-only label cache of columns that were set aside.

    A driver that requests such a label again gets it from here.
    """

    labels: Mapping[tuple[LevelId, str], Label]

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the label under this key, None without one."""
        return self.labels.get((level, frame))

    def put(self, record: Label | Unlabelled) -> None:
        """Do nothing: no label is added to columns that were set aside."""


def set_aside_labels(history: History) -> tuple[SetAsideLabels, ...]:
    """Return a cache of the labels in the store's set-aside columns, () without any."""
    found = [x for part in parts(history.path) for x in _labels(history, part)]
    labels = {(x.level, x.frame): x for x in found}
    return (SetAsideLabels(labels),) if labels else ()


def columns_ahead(store: Path) -> list[Path]:
    """Return the folders whose columns extend beyond the journal or diverge from it.

    These are the store's own folder and those that were set aside; [] where there is no
    store.
    """
    return [store] * (_mark(store) >= 0) + list(parts(store))


def lost_label_warning(history: History) -> str:
    """Return a sentence about labels that only columns hold, "" where there are none.

    Such labels come from a journal that lost its end or was rolled back.
    """
    path = history.path
    places = columns_ahead(path)
    lost = {
        (label.level, label.frame)
        for place in places
        for label in _labels(history, place)
        if history.ledger.get(label.level, label.frame) is None
    }
    if not lost:
        return ""
    many = f"{len(lost)} label{'s' * (len(lost) > 1)}"
    where = "its columns hold" if places[0] == path else f"{places[0].name} holds"
    return (
        f"the journal of {path} ends at record {history.known.seq} and has lost {many} "
        f"that {where} still; `alloop doctor {path} --repair OUT` makes a store that "
        "has them"
    )


def _mark(path: Path) -> int:
    try:
        return foreign(root.node_members(root.read_root(path)), Journal(path / FOLDER))
    except (StoreError, OSError):
        return -1


def _labels(history: History, place: Path) -> list[Label]:
    found = (each.answer for each in read_labels(place, history.state.levels))
    return [answer.label for answer in found if isinstance(answer, e.Labelled)]
