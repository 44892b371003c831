"""One frame's story, the whole log, and where a campaign stands: from the journal."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np

from alloop.core.atoms import formula
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.history import Entry, History
from alloop.loop.told import Told, told
from alloop.report.evidence import Proposal, control_frames, first_proposals
from alloop.report.facts import latest, title, trainings
from alloop.report.phrases import sentence
from alloop.report.status import status as status
from alloop.report.tale import tale
from alloop.report.words import spans


def log_lines(history: History) -> Iterator[str]:
    """One line for each journal record: number, local time, what happened."""
    levels = history.state.levels
    for entry in history.entries:
        yield f"{entry.seq:>6}  {_local(entry.time)}  {sentence(entry.turn, levels)}"


def why(history: History, prefix: str) -> list[str]:
    """The story of the frame whose id begins so, a sentence a line.

    Raises InputError where no frame, or several, have such an id.
    """
    frame = _find(history, prefix)
    proposal = first_proposals(history).get(frame.id)
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


def _local(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M:%S}"


def _find(history: History, prefix: str) -> Frame:
    known = {frame.id: frame for frame in _frames(history)}
    found = [key for key in known if key.startswith(prefix)]
    if len(found) != 1:
        what = "no frame" if not found else f"{len(found)} frames"
        raise InputError(
            f"expected the beginning of one frame's id, `{prefix}` fits {what}; "
            "`alloop log STORE` shows the ids"
        )
    return known[found[0]]


def _frames(history: History) -> Iterator[Frame]:
    """Every frame that the journal names, labelled or not."""
    yield from history.ledger.frames.values()
    for _, event in history.events():
        match event:
            case e.Prepared():
                yield event.minimum
                yield from event.seeds
            case e.Sampled():
                yield from event.frames
            case e.Explored():
                yield from (x.frame for x in (*event.candidates, *event.controls))


def _introduced(frame: Frame) -> str:
    charge = f", charge {frame.charge:+d}" if frame.charge else ""
    spin = f", spin {frame.spin} (2S)" if frame.spin else ""
    return f"Frame {frame.id}: {formula(frame)}, {len(frame)} atoms{charge}{spin}."


def _born(
    history: History, frame: FrameId, proposal: Proposal | None, labels: list[Told]
) -> Iterator[str]:
    if proposal is not None:
        yield _proposed(proposal, frame in control_frames(history))
        yield _surprise(history, proposal)
        return
    if any(label.brought for label in labels):
        yield "Brought by the user."
    for _, event in history.events():
        match event:
            case e.Prepared() if frame == event.minimum.id:
                yield "The minimum of its molecule at the cheap level."
            case e.Prepared() if frame in {x.id for x in event.seeds}:
                yield "Drawn around the minimum of the cheap level, as a first frame."
            case e.Sampled() if frame in {x.id for x in event.frames}:
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
    surprise = proposal.candidate.surprise
    threshold = next(
        (x.threshold for x in history.trained() if x.generation == proposal.generation),
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
    done = {event.name for event in history.trained()}
    asked = [x for name, x in trainings(history).items() if name in done]
    for fidelity in ("cheap", "expensive", "test"):
        found = [x.generation for x in asked if frame in getattr(x, fidelity)]
        if not found:
            continue
        if fidelity == "test":
            yield f"In the test set, to measure {_generations(found)}."
        else:
            yield f"Its {fidelity} label taught {_generations(found)}."
    held = [x.generation for x in asked if frame in x.heldout]
    if held:
        yield (
            f"Held out from the training of {_generations(held)}: it calibrates their "
            "surprise."
        )


def _generations(numbers: list[int]) -> str:
    return f"generation{'s' * (len(numbers) > 1)} {spans(numbers)}"


def _by_hand(history: History, frame: FrameId) -> Iterator[str]:
    for entry, event in history.events():
        match event:
            case e.Excluded() if event.frame == frame:
                yield _taken_out(entry, event)
            case e.Retried(labels=labels):
                for command in labels:
                    if command.frame.id == frame:
                        what = f"Its {command.fidelity} label was asked for again"
                        yield f"{what} by hand on {_local(entry.time)}."


def _taken_out(entry: Entry, event: e.Excluded) -> str:
    what = f"Its {event.fidelity} label was" if event.fidelity else "It was"
    return f"{what} excluded by hand on {_local(entry.time)}: {event.reason}."
