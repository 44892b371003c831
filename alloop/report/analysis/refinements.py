"""Sentences on the refinements of generations by cheap labels of flagged frames."""

from collections.abc import Iterator, Sequence
from statistics import median

from alloop.core.records import Refinement
from alloop.core.text import plural
from alloop.history.reader import History


def refinement_sentences(history: History) -> tuple[str, ...]:
    """Return how often refinements were kept and what they changed, in sentences.

    None where nothing was refined.
    """
    found = [x.event.refinement for x in history.generations]
    refined = [x for x in found if x is not None]
    return tuple(_sentences(refined)) if refined else ()


def _sentences(refined: Sequence[Refinement]) -> Iterator[str]:
    kept = [x for x in refined if x.share]
    yield (
        f"{plural(len(refined), 'generation')} refined by cheap labels of flagged "
        f"frames, {len(kept)} of them kept."
    )
    if kept:
        cheap, held = (
            median(after / before for before, after in errors if before)
            for errors in ([x.cheap for x in kept], [x.held for x in kept])
        )
        yield (
            f"Where kept, the error on these labels became {cheap:.2f} times what it "
            f"was, that on held-out expensive ones {held:.2f} times (medians)."
        )
