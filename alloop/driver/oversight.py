"""Oversight of a run: notices that are due, tasks that stall, and the disk."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alloop.config import Setup
from alloop.config.sections.notify import Notify
from alloop.core.errors import AlloopError, Interrupted
from alloop.core.records import Topic
from alloop.core.text import plural
from alloop.driver.disk import disk_problem, disk_space, nearly_full, round_need
from alloop.driver.failure_rates import Outcomes, pause_reason, with_outcome
from alloop.driver.notices import Notice, NoticeFile, failure_notices, state_notices
from alloop.driver.receivers import Heartbeat, Sender, make_receivers
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore
from alloop.loop.state import LoopState
from alloop.workers.task_times import TaskTimes

_LOOK = 60.0  # s between two looks at the disk
_SHORTEST_STALL = 600.0  # s: shorter silence is told by nobody
_DEFAULTS = Notify.model_construct()


@dataclass(slots=True)
class Oversight:
    """Tells the notices of a run, and pauses it, beside the decisions of the loop.

    identity: returns that of the campaign, for the ids of its notices. seq: the last
    record. warn: receives sentences for the log. `paused` is the reason to pause, once
    there is one.
    """

    setup: Setup
    identity: Callable[[], str]
    seq: int
    warn: Callable[[str], None]
    paused: str | None = None
    _outcomes: Outcomes = field(default_factory=dict)
    _open: Mapping[str, Command] = field(default_factory=dict)  # before the turn
    _file: NoticeFile = field(init=False)
    _sender: Sender = field(init=False)
    _heartbeat: Heartbeat = field(init=False)
    _looked: float = field(default_factory=time.monotonic)
    _answered: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        setup = self.setup
        self._file = NoticeFile(setup.store, setup.name, self.identity)
        notify, sends, watcher = setup.plan.notify, {}, None
        if notify is not None:
            receivers = make_receivers(notify, os.environ)
            sends = dict(receivers.sends)
            for problem in receivers.problems:
                self.warn(problem)
            watcher = receivers.heartbeat
        self._sender = Sender(sends, self._file)
        self._heartbeat = Heartbeat(watcher, self._notify.beat)

    @property
    def _notify(self) -> Notify:
        return self.setup.plan.notify or _DEFAULTS

    @contextlib.contextmanager
    def of_run(
        self, state: Callable[[], LoopState], asked: Callable[[], bool]
    ) -> Iterator[None]:
        """Tell why the run within ends, whatever ends it."""
        try:
            self._begin(state())
            yield
        except BaseException as error:
            self._end(state(), error, asked=False)
            raise
        self._end(state(), None, asked=asked())

    def _begin(self, state: LoopState) -> None:
        """Tell what a killed driver could not; raise Interrupted on a full disk."""
        self._open = state.open
        if self.seq >= 0:
            self._tell(self._due(state), state)
        self._look_at_disk(state, starts_round=False)
        if self.paused is not None:
            raise Interrupted(self.paused)

    def note_turn(self, state: LoopState, turn: e.Turn) -> None:
        """Take notice of a committed turn."""
        self.seq += 1
        if not isinstance(turn.event, e.Unasked):
            self._answered = time.monotonic()
        self._tell(self._due(state), state)
        self._note_outcome(state, turn.event)
        self._open = state.open
        if any(isinstance(x, Explore) and not x.piece for x in turn.commands):
            self._look_at_disk(state, starts_round=True)

    def look(self, state: LoopState, times: TaskTimes) -> None:
        """Look for a stall and at the disk now and then; pass on what was not taken."""
        now = time.monotonic()
        self._heartbeat.beat()
        for problem in (*self._sender.problems(), *self._heartbeat.problems()):
            self.warn(problem)
        silence = now - self._answered
        if silence > _SHORTEST_STALL and self._is_stalled(state, times, silence):
            text = (
                f"no answer for {silence / 60:.0f} min, with "
                f"{plural(len(state.open), 'task')} open, {min(state.open)} among them"
            )
            self._tell([Notice("stalled", f"stalled/{self.seq}", text)], state)
        if now - self._looked > _LOOK:
            self._look_at_disk(state, starts_round=False)

    def _end(
        self, state: LoopState, error: BaseException | None, *, asked: bool
    ) -> None:
        """Tell why the run ends, if the state does not, and wait a second at most.

        error: that ends it; asked: somebody asked for the end.
        """
        if not state.finished and self.paused is None:
            reason = _end_reason(error, asked, len(state.open))
            self._tell(
                [Notice("stopped", f"stopped/{self.seq}/{reason}", reason)], state
            )
        self._sender.close()
        for problem in self._sender.problems():
            self.warn(problem)

    def _due(self, state: LoopState) -> Iterable[Notice]:
        return state_notices(state, self.setup.rules, self.seq)

    def _note_outcome(self, state: LoopState, event: e.Event) -> None:
        """Tell a rate of failures, and pause at a higher one."""
        limits, number = self.setup.plan.limits, state.exploration.round
        share, window = limits.failures, limits.failure_window
        command = self._open.get(getattr(event, "name", ""))
        self._outcomes = with_outcome(self._outcomes, event, command, window)
        self._tell(
            failure_notices(self._outcomes, self._notify.failures, window, number),
            state,
        )
        reason = pause_reason(self._outcomes, event, share, window)
        if reason is not None and not state.finished:
            self._pause(f"{reason}; mend the cause, and run again", "stopped", state)

    def _pause(self, reason: str, about: Topic, state: LoopState) -> None:
        self.paused = f"paused: {reason}"
        key = f"paused/{self.seq}/{reason}"
        self._tell([Notice(about, key, self.paused)], state)

    def _is_stalled(self, state: LoopState, times: TaskTimes, silence: float) -> bool:
        """Return True if all open tasks should have been answered long ago."""
        medians = [times.median(command) for command in state.open.values()]
        durations = [x for x in medians if x is not None]
        if not durations or len(durations) < len(medians):
            return False
        return silence > self._notify.stalled * max(durations)

    def _look_at_disk(self, state: LoopState, *, starts_round: bool) -> None:
        limits, self._looked = self.setup.plan.limits, time.monotonic()
        try:
            space = disk_space(self.setup.store)
        except OSError:
            return
        need = round_need(state, space) if starts_round else 0.0
        told = nearly_full(space, limits.disk)
        if told is not None:
            self._tell([Notice("disk", f"disk/{limits.disk}", told)], state)
        problem = disk_problem(space, need, limits.disk, limits.disk_free)
        if problem is not None:
            self._pause(f"{problem}; free some, and run again", "disk", state)

    def _tell(self, notices: Iterable[Notice], state: LoopState) -> None:
        for notice in notices:
            message = self._file.add(notice, _facts(state))
            if message is not None and notice.about in self._notify.about:
                self._sender.send(message)


def _facts(state: LoopState) -> dict[str, Any]:
    return {
        "round": state.exploration.round,
        "generation": state.generations.count,
        "labels": {x: state.labels.used(x) for x in ("cheap", "expensive")},
        "cpu_hours": state.labels.cpu_seconds() / 3600,
    }


def _end_reason(error: BaseException | None, asked: bool, tasks: int) -> str:
    if isinstance(error, AlloopError):
        return str(error)
    if error is not None and not isinstance(error, KeyboardInterrupt):
        return f"an error ended the run: {type(error).__name__}: {error}"
    if asked or error is not None:
        return f"stopped as asked, with {plural(tasks, 'task')} open"
    return f"the time of this run is over, with {plural(tasks, 'task')} open"
