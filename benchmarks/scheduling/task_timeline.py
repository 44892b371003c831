"""Timelines of a campaign's tasks, as measured and as simulated without overhead.

They are what `benchmarks.scheduling.utilisation` computes with.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, Stop
from alloop.loop.policy import decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.workers.pools import Task

UNLIMITED = 10**9  # workers: only what waits for one another takes time


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task: when it ran, s, and the CPU seconds spent inside its work."""

    started: float
    ended: float
    cpu_seconds: float


@dataclass(slots=True)
class Timeline:
    """The tasks that ran, and the time of each round's first exploration.

    whole: True where the figures are of the whole campaign, not of its steady rounds.
    """

    whole: bool = False
    tasks: list[TaskRun] = field(default_factory=list)
    rounds: dict[int, float] = field(default_factory=dict)

    def record_commands(self, commands: tuple[Command, ...], now: float) -> None:
        """Record the commands of a time."""
        for command in commands:
            if isinstance(command, Explore):
                self.rounds.setdefault(command.round, now)

    @property
    def bounds(self) -> tuple[float, float]:
        """The time at which the steady rounds begin and end, s."""
        if self.whole:
            return min(x.started for x in self.tasks), max(x.ended for x in self.tasks)
        return self.rounds[2], self.rounds[max(self.rounds)]

    @property
    def wall(self) -> float:
        """Seconds of the steady rounds."""
        begin, end = self.bounds
        return end - begin

    @property
    def work(self) -> float:
        """Seconds in which tasks ran in the steady rounds."""
        return sum(within for within, _ in self.steady())

    def steady(self) -> Iterator[tuple[float, float]]:
        """Yield seconds and CPU seconds of each task in the steady rounds."""
        begin, end = self.bounds
        for task in self.tasks:
            within = min(task.ended, end) - max(task.started, begin)
            if within > 0:
                yield within, task.cpu_seconds * within / (task.ended - task.started)


def useful_seconds(event: e.Event) -> float:
    """Return the CPU seconds in PySCF (or its toy), in training or in MD."""
    match event:
        case e.Labelled(label=label):
            return label.cpu_seconds
        case e.NotLabelled(unlabelled=unlabelled):
            return unlabelled.cpu_seconds
        case e.Rechecked(noise=noise):
            return noise.cpu_seconds
    return float(getattr(event, "timing", e.Timing()).cpu_seconds)


def measured_timeline(history: History, *, whole: bool = False) -> Timeline:
    """Return the timeline that the journal holds."""
    timeline = Timeline(whole)
    for entry, event in history.events():
        if isinstance(event, e.Answer) and task_seconds(event) > 0:
            timing = event.timing
            timeline.tasks.append(
                TaskRun(timing.started, timing.ended, useful_seconds(event))
            )
        timeline.record_commands(entry.turn.commands, entry.time)
    return timeline


def simulated_timeline(
    history: History, rules: Rules, workers: int, *, whole: bool = False
) -> Timeline:
    """Return the timeline of the same tasks started without any overhead.

    The campaign runs again by its own rules: each task gets the answer that it got, as
    long after its start as it took, and nothing else takes time.
    """
    answers = {x.name: x for _, x in history.events() if isinstance(x, e.Answer)}
    timeline, now, order, running = Timeline(whole), 0.0, count(), 0
    state = LoopState()
    queue: list[tuple[float, int, e.Answer]] = []
    ends: list[tuple[float, int, e.Answer]] = []
    events: list[e.Event] = [history.opened]
    while events or ends:
        if not events:
            now, _, event = heapq.heappop(ends)
            running -= 1
            events = [event]
        seen = apply_event(state, events[0])
        commands = decide(seen, events.pop(0), rules)
        state = apply_commands(seen, commands)
        timeline.record_commands(commands, now)
        for command in (x for x in commands if not isinstance(x, Stop)):
            answer = answers[command.name]
            seconds = task_seconds(answer)
            if seconds == 0:  # the driver answered
                events.append(answer)
                continue
            task = Task(command, 1, seconds=seconds)
            heapq.heappush(queue, (-task.priority, next(order), answer))
        while queue and running < workers and not events:
            _, _, answer = heapq.heappop(queue)
            end = now + task_seconds(answer)
            timeline.tasks.append(TaskRun(now, end, useful_seconds(answer)))
            heapq.heappush(ends, (end, next(order), answer))
            running += 1
    return timeline


def task_seconds(event: e.Event) -> float:
    """Return the seconds that the event's task took, 0 where there was none."""
    timing = getattr(event, "timing", e.Timing())
    return float(timing.ended - timing.started)
