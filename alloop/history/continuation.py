"""Continuation of a campaign, some of whose records are lost. Pure.

The records before the first lost one are kept as they are. The decisions after it are
made again, which gives the same commands where the rules are the same, and each whole
answer is applied once its command is open. An answer that fits no open command is kept
as `Restored`: a driver uses it when its command is issued.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from alloop.history.journal_codec import event_config, identical
from alloop.history.kept_answers import is_answer
from alloop.loop import events as e
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
    asked: e.Command | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ContinuedTurn:
    """A record of the repaired journal, and the time of its commit."""

    time: float
    turn: e.Turn


def saved_record(
    turns: Iterable[tuple[float, e.Turn]], before: Mapping[str, e.Command]
) -> Iterator[SavedRecord]:
    """Yield the events of whole records, with the commands that they answer.

    turns: (time, turn) after the first lost record, in order. before: the commands that
    were open there, by name.
    """
    asked = dict(before)
    for time, turn in turns:
        event = turn.event
        if isinstance(event, e.Restored):  # of an earlier repair
            yield SavedRecord(time, event.answer, event.asked)
        elif not isinstance(event, e.Opened):
            yield SavedRecord(time, event, asked.get(getattr(event, "name", "")))
        asked |= {command.name: command for command in turn.commands}


@dataclass(slots=True)
class Continuation:
    """A repaired journal under construction, from a state on.

    rules: makes the rules of a configuration (YAML text); config: the one in force.
    missing: ids of models that are lost, whose trainings must be done again. mended:
    the records so far.
    """

    state: LoopState
    config: str
    rules: Callable[[str], Rules]
    missing: Collection[str] = ()
    mended: list[ContinuedTurn] = field(default_factory=list)
    _recorded: dict[str, e.Command] = field(default_factory=dict)
    _diverged: bool = False

    def run(self, found: Iterable[SavedRecord]) -> list[SavedRecord]:
        """Apply all events that fit, in their order; return those left over."""
        left = list(found)
        self._recorded = {x.asked.name: x.asked for x in left if x.asked is not None}
        count = -1
        while len(left) != count:
            count = len(left)
            left = [each for each in left if not self._taken(each)]
        return left

    def begin(self, time: float, opened: e.Opened) -> None:
        """Restart a campaign whose first record is lost, with the event `opened`."""
        self._turn(time, opened)

    def _taken(self, item: SavedRecord) -> bool:
        event = item.event
        if isinstance(event, _BY_HAND):
            self.config = event_config(event) or self.config
            self._turn(item.time, event)
            return True
        if isinstance(event, e.Opened | e.Restored) or not self._fits(item):
            return False
        self._turn(item.time, event)
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
        asked = command if item.asked is None and not self._diverged else item.asked
        return is_answer(event, asked, command)

    def _is_missing(self, event: e.Event) -> bool:
        return isinstance(event, e.Trained) and event.model in self.missing

    def _turn(self, time: float, event: e.Event) -> None:
        # These events lead to no decision.
        quiet = isinstance(event, e.Excluded | e.Included | e.Forked)
        seen = apply_event(self.state, event)
        rules = self.rules(self.config)
        commands = () if quiet else decide(seen, event, rules)
        for command in commands:
            known = self._recorded.get(command.name, command)
            self._diverged |= not identical(known, command)
        self.state = apply_commands(seen, commands)
        self.mended.append(ContinuedTurn(time, e.Turn(event, commands)))


def leftover_turns(found: Iterable[SavedRecord]) -> Iterator[ContinuedTurn]:
    """Yield `Restored` records for the answers that fit no open command."""
    for item in found:
        event = item.event
        if not isinstance(event, _BY_HAND | e.Opened | e.Restored):
            yield ContinuedTurn(item.time, e.Turn(e.Restored(event, item.asked)))


def needed_models(state: LoopState) -> frozenset[str]:
    """Return the ids of the models that the state needs to continue."""
    found = {state.model, *(insight.model for insight in state.insights.values())}
    for command in state.open.values():
        if isinstance(command, e.Explore):
            found.add(command.model)
        if isinstance(command, e.Train):
            found.add(command.parent)
    return frozenset(model for model in found if model is not None)
