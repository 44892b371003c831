"""Continuation of a campaign, some of whose records are lost. Pure.

The records before the first lost one are kept as they are. The decisions after it are
made again, which gives the same commands where the rules are the same, and each whole
answer is applied once its command is open. An answer that fits no open command is kept
as `Restored`: a driver uses it when its command is issued.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from alloop.core.errors import StoreError
from alloop.history.journal_codec import event_config, identical_commands
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, LabelFrame, Train
from alloop.loop.policy import decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState

_BY_HAND = e.Amended | e.Forked | e.Posed | e.Excluded | e.Included | e.Retried


@dataclass(frozen=True, slots=True, eq=False)
class SavedRecord:
    """A whole event after a lost record.

    time: of its commit, in seconds since 1970. asked: the command that it answers, None
    where that is lost or the event answers none.
    """

    time: float
    event: e.Event
    asked: Command | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ContinuedTurn:
    """A record of the repaired journal, and the time of its commit."""

    time: float
    turn: e.Turn


def saved_records(
    turns: Iterable[tuple[float, e.Turn]], before: Mapping[str, Command]
) -> Iterator[SavedRecord]:
    """Yield the events of whole records, with the commands that they answer.

    turns: (time, turn) after the first lost record, in order. before: the commands that
    were open there, by name.
    """
    requests = dict(before)
    for time, turn in turns:
        event = turn.event
        if isinstance(event, e.Restored):  # of an earlier repair
            yield SavedRecord(time, event.answer, event.asked)
        elif not isinstance(event, e.Opened):
            yield SavedRecord(time, event, requests.get(e.event_name(event)))
        requests |= {command.name: command for command in turn.commands}


@dataclass(slots=True)
class Continuation:
    """A repaired journal under construction, from a state on.

    rules: makes the rules of a configuration (YAML text); config: the one in force.
    missing: ids of models that are lost, whose trainings must be done again. turns:
    the records so far.
    """

    state: LoopState
    config: str
    rules: Callable[[str], Rules]
    missing: Collection[str] = ()
    turns: list[ContinuedTurn] = field(default_factory=list)
    _recorded: dict[str, Command] = field(default_factory=dict)
    _diverged: bool = False

    def run(self, records: Iterable[SavedRecord]) -> list[SavedRecord]:
        """Apply all events that fit, in their order; return those left over."""
        left = list(records)
        self._recorded = {x.asked.name: x.asked for x in left if x.asked is not None}
        count = -1
        while len(left) != count:
            count = len(left)
            left = [item for item in left if not self._try_event(item)]
        return left

    def begin_campaign(self, time: float, opened: e.Opened) -> None:
        """Restart a campaign whose first record is lost, with the event `opened`."""
        self._add_event(time, opened)

    def _try_event(self, item: SavedRecord) -> bool:
        event = item.event
        if isinstance(event, _BY_HAND):
            self.config = event_config(event) or self.config
            self._add_event(item.time, event)
            return True
        if isinstance(event, e.Opened | e.Restored) or not self._fits(item):
            return False
        self._add_event(item.time, event)
        return True

    def _fits(self, item: SavedRecord) -> bool:
        """Return True if the event answers a command that is open now."""
        event = item.event
        assert not isinstance(event, _BY_HAND | e.Opened | e.Restored)
        command = self.state.open.get(event.name)
        if command is None or self._is_missing(event):
            return False
        if isinstance(event, e.TaskLost):
            return True
        # A lost command was this one if all known ones were issued again as before.
        request = command if item.asked is None and not self._diverged else item.asked
        return is_answer(event, request, command)

    def _is_missing(self, event: e.Event) -> bool:
        return isinstance(event, e.Trained) and event.model in self.missing

    def _add_event(self, time: float, event: e.Event) -> None:
        # These events lead to no decision.
        quiet = isinstance(event, e.Excluded | e.Included | e.Forked)
        seen = apply_event(self.state, event)
        rules = self.rules(self.config)
        commands = () if quiet else decide(seen, event, rules)
        for command in commands:
            recorded = self._recorded.get(command.name, command)
            self._diverged |= not identical_commands(recorded, command)
        self.state = apply_commands(seen, commands)
        self.turns.append(ContinuedTurn(time, e.Turn(event, commands)))


def leftover_turns(records: Iterable[SavedRecord]) -> Iterator[ContinuedTurn]:
    """Yield `Restored` records for the answers that fit no open command."""
    for item in records:
        event = item.event
        if not isinstance(event, _BY_HAND | e.Opened | e.Restored):
            yield ContinuedTurn(item.time, e.Turn(e.Restored(event, item.asked)))


def needed_models(state: LoopState) -> frozenset[str]:
    """Return the ids of the models that the state needs to continue."""
    models = {
        state.generations.model,
        *(summary.model for summary in state.generations.summaries.values()),
    }
    for command in state.open.values():
        if isinstance(command, Explore):
            models.add(command.model)
        if isinstance(command, Train):
            models.add(command.parent)
    return frozenset(model for model in models if model is not None)


class ModelSource(Protocol):
    """A store in which models can be looked up."""

    def model(self, model_id: str) -> bytes:
        """Return the blob of a model; StoreError where it is absent or damaged."""
        ...


class KeptAnswers:
    """The answers of `Restored` records, found by the commands that they answer."""

    def __init__(self, history: History, models: ModelSource) -> None:
        self._history = history
        self._models = models
        self._places = {
            event.answer.name: entry.seq for entry, event in history.of_kind(e.Restored)
        }

    def find(self, command: Command) -> e.Answer | e.TaskLost | None:
        """Return the answer to exactly this command, None without one."""
        seq = self._places.get(command.name)
        if seq is None:
            return None
        (entry,) = self._history.select([seq])
        event = entry.turn.event
        assert isinstance(event, e.Restored)
        fits = is_answer(event.answer, event.asked, command)
        return event.answer if fits and self._usable(event.answer) else None

    def _usable(self, answer: e.Answer | e.TaskLost) -> bool:
        if isinstance(answer, e.Trained):
            with contextlib.suppress(StoreError):
                return bool(self._models.model(answer.model))
            return False
        return not isinstance(answer, e.TaskLost)


def is_answer(
    answer: e.Answer | e.TaskLost, request: Command | None, command: Command
) -> bool:
    """Return True if an answer to the command `asked` also answers `command`.

    The name of a label is its level and the id of its frame, which determine it. Any
    other command must be identical to the bit.
    """
    if answer.name != command.name:
        return False
    if isinstance(command, LabelFrame):
        return True
    return request is not None and identical_commands(request, command)
