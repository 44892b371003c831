"""The circuit breaker: failures of one kind of task pause a run. Pure.

It counts the answers of one run in the order in which they arrive, so it decides
nothing in the loop: it ends the run as Ctrl-C does, and a resumed campaign ends as one
that was never paused.
"""

from collections.abc import Mapping
from typing import TypeAlias

from alloop.core.text import plural
from alloop.loop import events as e
from alloop.loop.commands import Command, LabelFrame, Recheck, Train, TrainPart

Outcomes: TypeAlias = Mapping[str, tuple[bool, ...]]  # by kind of task, oldest first
ENOUGH = 10  # answers of a kind before its failures say anything


def with_outcome(
    outcomes: Outcomes,
    event: e.Event,
    command: Command | None,
    window: int,
) -> Outcomes:
    """Return the last outcomes by kind of task, with the one that an event tells.

    command: that the event answers, None for one that answers nothing. Labels from a
    cache cost nothing and are not counted.
    """
    if command is None or isinstance(event, e.Unasked | e.Priced):
        return outcomes
    if getattr(event, "cached", False):
        return outcomes
    kind = task_kind(command)
    good = not isinstance(event, e.NotLabelled | e.TaskLost)
    return {**outcomes, kind: (*outcomes.get(kind, ()), good)[-window:]}


def task_kind(command: Command) -> str:
    """Return the kind of task whose failures are counted together, in the singular."""
    match command:
        case LabelFrame(fidelity=fidelity):
            return f"{fidelity} label"
        case Train() | TrainPart():
            return "training"
        case Recheck():
            return "recheck"
        case _:
            return "piece of MD"


def failing_kinds(
    outcomes: Outcomes, share: float | None, window: int
) -> dict[str, tuple[int, int]]:
    """Return the kinds of task of whose last answers at least a share are failures.

    The values are failures and answers. Fewer than ten answers say nothing.
    """
    if share is None:
        return {}
    counts = {
        kind: (last[-window:].count(False), len(last[-window:]))
        for kind, last in outcomes.items()
    }
    return {
        kind: (failed, of)
        for kind, (failed, of) in counts.items()
        if failed and of >= min(ENOUGH, window) and failed >= share * of
    }


def pause_reason(
    outcomes: Outcomes, event: e.Event, share: float | None, window: int
) -> str | None:
    """Return why a run pauses after an event, in words, or None.

    outcomes: with that of the event. Only a failure pauses.
    """
    if not isinstance(event, e.NotLabelled | e.TaskLost):
        return None
    for kind, (failed, of) in failing_kinds(outcomes, share, window).items():
        if not outcomes[kind][-1]:
            return (
                f"{failed} of the last {plural(of, kind)} failed, the last one by "
                f"{_cause(event)}"
            )
    return None


def _cause(event: e.NotLabelled | e.TaskLost) -> str:
    if isinstance(event, e.TaskLost):
        return event.reason
    failure, message = event.unlabelled.failure, event.unlabelled.message
    what = failure.name.lower().replace("_", " ")
    return f"{what} ({message})" if message else what
