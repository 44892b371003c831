"""Entries of all labels and tasks of a journal, and requests for lost labels. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from alloop.core.levels import Fidelity
from alloop.core.records import Label
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry, TaskEntry
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.loop.state import Exclusion


def label_entries(history: History) -> tuple[LabelEntry, ...]:
    """Return all labels and failures, in the order of the journal.

    A label that the user supplied has purpose "given" or "test"; one that was lost too
    often has `Failure.LOST`. One that was requested again has a second entry. The last
    ones are those that a repair kept (`Restored`); no record requested them.
    """
    excluded = history.state.labels.excluded
    labels = (*history.record_index.labels, *_restored_labels(history))
    if not excluded:
        return tuple(labels)
    return tuple(
        replace(label, excluded=_is_out(excluded, label.frame.id, label.fidelity))
        for label in labels
    )


def _restored_labels(history: History) -> Iterator[LabelEntry]:
    """Yield labels that a repair kept and that were not requested again since."""
    keys = {(x.level, x.frame.id) for x in history.record_index.labels}
    for entry, event in history.of_kind(e.Restored):
        request, answer = event.asked, event.answer
        if isinstance(answer, e.Labelled) and isinstance(request, LabelFrame):
            if (request.level, request.frame.id) in keys:
                continue
            keys.add((request.level, request.frame.id))
            yield LabelEntry(
                request=request,
                asked=-1,
                answered=entry.seq,
                record=answer.label,
                timing=answer.timing,
                cached=answer.cached,
            )


def task_entries(history: History) -> Iterator[TaskEntry]:
    """Yield all tasks and other records, also labels, in the order of the journal."""
    labels = (
        TaskEntry(x.answered, _task_kind(x), x.request.name, x.timing)
        for x in history.record_index.labels
        if not x.is_given
    )
    yield from sorted([*labels, *history.record_index.tasks], key=lambda task: task.seq)


def _task_kind(label: LabelEntry) -> str:
    return "Labelled" if isinstance(label.record, Label) else "NotLabelled"


def _is_out(excluded: frozenset[Exclusion], frame: str, fidelity: Fidelity) -> bool:
    return bool(excluded & {(frame, fidelity), (frame, "all")})


def lost_labels(history: History) -> tuple[LabelFrame, ...]:
    """Return the commands of labels lost to a limit, a crash or a lost worker.

    Sorted by name; without labels that were made since, are under way or were excluded
    by hand.
    """
    last = {
        label.request.name: label
        for label in label_entries(history)
        if not label.is_given
    }
    busy = {*history.state.open, *history.state.labels.retries}
    return tuple(
        label.request
        for name, label in sorted(last.items())
        if not (label.record.is_permanent or label.excluded or name in busy)
    )
