"""Expected costs and durations of tasks, from earlier tasks and the cost model."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from statistics import median

from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.levels import Level, LevelId
from alloop.core.records import Label
from alloop.history.record_index import LabelIndex
from alloop.labels.programs import level_cost
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Prepare,
    Recheck,
    Sample,
    Train,
    TrainPart,
)
from alloop.workers.time_limits import TaskSpan

_LAST = 8  # recent tasks of a kind that are kept
_MORE = 1.5  # upper limit in units of the longest of them
_TIGHT = 4.0  # cost of a recheck in labels, until one was measured
_REFINE = "refine"  # a training that takes fewer steps
_ANSWERS: dict[type, type] = {
    e.Prepared: Prepare,
    e.Sampled: Sample,
    e.Explored: Explore,
    e.Trained: Train,
    e.PartTrained: TrainPart,
    e.Examined: Examine,
}


class TaskTimes:
    """Estimates from the wall seconds of the last tasks of each kind."""

    def __init__(self, levels: Iterable[Level] = (), limit: float = 3600.0) -> None:
        """limit: s, after which a label is stopped."""
        self._levels = {level.id: level for level in levels}
        self._limit = limit
        self._last: dict[object, deque[float]] = {}

    def note_event(self, event: e.Event) -> None:
        """Record the duration of the task that the event answers."""
        kind = _task_kind(event)
        if kind is None:
            return
        took = event.timing.ended - event.timing.started  # type: ignore[union-attr]
        if took > 0:
            self._last.setdefault(kind, deque(maxlen=_LAST)).append(took)

    def median(self, command: Command) -> float | None:
        """Return the median duration of the last tasks of the command's kind, s.

        None where there was none.
        """
        last = self._last.get(_command_kind(command))
        return median(last) if last else None

    def expected_span(
        self, command: Command, label_index: LabelIndex, costs: Mapping[LevelId, Cost]
    ) -> TaskSpan:
        """Return the expected duration of the command."""
        match command:
            case LabelFrame(level=level, frame=frame):
                return self._label_span(level, frame, costs)
            case Recheck(level=level, frame=name):
                seen = self._recent_span(_command_kind(command))
                return seen or self._recheck_span(
                    level, label_index.frames[name], costs
                )
            case Train(refine=frames) if frames:
                return self._recent_span(_REFINE) or TaskSpan()
            case Train(length=length):
                span = self._recent_span(Train) or TaskSpan()
                return TaskSpan(length * span.likely, length * span.most)
            case _:
                return self._recent_span(type(command)) or TaskSpan()

    def _label_span(
        self, level: LevelId, frame: Frame, costs: Mapping[LevelId, Cost]
    ) -> TaskSpan:
        """Estimate from the measured cost, else the last labels, else the cost prior.

        The prior is too vague for a likely duration, so it gives only an upper limit.
        No estimate exceeds the time limit of a label.
        """
        cost, seen = costs.get(level), self._recent_span(("label", level))
        if cost is None and seen is not None:
            return TaskSpan(seen.likely, min(self._limit, seen.most))
        likely = 0.0 if cost is None else cost.seconds(frame)
        if cost is None and level in self._levels:
            cost = level_cost(self._levels[level])
        if cost is None:
            return TaskSpan()
        longest = cost.seconds(frame) * cost.spread(frame) ** 2
        return TaskSpan(min(self._limit, likely), min(self._limit, longest))

    def _recheck_span(
        self, level: LevelId, frame: Frame, costs: Mapping[LevelId, Cost]
    ) -> TaskSpan:
        once = self._label_span(level, frame, costs)
        return TaskSpan(_TIGHT * once.likely, min(self._limit, _TIGHT * once.most))

    def _recent_span(self, kind: object) -> TaskSpan | None:
        last = self._last.get(kind)
        return None if not last else TaskSpan(last[-1], _MORE * max(last))


def _command_kind(command: Command) -> object:
    match command:
        case LabelFrame(level=level):
            return "label", level
        case Recheck(level=level):
            return "recheck", level
        case Train(refine=frames) if frames:
            return _REFINE
        case _:
            return type(command)


def _task_kind(event: e.Event) -> object | None:
    match event:
        case e.Labelled(label=label, cached=False):
            return "label", label.level
        case e.Rechecked(noise=noise):
            return "recheck", noise.level
        case e.Trained(refinement=found) if found is not None:
            return _REFINE
        case _:
            return _ANSWERS.get(type(event))


def label_costs(
    label_index: LabelIndex, levels: Iterable[Level]
) -> dict[LevelId, Cost]:
    """Return the cost of labels by level, for levels at which some were made here."""
    by_id = {level.id: level for level in levels}
    made = groupby(sorted(label_index.computed), itemgetter(0))
    good = {level: _good_labels(label_index, keys) for level, keys in made}
    return {
        level: level_cost(by_id[level], labels)
        for level, labels in good.items()
        if level in by_id
    }


def _good_labels(
    label_index: LabelIndex, keys: Iterable[tuple[LevelId, str]]
) -> list[tuple[Frame, Label]]:
    records = (
        (label_index.frames[frame], label_index.get(at, frame)) for at, frame in keys
    )
    return [(frame, label) for frame, label in records if isinstance(label, Label)]


def expected_cost(
    command: Command,
    label_index: LabelIndex,
    levels: Iterable[Level],
    costs: Mapping[LevelId, Cost],
) -> float:
    """Return the CPU seconds that a label is expected to take.

    Without a measured cost of its level in `costs`, the prior of that level is used; 0
    for any other command.
    """
    match command:
        case LabelFrame(level=where, frame=frame):
            what = frame
        case Recheck(level=where, frame=name):
            what = label_index.frames[name]
        case _:
            return 0.0
    guesses = (level_cost(level) for level in levels if level.id == where)
    cost = costs.get(where) or next(guesses, None)
    return 0.0 if cost is None else cost.seconds(what)
