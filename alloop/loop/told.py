"""The story of each label and of each task, as the journal tells them. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from alloop.core.records import Label
from alloop.loop.chronicle import Deed, Told
from alloop.loop.history import History


def told(history: History) -> tuple[Told, ...]:
    """All labels and failures, in the order in which the journal got them.

    A label that the user brought has purpose "given", or "test"; one that was lost too
    often is told as `Failure.LOST`. One that was asked for again is told again.
    """
    excluded, labels = history.state.excluded, history.chronicle.told
    if not excluded:
        return tuple(labels)
    return tuple(
        replace(label, excluded=_is_out(excluded, label.frame.id, label.fidelity))
        for label in labels
    )


def deeds(history: History) -> Iterator[Deed]:
    """All that ran or was done, labels too, in the order of the journal."""
    labels = (
        Deed(x.answered, _kind(x), f"label/{x.level}/{x.frame.id}", x.timing)
        for x in history.chronicle.told
        if not x.brought
    )
    yield from sorted([*labels, *history.chronicle.deeds], key=lambda deed: deed.seq)


def _kind(label: Told) -> str:
    return "Labelled" if isinstance(label.record, Label) else "NotLabelled"


def _is_out(excluded: frozenset[tuple[str, str]], frame: str, fidelity: str) -> bool:
    return bool(excluded & {(frame, fidelity), (frame, "all")})
