"""The outcomes of labels in the state of the loop. Pure."""

from dataclasses import replace
from math import isfinite

import numpy as np

from alloop.core import doubts
from alloop.core.records import Candidate
from alloop.core.splits import EXAMINATION
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.loop.state import TEST, Exclusion, LabelState, LoopState, label_blocks


def given_entries(event: e.Opened) -> tuple[LabelState, ...]:
    """Return the entries of the labels that the user supplied."""
    return tuple(
        LabelState(
            frame=given.frame.id,
            fidelity=given.fidelity,
            purpose=TEST if given.test else "given",
            molecule=given.molecule,
            good=True,
            cpu_seconds=0.0,
            doubts=doubts.doubts_of_details(given.label.details),
            supplied=True,
        )
        for given in event.given
    )


def apply_labelled(state: LoopState, event: e.Labelled | e.NotLabelled) -> LoopState:
    """Return the state after a label was made, or could not be made."""
    command = state.open.get(event.name)
    if not isinstance(command, LabelFrame):
        return state
    if isinstance(event, e.NotLabelled):
        return record_entry(
            state, command, failed_entry(command, event.unlabelled.cpu_seconds)
        )
    ratio, held = _limit_ratio(state, event, command)
    entry = replace(
        failed_entry(command, event.label.cpu_seconds),
        good=True,
        bias=_label_bias(state, event, command),
        limit_ratio=ratio,
        limit_held=held,
        doubts=doubts.doubts_of_details(event.label.details),
    )
    return record_entry(state, command, entry)


def apply_retried(state: LoopState, event: e.Retried) -> LoopState:
    """Return the state in which the labels wait until the open step is resolved.

    A campaign that had finished goes on.
    """
    labels = {command.name: command for command in event.labels}
    return replace(
        state,
        retries={**state.retries, **labels},
        attempts={k: v for k, v in state.attempts.items() if k not in labels},
        finished=None,
    )


def record_entry(state: LoopState, command: LabelFrame, entry: LabelState) -> LoopState:
    """Return the state with the outcome of a label.

    A label that was asked for again takes the place of its failure, so that it counts
    once.
    """
    if command.name not in state.retries:
        return replace(state, recent=(*state.recent, entry))
    return replace(
        state,
        blocks=label_blocks(_replace_entry(x.entries, entry) for x in state.blocks),
        recent=_replace_entry(state.recent, entry),
        retries={k: v for k, v in state.retries.items() if k != command.name},
        unlearned=state.unlearned or (entry.good and entry.purpose != EXAMINATION),
    )


def failed_entry(command: LabelFrame, cpu_seconds: float = 0.0) -> LabelState:
    """Return the entry of a label that was asked for and not made."""
    return LabelState(
        frame=command.frame.id,
        fidelity=command.fidelity,
        purpose=command.purpose,
        molecule=command.molecule,
        good=False,
        cpu_seconds=cpu_seconds,
    )


def _replace_entry(
    block: tuple[LabelState, ...], entry: LabelState
) -> tuple[LabelState, ...]:
    """Return the block with the entry in place of its failure.

    The CPU seconds of both add up.
    """
    key = (entry.frame, entry.fidelity, False)
    places = [i for i, x in enumerate(block) if (x.frame, x.fidelity, x.good) == key]
    if not places:
        return block
    place = places[0]
    paid = block[place].cpu_seconds + entry.cpu_seconds
    return (*block[:place], replace(entry, cpu_seconds=paid), *block[place + 1 :])


def _label_bias(
    state: LoopState, event: e.Labelled, command: LabelFrame
) -> float | None:
    """Return ASTEROID's B, with the forces predicted before the label was made.

    None for an expensive label and where there is no such prediction.
    """
    if command.fidelity != "cheap":
        return None
    found = _candidate(state, command)
    if found is None:
        return None
    return float(np.abs(found.forces - event.label.forces).mean())


def _limit_ratio(
    state: LoopState, event: e.Labelled, command: LabelFrame
) -> tuple[float | None, bool | None]:
    """Return a control frame's largest force error over the limit promised for it.

    That is without the limit's factor; with it, whether the limit held. None for other
    frames, and where no limit was promised.
    """
    if (command.fidelity, command.purpose) != ("expensive", "control"):
        return None, None
    found = _candidate(state, command)
    summary = state.summaries.get(state.exploring_generation)
    limits = None if summary is None else summary.error_limits
    if found is None or limits is None or not isfinite(found.surprise):
        return None, None
    limit = limits.limit(found.surprise, found.frame)
    if not isfinite(limit):
        return None, None
    error = np.linalg.norm(found.forces - event.label.forces, axis=1).max()
    ratio = float(error) * limits.factor / limit
    return ratio, ratio <= limits.factor


def _candidate(state: LoopState, command: LabelFrame) -> Candidate | None:
    """Return the candidate whose label was asked for, None where it was not found."""
    for _, found in sorted(state.found.items(), key=lambda item: item[0]):
        for candidate in (*found.candidates, *found.controls):
            if candidate.frame.id == command.frame.id:
                return candidate
    return None


def apply_exclusion(state: LoopState, event: e.Excluded | e.Included) -> LoopState:
    """Return the state after a label was excluded or included by hand."""
    if isinstance(event, e.Excluded):
        pair: Exclusion = (event.frame, event.fidelity or "all")
        return replace(state, excluded=state.excluded | {pair})
    gone = {
        (frame, fidelity)
        for frame, fidelity in state.excluded
        if frame == event.frame and event.fidelity in (None, fidelity)
    }
    return replace(state, excluded=state.excluded - gone)
