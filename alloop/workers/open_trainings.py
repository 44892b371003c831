"""Trainings of a generation that run as several tasks side by side.

A scorer such as a committee asks for further trainings. Each is a task of its own, the
generation's is another, and one more fits the scorer once all are there. Each task
resumes from its own states after a kill.
"""

from dataclasses import dataclass, field, replace

from alloop.core.roles import Scorer
from alloop.evaluation import member_numbers
from alloop.loop.commands import Train
from alloop.workers.pools import Task
from alloop.workers.tasks import MemberResult
from alloop.workers.time_limits import TaskSpan


@dataclass(slots=True, eq=False)
class _OpenTraining:
    """The command's task while it is open, None after a loss, and the results so far.

    Results do not depend on the attempt that gave them.
    """

    task: Task | None
    results: dict[int, MemberResult] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class OpenTrainings:
    """The trainings that are split into tasks, until all their potentials are there."""

    scorer: Scorer
    _open: dict[str, _OpenTraining] = field(default_factory=dict)

    def split(self, task: Task) -> tuple[Task, ...]:
        """Return the tasks to submit for this one: itself where it is not split."""
        numbers = member_numbers(self.scorer)
        if not numbers or not isinstance(task.command, Train) or task.is_split:
            return (task,)
        if task.command.refine:  # nothing is trained anew but the scorer's own
            return (task,)
        training = self._open.setdefault(task.command.name, _OpenTraining(task))
        training.task = task
        missing = [number for number in numbers if number not in training.results]
        if not missing:
            return (self._whole(training, task),)
        return tuple(
            replace(task, data=replace(task.data, member=number)) for number in missing
        )

    def add(self, result: MemberResult) -> Task | None:
        """Keep a result; return the task that needs all of them once they are there."""
        training, number = self._open.get(result.name), result.trained.number
        if training is None or number in training.results:
            return None
        training.results[number] = result
        numbers = set(member_numbers(self.scorer))
        if training.task is None or set(training.results) != numbers:
            return None
        return self._whole(training, training.task)

    def is_news(self, lost: Task) -> bool:
        """Return False for a loss in an attempt of which one was reported already."""
        if not lost.is_split:
            return True
        training = self._open.get(lost.command.name)
        if training is None or training.task is None:
            return False
        if training.task.attempt != lost.attempt:
            return False
        training.task = None
        return True

    def close(self, name: str) -> None:
        """Forget a training that has ended."""
        self._open.pop(name, None)

    def _whole(self, training: _OpenTraining, task: Task) -> Task:
        results = tuple(training.results[n] for n in sorted(training.results))
        trained = tuple(result.trained for result in results)
        timings = tuple(result.timing for result in results)
        data = replace(task.data, trained=trained, timings=timings)
        return replace(task, data=data, span=TaskSpan())  # the trainings took the time
