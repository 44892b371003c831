"""One frame's story, the whole log, and where a campaign stands: from the journal."""

from collections.abc import Iterator

import numpy as np

from alloop.core.atoms import formula
from alloop.core.frame import Frame, FrameId
from alloop.core.moments import local_time
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.chronicle import Told
from alloop.loop.finding import Sighting, find
from alloop.loop.history import Entry, History
from alloop.loop.told import told
from alloop.report.facts import latest, title, trainings
from alloop.report.phrases import sentence
from alloop.report.proposals import Proposal, control_frames, proposed
from alloop.report.tale import tale
from alloop.report.words import plural, spans

_ROLES = {
    "cheap": "Its cheap label taught {}.",
    "expensive": "Its expensive label taught {}.",
    "test": "In the test set, to measure {}.",
    "heldout": "Held out from the training of {}: it calibrates their surprise.",
}


def log_lines(history: History, last: int = 0) -> Iterator[str]:
    """One line for each journal record: number, local time, what happened.

    last: only so many records at the end; 0 for all.
    """
    levels = history.state.levels
    for entry in history.entries[-last:] if last else history.entries:
        told = sentence(entry.turn, levels)
        yield f"{entry.seq:>6}  {local_time(entry.time)}  {told}"


def why(history: History, prefix: str) -> list[str]:
    """The story of the frame whose id begins so, a sentence a line.

    Raises InputError where no frame, or several, have such an id.
    """
    found = find(history, prefix)
    frame, proposal = found.frame, _proposal(history, found)
    labels = [label for label in told(history) if label.frame.id == frame.id]
    last = latest(labels)
    lines = [_introduced(frame), *_born(history, frame.id, proposal, labels)]
    for label in labels:
        lines += tale(history, label, label in last)
    if proposal is not None:
        lines += _judged(history, proposal, labels)
    if not labels:
        lines.append("It was not chosen for a label.")
    lines += _learned(history, frame.id)
    lines += _by_hand(history, frame.id)
    return lines


def _proposal(history: History, found: Sighting) -> Proposal | None:
    if found.explored is None:
        return None
    made = proposed(history, found.explored)
    return next(x for x in made if x.candidate.frame.id == found.frame.id)


def _introduced(frame: Frame) -> str:
    charge = f", charge {frame.charge:+d}" if frame.charge else ""
    spin = f", spin {frame.spin} (2S)" if frame.spin else ""
    size = plural(len(frame), "atom")
    return f"Frame {frame.id}: {formula(frame)}, {size}{charge}{spin}."


def _born(
    history: History, frame: FrameId, proposal: Proposal | None, labels: list[Told]
) -> Iterator[str]:
    if proposal is not None:
        yield _proposed(proposal, frame in control_frames(history))
        yield _surprise(history, proposal)
        return
    if any(label.brought for label in labels):
        yield "Brought by the user."
    for _, prepared in history.of_kind(e.Prepared):
        if frame == prepared.minimum.id:
            yield "The minimum of its molecule at the cheap level."
        elif frame in {x.id for x in prepared.seeds}:
            yield "Drawn around the minimum of the cheap level, as a first frame."
    for _, sampled in history.of_kind(e.Sampled):
        if frame in {x.id for x in sampled.frames}:
            yield "Made by MD at the cheap level, for the frozen test set."


def _proposed(proposal: Proposal, control: bool) -> str:
    candidate = proposal.candidate
    origin = "control" if control else candidate.origin
    why = {
        "surprise": "among the most surprising frames there",
        "control": "drawn at random, whatever its surprise",
    }.get(origin, f"just before the guard rail `{origin}` stopped it")
    return (
        f"Born on walker {candidate.walker} at step {candidate.step}, in round "
        f"{proposal.round} on generation {proposal.generation}, {why}."
    )


def _surprise(history: History, proposal: Proposal) -> str:
    surprise, number = proposal.candidate.surprise, proposal.generation
    threshold = next(
        (x.threshold for _, x in history.generations if x.generation == number),
        None,
    )
    if threshold is None:
        return f"Its surprise was {surprise:.3g}; there was no calibrated threshold."
    side = "above" if surprise > threshold else "not above"
    return f"Its surprise was {surprise:.3g}, {side} the threshold of {threshold:.3g}."


def _judged(history: History, proposal: Proposal, labels: list[Told]) -> Iterator[str]:
    """How wrong the generation was that proposed it, once a label tells."""
    for label in labels:
        if not isinstance(label.record, Label):
            continue
        apart = proposal.candidate.forces - label.record.forces
        mean, worst = np.abs(apart).mean(), np.linalg.norm(apart, axis=1).max()
        who = f"Generation {proposal.generation}"
        if label.fidelity == "cheap":
            yield f"{who} differed from the cheap label by B = {mean:.4f} eV/Å."
        else:
            yield (
                f"{who} was wrong by {mean:.4f} eV/Å on average and by {worst:.4f} "
                f"eV/Å at the worst atom, against {title(history, label.fidelity)}."
            )


def _learned(history: History, frame: FrameId) -> Iterator[str]:
    done = {event.name for _, event in history.generations}
    lessons = [x for x in history.chronicle.lessons if x.name in done]
    found: dict[str, list[int]] = {role: [] for role in _ROLES}
    for asked in trainings(history, lessons):
        for role in _ROLES:
            if frame in getattr(asked, role):
                found[role].append(asked.generation)
    for role, said in _ROLES.items():
        if found[role]:
            yield said.format(_generations(found[role]))


def _generations(numbers: list[int]) -> str:
    return f"generation{'s' * (len(numbers) > 1)} {spans(numbers)}"


def _by_hand(history: History, frame: FrameId) -> Iterator[str]:
    deeds = history.chronicle.deeds
    numbers = [x.seq for x in deeds if x.kind in ("Excluded", "Retried")]
    for entry in history.pick(numbers):
        match entry.turn.event:
            case e.Excluded() as event if event.frame == frame:
                yield _taken_out(entry, event)
            case e.Retried(labels=labels):
                for command in labels:
                    if command.frame.id == frame:
                        what = f"Its {command.fidelity} label was asked for again"
                        yield f"{what} by hand on {local_time(entry.time)}."


def _taken_out(entry: Entry, event: e.Excluded) -> str:
    what = f"Its {event.fidelity} label was" if event.fidelity else "It was"
    return f"{what} excluded by hand on {local_time(entry.time)}: {event.reason}."
