"""Expected costs of labels, from those that this campaign computed itself. Pure."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter

from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.levels import Level, LevelId
from alloop.core.records import Label
from alloop.history.label_index import LabelIndex
from alloop.labels.programs import level_cost
from alloop.loop import events as e


def label_costs(ledger: LabelIndex, levels: Iterable[Level]) -> dict[LevelId, Cost]:
    """Return the cost of labels by level, for levels at which some were made here."""
    known = {level.id: level for level in levels}
    made = groupby(sorted(ledger.made), itemgetter(0))
    found = {level: _good_labels(ledger, keys) for level, keys in made}
    return {
        level: level_cost(known[level], labels)
        for level, labels in found.items()
        if level in known
    }


def _good_labels(
    ledger: LabelIndex, keys: Iterable[tuple[LevelId, str]]
) -> list[tuple[Frame, Label]]:
    found = ((ledger.frames[frame], ledger.get(at, frame)) for at, frame in keys)
    return [(frame, label) for frame, label in found if isinstance(label, Label)]


def expected_cost(
    command: e.Command,
    ledger: LabelIndex,
    levels: Iterable[Level],
    known: Mapping[LevelId, Cost],
) -> float:
    """Return the CPU seconds that a label is expected to take.

    Without a measured cost for its level (`known`), the prior of that level is used; 0
    for any other command.
    """
    match command:
        case e.LabelFrame(level=where, frame=frame):
            what = frame
        case e.Recheck(level=where, frame=name):
            what = ledger.frames[name]
        case _:
            return 0.0
    guesses = (level_cost(level) for level in levels if level.id == where)
    cost = known.get(where) or next(guesses, None)
    return 0.0 if cost is None else cost.seconds(what)
