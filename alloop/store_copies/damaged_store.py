"""The parts of a damaged store that can still be read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from alloop.core.errors import DamagedError, StoreError
from alloop.history.journal_codec import CODEC
from alloop.history.journal_fold import JournalFold
from alloop.loop import events as e
from alloop.store import root
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.models import read_model

Turns: TypeAlias = tuple[tuple[RawEntry, e.Turn], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SurveyedRecords:
    """The records of a journal that can be read.

    prefix: those before the first lost one. later: those after it. damaged: the numbers
    and errors of the lost ones.
    """

    prefix: Turns
    later: Turns
    damaged: tuple[tuple[int, str], ...]


def whole_attributes(store: Path) -> dict[str, Any]:
    """Return the attributes of the store, if damaged from a copy or the whole part.

    Raises DamagedError where the configuration is lost.
    """
    try:
        attrs: dict[str, Any] | None = root.node_attributes(root.read_root(store))
        attrs = root.attributes_copy(store) or attrs
    except DamagedError:
        attrs = root.rescued_attributes(store)
    if attrs is None or not isinstance(attrs.get("config"), str):
        raise DamagedError(
            f"{store / root.NODE_FILE} is damaged where it holds the configuration, "
            "and there is no copy of it; restore that file"
        )
    return attrs


def survey_records(store: Path) -> SurveyedRecords:
    """Read all records of a damaged journal that are whole and follow from others."""
    fold = JournalFold()
    prefix: list[tuple[RawEntry, e.Turn]] = []
    later: list[tuple[RawEntry, e.Turn]] = []
    damaged: list[tuple[int, str]] = []
    for seq, entry in Journal(store / FOLDER).survey():
        try:
            if isinstance(entry, StoreError):
                raise entry
            turn: e.Turn = CODEC.decode(entry.record)
            if not damaged:
                fold.add_turn(turn)
        except StoreError as error:
            damaged.append((seq, str(error)))
            continue
        (later if damaged else prefix).append((entry, turn))
    return SurveyedRecords(tuple(prefix), tuple(later), tuple(damaged))


def missing_models(store: Path, found: SurveyedRecords) -> dict[str, int]:
    """Return the models that the records name and that are lost or damaged.

    By id: the number of the record of their training, -1 for a supplied one.
    """
    out: dict[str, int] = {}
    for entry, turn in (*found.prefix, *found.later):
        match turn.event:
            case e.Opened(model=str(model)) if not model_blob(store, model):
                out[model] = -1
            case e.Trained(model=model) if not model_blob(store, model):
                out[model] = entry.seq
    return out


def model_blob(store: Path, model: str) -> bytes | None:
    """Return the bytes of a model, None where it is lost or damaged."""
    try:
        return read_model(store, model)
    except (StoreError, OSError, ValueError):
        return None
