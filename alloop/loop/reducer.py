"""The state of the loop, a fold of the journal over (event, commands). Pure.

`next_state` is the only way to a new state. It consists of `apply_event` (what
happened) and `apply_commands` (what was decided because of it), since decisions are
taken between the two.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

import numpy as np

from alloop.core import doubts
from alloop.core.splits import EXAMINATION
from alloop.loop import events as e
from alloop.loop.state import (
    TEST,
    FoundCandidates,
    GenerationSummary,
    LabelState,
    LoopState,
)

ATTEMPTS = 3  # times that a lost command is tried


def next_state(
    state: LoopState, event: e.Event, commands: Iterable[e.Command] = ()
) -> LoopState:
    """Return the state after an event and the commands decided because of it."""
    return apply_commands(apply_event(state, event), commands)


def replay(turns: Iterable[e.Turn], state: LoopState | None = None) -> LoopState:
    """Return the state that a journal's turns lead to."""
    start = LoopState() if state is None else state
    return reduce(
        lambda s, turn: next_state(s, turn.event, turn.commands), turns, start
    )


def apply_event(state: LoopState, event: e.Event) -> LoopState:
    """Return the state after the event, before anything is decided."""
    match event:
        case e.Opened():
            return _apply_opened(state, event)
        case e.Amended() | e.Forked():
            return _amended(state)
        case e.Posed():
            return replace(
                state,
                posed=event.frames,
                posed_molecules=event.molecules,
                examined={},
                ending=None,
                finished=None,
            )
        case e.Excluded() | e.Included():
            return _chosen(state, event)
        case e.Retried():
            return _apply_retried(state, event)
        case e.Restored():
            return state
        case e.TaskLost():
            return _apply_lost(state, event)
        case _:
            return _close_command(_apply_answer(state, event), event.name)


def _readmits(event: e.Included, frame: str, fidelity: str) -> bool:
    return frame == event.frame and event.fidelity in (None, fidelity)


def _chosen(state: LoopState, event: e.Excluded | e.Included) -> LoopState:
    """Return the state after a label was excluded or included by hand."""
    if isinstance(event, e.Excluded):
        pair = (event.frame, event.fidelity or "all")
        return replace(state, excluded=state.excluded | {pair})
    gone = {x for x in state.excluded if _readmits(event, *x)}
    return replace(state, excluded=state.excluded - gone)


def _apply_answer(state: LoopState, event: e.Answer) -> LoopState:
    match event:
        case e.Labelled() | e.NotLabelled():
            return _apply_labelled(state, event)
        case e.Explored():
            return _apply_explored(state, event)
        case e.Trained():
            return _apply_trained(state, event)
        case e.Examined():
            return _examined(state, event)
        case e.Prepared():
            seeds = (*state.seeds.get(event.molecule, ()), *event.seeds)
            return replace(state, seeds={**state.seeds, event.molecule: seeds})
        case e.Priced():
            return replace(state, costs=dict(event.costs))
        case e.Sampled() | e.Rechecked():
            return state


def apply_commands(state: LoopState, commands: Iterable[e.Command]) -> LoopState:
    """Return the state once the commands are under way."""
    for command in commands:
        state = _apply_command(state, command)
    return state


def _apply_command(state: LoopState, command: e.Command) -> LoopState:
    if isinstance(command, e.Stop):
        broken = command.reason if command.broken else state.broken
        return replace(state, finished=command.reason, broken=broken)
    if command.name in state.open:  # lost, and sent again
        return state
    stage = _command_stage(command)
    if stage != state.stage and not _is_late(state, command):
        state = _enter_stage(state, stage)
    return _noted(replace(state, open={**state.open, command.name: command}), command)


def _noted(state: LoopState, command: e.Command) -> LoopState:
    """Return the state with the facts of a command that are needed after its answer."""
    match command:
        case e.Explore():
            return _apply_explore(state, command)
        case e.Train(generation=number):
            waiting = {k: v for k, v in state.waiting.items() if k != number}
            lesson = max(state.lesson, number)
            return replace(state, lesson=lesson, waiting=waiting, unlearned=False)
        case e.Price(generation=number) if number > state.lesson:
            waiting = {**state.waiting, number: len(state.blocks)}
            return replace(state, lesson=number, waiting=waiting)
        case e.Examine(reason=reason):
            last = replace(command, walkers=())
            return replace(state, examination=last, ending=reason)
        case e.Recheck():
            return replace(state, rechecks=state.rechecks | {command.name})
        case _:
            return state


def _is_late(state: LoopState, command: e.Command) -> bool:
    """Return True if the command belongs to a step that is over.

    Such are a label that was lost and a training that had to wait.
    """
    if isinstance(command, e.Train):
        return command.generation in state.waiting
    return command.name in state.retries


def _apply_explore(state: LoopState, command: e.Explore) -> LoopState:
    """Return the state after a round has begun.

    Generations before the one that explores are dropped: none of them will explore
    again.
    """
    number = command.generation
    state = replace(
        state,
        round=command.round,
        walkers={**state.walkers, **{each.index: each for each in command.walkers}},
        explorer=number,
        insights={k: v for k, v in state.insights.items() if k >= number},
    )
    insight = state.insights.get(number)
    if insight is None:
        return state
    return replace(state, threshold=insight.threshold, landmarks=insight.landmarks)


def _enter_stage(state: LoopState, stage: str) -> LoopState:
    """Return the state in a new stage.

    The entries of the step that ended become a block.
    """
    blocks = (*state.blocks, state.recent) if state.recent else state.blocks
    if state.stage == "explore":
        state = replace(state, stalled=state.stalled + 1 if state.died else 0)
    if stage == "explore":
        state = replace(state, found={}, moved={})
    return replace(state, stage=stage, blocks=blocks, recent=())


def _command_stage(command: e.Command) -> str:
    match command:
        case e.LabelFrame(purpose="seed" | "test") | e.Prepare() | e.Sample():
            return "seed"
        case e.LabelFrame(purpose="bias"):
            return "bias"
        case e.LabelFrame(purpose="examination") | e.Examine():
            return "examine"
        case e.LabelFrame():
            return "flag"
        case e.Explore():
            return "explore"
        case _:
            return "train"


def _amended(state: LoopState) -> LoopState:
    """Return the state after a change of rules, or when the campaign is taken up again.

    A round in which no walker got beyond its first steps is repeated.
    """
    again = state.broken is not None and state.stage == "explore" and not state.open
    return replace(
        state,
        stage="train" if again else state.stage,
        stalled=0,
        ending=None,
        finished=None,
        broken=None,
        attempts={},
    )


def _apply_opened(state: LoopState, event: e.Opened) -> LoopState:
    entries = tuple(
        LabelState(
            frame=given.frame.id,
            fidelity=given.fidelity,
            purpose=TEST if given.test else "given",
            molecule=given.molecule,
            good=True,
            cpu_seconds=0.0,
            doubts=doubts.doubts_of_details(given.label.details),
            brought=True,
        )
        for given in event.given
    )
    train = [given for given in event.given if not given.test]
    seeds = {
        molecule: tuple(x.frame for x in train if x.molecule == molecule)
        for molecule in {x.molecule for x in train}
    }
    return replace(
        state,
        stage="opened",
        seeds=seeds,
        seed=event.seed,
        levels=dict(event.levels),
        start=event.start,
        model=event.model,
        recent=entries,
    )


def _apply_labelled(state: LoopState, event: e.Labelled | e.NotLabelled) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, e.LabelFrame):
        return state
    if isinstance(event, e.NotLabelled):
        return _record_entry(
            state, command, _failed_entry(command, event.unlabelled.cpu_seconds)
        )
    entry = replace(
        _failed_entry(command, event.label.cpu_seconds),
        good=True,
        bias=_label_bias(state, event, command),
        doubts=doubts.doubts_of_details(event.label.details),
    )
    return _record_entry(state, command, entry)


def _failed_entry(command: e.LabelFrame, cpu_seconds: float = 0.0) -> LabelState:
    return LabelState(
        frame=command.frame.id,
        fidelity=command.fidelity,
        purpose=command.purpose,
        molecule=command.molecule,
        good=False,
        cpu_seconds=cpu_seconds,
    )


def _record_entry(
    state: LoopState, command: e.LabelFrame, entry: LabelState
) -> LoopState:
    """Return the state with the outcome of a label.

    A label that was asked for again takes the place of its failure, so that it counts
    once.
    """
    if command.name not in state.retries:
        return replace(state, recent=(*state.recent, entry))
    return replace(
        state,
        blocks=tuple(_replace_entry(block, entry) for block in state.blocks),
        recent=_replace_entry(state.recent, entry),
        retries={k: v for k, v in state.retries.items() if k != command.name},
        unlearned=state.unlearned or (entry.good and entry.purpose != EXAMINATION),
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
    state: LoopState, event: e.Labelled, command: e.LabelFrame
) -> float | None:
    """Return ASTEROID's B, with the forces predicted before the label was made.

    None for an expensive label and where there is no such prediction.
    """
    if command.fidelity != "cheap":
        return None
    for _, found in sorted(state.found.items(), key=lambda item: item[0]):
        for candidate in (*found.candidates, *found.controls):
            if candidate.frame.id == command.frame.id:
                return float(np.abs(candidate.forces - event.label.forces).mean())
    return None


def _apply_retried(state: LoopState, event: e.Retried) -> LoopState:
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


def _apply_explored(state: LoopState, event: e.Explored) -> LoopState:
    walkers = {walker.index: walker for walker in event.walkers}
    found = {
        **state.found,
        event.name: FoundCandidates(event.candidates, event.controls),
    }
    command = state.open.get(event.name)
    begun = command.walkers if isinstance(command, e.Explore) else ()
    steps = {
        before.index: walkers[before.index].step - before.step
        for before in begun
        if before.index in walkers
    }
    moved = {**state.moved, **{k: state.moved.get(k, 0) + n for k, n in steps.items()}}
    walkers = {**state.walkers, **walkers}
    return replace(state, walkers=walkers, found=found, moved=moved)


def _examined(state: LoopState, event: e.Examined) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, e.Examine) or not event.frames:
        return state
    asked = max(command.wanted, state.examined.get(command.model, 0))
    return replace(state, examined={**state.examined, command.model: asked})


def _apply_trained(state: LoopState, event: e.Trained) -> LoopState:
    error = float("nan") if event.evaluation is None else event.evaluation.force_mae
    insight = GenerationSummary(event.model, event.threshold, event.landmarks)
    return replace(
        state,
        generation=event.generation,
        model=event.model,
        insights={**state.insights, event.generation: insight},
        errors=(*state.errors, error),
        models=(*state.models, event.model),
    )


def _apply_lost(state: LoopState, event: e.TaskLost) -> LoopState:
    if event.name not in state.open:
        return state
    attempts = {**state.attempts, event.name: event.attempt}
    state = replace(state, attempts=attempts)
    if event.attempt < ATTEMPTS:
        return state
    command = state.open[event.name]
    if isinstance(command, e.LabelFrame):
        return _close_command(
            _record_entry(state, command, _failed_entry(command)), event.name
        )
    if isinstance(command, e.Recheck):  # its noise stays unknown
        return _close_command(state, event.name)
    broken = f"{event.name} was tried {ATTEMPTS} times and failed: {event.reason}"
    return replace(state, broken=broken)


def _close_command(state: LoopState, name: str) -> LoopState:
    still = {key: value for key, value in state.open.items() if key != name}
    return replace(state, open=still)
