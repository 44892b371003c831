"""Labels that columns hold and the journal has lost: how many, and where."""

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
    """The labels of columns that were set aside, for a driver that asks again."""

    labels: Mapping[tuple[LevelId, str], Label]

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """The label under this key, or None."""
        return self.labels.get((level, frame))

    def put(self, record: Label | Unlabelled) -> None:
        """Nothing is added to what was set aside."""


def set_aside_labels(history: History) -> tuple[SetAsideLabels, ...]:
    """The labels in all columns of a store that were set aside; none without any."""
    found = [x for part in parts(history.path) for x in _labels(history, part)]
    labels = {(x.level, x.frame): x for x in found}
    return (SetAsideLabels(labels),) if labels else ()


def columns_ahead(store: Path) -> list[Path]:
    """The folders whose columns go beyond the journal, or another way: the store's own
    and those that were set aside. None where there is no store."""
    return [store] * (_mark(store) >= 0) + list(parts(store))


def lost_label_warning(history: History) -> str:
    """One sentence about labels that only columns still hold; "" where there are none.

    They are of a journal that lost its end or was rolled back.
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
