"""Frames proposed by MD, with the model's prediction before any label came.

Proposals are many and large: they are read one exploration at a time, and none is kept.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from alloop.core.frame import FrameId
from alloop.core.records import Candidate, Label
from alloop.history.reader import History
from alloop.loop import events as e


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A frame that a generation proposed, with its prediction made before any label.

    round 0 and generation 0 where the exploration is not in the journal.
    """

    candidate: Candidate
    generation: int
    round: int
    control: bool


def first_proposals(history: History, wanted: Container[FrameId]) -> Iterator[Proposal]:
    """Yield the first proposals of these frames, in order; reads all explorations.

    A first proposal was made before any label.
    """
    seen: set[FrameId] = set()
    for _, event in history.of_kind(e.Explored):
        for proposal in exploration_proposals(history, event):
            frame = proposal.candidate.frame.id
            if frame in wanted and frame not in seen:
                seen.add(frame)
                yield proposal


def exploration_proposals(history: History, event: e.Explored) -> Iterator[Proposal]:
    """Yield the proposals of one exploration."""
    asked, name = history.chronicle.explorers, event.name
    round_ = int(name.split("/")[1]) if name in asked else 0
    generation = asked.get(name, 0)
    for control, found in ((False, event.candidates), (True, event.controls)):
        for candidate in found:
            yield Proposal(candidate, generation, round_, control)


def labels_by_frame(history: History, fidelity: str) -> Mapping[FrameId, Label]:
    """Return the labels of the fidelity, by frame."""
    wanted = history.opened.levels.get(fidelity)
    return {
        frame: label
        for (level, frame), label in history.ledger.labels.items()
        if level == wanted and isinstance(label, Label)
    }


def control_frames(history: History) -> frozenset[FrameId]:
    """Return the frames that were chosen at random, whatever their surprise."""
    told, open_ = history.chronicle.told, history.chronicle.questions.values()
    answered = {x.frame.id for x in told if x.purpose == "control"}
    asked = (x.command for x in open_)
    return frozenset(answered | {x.frame.id for x in asked if x.purpose == "control"})
