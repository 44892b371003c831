"""Frames embedded in a page: structures and stories, limited in number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.frame import Frame, FrameId
from alloop.history.reader import History
from alloop.report.analysis.explorations import Explorations
from alloop.report.text.frame_text import stories

MOST_FRAMES, MOST_ATOMS, MOST_GENERATIONS = 1000, 30_000, 50


def carried_frames(
    history: History, brought: Explorations, wanted: Iterable[FrameId]
) -> dict[FrameId, Frame]:
    """Return the structures of the wanted frames, in order, up to the page's limits."""
    out: dict[FrameId, Frame] = {}
    atoms = 0
    for key in dict.fromkeys(wanted):
        frame = history.ledger.frames.get(key) or brought.stopping.get(key)
        if frame is None:
            continue
        atoms += len(frame)
        if len(out) == MOST_FRAMES or atoms > MOST_ATOMS:
            break
        out[key] = frame
    return out


def frame_cards(
    history: History, brought: Explorations, frames: Mapping[FrameId, Frame]
) -> dict[str, Any]:
    """Return JSON values of frames by the first 12 digits of their ids.

    Each has a title, elements, positions in mÅ, the cell in Å if periodic, and the
    story.
    """
    told = stories(history, frames.values(), brought.origins, MOST_GENERATIONS)
    return {key[:12]: _card(frame, told[key]) for key, frame in frames.items()}


def _card(frame: Frame, story: Sequence[str]) -> dict[str, Any]:
    card = {
        "t": f"{frame.id[:8]} · {hill_formula(frame)}",
        "s": [chemical_symbol(int(number)) for number in frame.numbers],
        "x": (1000.0 * frame.positions).round().astype(int).ravel().tolist(),
        "w": list(story),
    }
    return {**card, "c": frame.cell.round(4).tolist()} if any(frame.pbc) else card
