"""The refinement of a generation by cheap labels. Pure.

Flagged frames get their cheap label first. Where there are enough of them, the
generation that found them is trained at test time on these labels, as a generation of
its own, and explores again: what a cheap label mends needs no expensive one. It is
refined once; the next generation is trained, on all labels.
"""

from dataclasses import replace

from alloop.core.records import Candidate
from alloop.loop.commands import Train
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState


def refine_command(state: LoopState, rules: Rules) -> tuple[Train, ...]:
    """Return the refinement of the generation that explored, none where none is due."""
    if rules.refine is None or state.generations.refined == state.generations.count:
        return ()
    doubted = rules.barred_doubts("cheap")
    labelled = set(state.labels.trained_on("cheap", doubted))
    flagged = {
        x.frame for x in state.labels.recent if x.purpose == "flagged"
    } & labelled
    if len(flagged & _surprising(state)) < rules.refine.frames:
        return ()
    before = replace(
        state, labels=replace(state.labels, recent=())
    )  # what the generation has learned
    costly = rules.barred_doubts("expensive")
    test = state.labels.validation_frames(costly)
    if not test:
        return ()
    heldout = state.labels.held_out(state.seed, rules.heldout, doubted)
    command = Train(
        generation=state.generations.count + 1,
        cheap=tuple(sorted(labelled - set(heldout))),
        expensive=before.labels.trained_on("expensive", costly),
        test=test,
        parent=state.generations.model,
        heldout=heldout,
        refine=tuple(sorted(flagged)),
        parent_accepted=state.generations.model_accepted,
    )
    return (command,)


def explorations_left(state: LoopState, rounds: int) -> int:
    """Return the explorations among which the cheap labels left are shared.

    rounds: those that are left and end in a training. Each may have one before it that
    ends in a refinement, except after one.
    """
    refined = state.generations.refined == state.generations.count > 0
    return 2 * rounds - refined


def _surprising(state: LoopState) -> set[str]:
    """Return the candidates of the round above the threshold or from a guard rail."""
    return {
        candidate.frame.id
        for piece in state.exploration.pieces.values()
        for candidate in (*piece.candidates, *piece.controls)
        if _is_surprising(candidate, state.exploration.threshold)
    }


def _is_surprising(candidate: Candidate, threshold: float | None) -> bool:
    if candidate.guard is not None:
        return True
    return threshold is not None and candidate.surprise > threshold
