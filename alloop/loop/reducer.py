"""The state of the loop, a fold of the journal over (event, commands). Pure.

`next_state` is the only way to a new state. It consists of `apply_event` (what
happened) and `apply_commands` (what was decided because of it), since decisions are
taken between the two.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import isfinite

import numpy as np

from alloop.core import doubts
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Prepare,
    Price,
    Recheck,
    Sample,
    Stop,
    Train,
    TrainPart,
)
from alloop.loop.state import TEST, LabelState, LoopState, Stage

ATTEMPTS = 3  # times that a lost command is tried


def next_state(
    state: LoopState, event: e.Event, commands: Iterable[Command] = ()
) -> LoopState:
    """Return the state after an event and the commands decided because of it."""
    return apply_commands(apply_event(state, event), commands)


def apply_event(state: LoopState, event: e.Event) -> LoopState:
    """Return the state after the event, before anything is decided."""
    match event:
        case e.Opened():
            return _apply_opened(state, event)
        case e.Amended() | e.Forked():
            return _amended(state)
        case e.Posed():
            examination = state.examination.with_posed(event.frames, event.molecules)
            return replace(state, examination=examination, finished=None)
        case e.Excluded() | e.Included():
            return _apply_exclusion(state, event)
        case e.Retried():
            return _apply_retried(state, event)
        case e.Restored():
            return state
        case e.TaskLost():
            return _apply_lost(state, event)
        case _:
            return _close_command(_apply_answer(state, event), event.name)


def _apply_answer(state: LoopState, event: e.Answer) -> LoopState:
    match event:
        case e.Labelled() | e.NotLabelled():
            return _apply_labelled(state, event)
        case e.Explored() | e.Examined():
            return _apply_motion(state, event)
        case e.Trained():
            generations = state.generations.with_trained(event)
            return replace(state, generations=generations)
        case e.Prepared():
            seeds = (*state.seeds.get(event.molecule, ()), *event.seeds)
            return replace(state, seeds={**state.seeds, event.molecule: seeds})
        case e.PartTrained():
            return _apply_part(state, event)
        case e.Priced():
            return replace(state, labels=replace(state.labels, costs=dict(event.costs)))
        case e.Sampled() | e.Rechecked():
            return state


def _apply_motion(state: LoopState, event: e.Explored | e.Examined) -> LoopState:
    """Return the state after a piece of MD.

    Of an examination, only the number of frames asked for is kept.
    """
    command = state.open.get(event.name)
    if isinstance(event, e.Explored):
        before = command.walkers if isinstance(command, Explore) else ()
        exploration = state.exploration.with_piece(event, before)
        return replace(state, exploration=exploration)
    if not isinstance(command, Examine) or not event.frames or command.explorer != "md":
        return state
    return replace(state, examination=state.examination.with_frames(command))


def _apply_part(state: LoopState, event: e.PartTrained) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, TrainPart):
        return state
    generations = state.generations.with_part(command, event.errors)
    return replace(state, generations=generations)


def apply_commands(state: LoopState, commands: Iterable[Command]) -> LoopState:
    """Return the state once the commands are under way."""
    for command in commands:
        state = _apply_command(state, command)
    return state


def _apply_command(state: LoopState, command: Command) -> LoopState:
    if isinstance(command, Stop):
        broken = command.reason if command.broken else state.broken
        return replace(state, finished=command.reason, broken=broken)
    if command.name in state.open:  # lost, and sent again
        return state
    stage = _command_stage(command)
    if stage != state.stage and not _keeps_stage(state, command):
        state = _enter_stage(state, stage)
    return _noted(replace(state, open={**state.open, command.name: command}), command)


def _noted(state: LoopState, command: Command) -> LoopState:
    """Return the state with the facts of a command that are needed after its answer."""
    match command:
        case Explore():
            return _apply_explore(state, command)
        case Train():
            return replace(
                state,
                generations=state.generations.with_training(command),
                labels=replace(state.labels, unlearned=bool(command.refine)),
            )
        case Price(generation=number):
            blocks = len(state.labels.blocks)
            generations = state.generations.with_waiting(number, blocks)
            return replace(state, generations=generations)
        case Examine(reason=reason, explorer="md"):
            last = replace(command, walkers=())
            examination = replace(state.examination, last=last, reason=reason)
            return replace(state, examination=examination)
        case Recheck():
            rechecks = state.labels.rechecks | {command.name}
            return replace(state, labels=replace(state.labels, rechecks=rechecks))
        case _:
            return state


def _keeps_stage(state: LoopState, command: Command) -> bool:
    """Return True if the command begins no stage, whichever is open.

    Such are a label that was lost, a training that had to wait and any recheck.
    """
    if isinstance(command, Train):
        return command.generation in state.generations.waiting
    return isinstance(command, Recheck) or command.name in state.labels.retries


def _apply_explore(state: LoopState, command: Explore) -> LoopState:
    """Return the state after a round has begun, or gone on."""
    generations = state.generations.since(command.generation)
    summary = generations.summaries.get(command.generation)
    exploration = state.exploration.with_command(command, summary)
    return replace(state, generations=generations, exploration=exploration)


def _enter_stage(state: LoopState, stage: Stage) -> LoopState:
    """Return the state in a new stage.

    The entries of the step that ended become a block.
    """
    exploration = state.exploration
    if state.stage == "explore":
        exploration = exploration.end_round()
    if stage == "explore":
        exploration = replace(exploration, pieces={}, moved_steps={})
    return replace(
        state, stage=stage, labels=state.labels.close_step(), exploration=exploration
    )


def _command_stage(command: Command) -> Stage:
    match command:
        case LabelFrame(purpose="seed" | "test") | Prepare() | Sample():
            return "seed"
        case LabelFrame(purpose="bias"):
            return "bias"
        case LabelFrame(purpose="examination" | "beyond") | Examine():
            return "examine"
        case LabelFrame():
            return "flag"
        case Explore():
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
        exploration=replace(state.exploration, stalled_rounds=0),
        examination=replace(state.examination, reason=None),
        finished=None,
        broken=None,
        attempts={},
    )


def _apply_opened(state: LoopState, event: e.Opened) -> LoopState:
    train = [x for x in event.given if not x.test]
    conformers = event.conformers_by_start()
    seeds = {
        molecule: (
            *(x.frame for x in train if x.molecule == molecule),
            *conformers.get(molecule, ()),
        )
        for molecule in {*(x.molecule for x in train), *conformers}
    }
    return replace(
        state,
        stage="opened",
        seeds=seeds,
        seed=event.seed,
        levels=dict(event.levels),
        start=event.start,
        conformers=conformers,
        generations=replace(state.generations, model=event.model),
        labels=replace(state.labels, recent=_given_entries(event)),
    )


def _apply_lost(state: LoopState, event: e.TaskLost) -> LoopState:
    if event.name not in state.open:
        return state
    attempts = {**state.attempts, event.name: event.attempt}
    state = replace(state, attempts=attempts)
    if event.attempt < ATTEMPTS:
        return state
    command = state.open[event.name]
    if isinstance(command, LabelFrame):
        return _close_command(
            _record_entry(state, command, _failed_entry(command)), event.name
        )
    if isinstance(command, Recheck | TrainPart):  # what it measures stays unknown
        return _close_command(state, event.name)
    broken = f"{event.name} was tried {ATTEMPTS} times and failed: {event.reason}"
    return replace(state, broken=broken)


def _close_command(state: LoopState, name: str) -> LoopState:
    still = {key: value for key, value in state.open.items() if key != name}
    return replace(state, open=still)


def _given_entries(event: e.Opened) -> tuple[LabelState, ...]:
    """Return the entries of the labels that the user supplied."""
    return tuple(
        LabelState(
            frame=x.frame.id,
            fidelity=x.fidelity,
            purpose=TEST if x.test else "given",
            molecule=x.molecule,
            good=True,
            cpu_seconds=0.0,
            doubts=doubts.doubts_of_details(x.label.details),
            supplied=True,
        )
        for x in event.given
    )


def _apply_labelled(state: LoopState, event: e.Labelled | e.NotLabelled) -> LoopState:
    """Return the state after a label was made, or could not be made."""
    command = state.open.get(event.name)
    if not isinstance(command, LabelFrame):
        return state
    if isinstance(event, e.NotLabelled):
        return _record_entry(
            state, command, _failed_entry(command, event.unlabelled.cpu_seconds)
        )
    ratio, held = _limit_ratio(state, event, command)
    entry = replace(
        _failed_entry(command, event.label.cpu_seconds),
        good=True,
        bias=_label_bias(state, event, command),
        limit_ratio=ratio,
        limit_held=held,
        doubts=doubts.doubts_of_details(event.label.details),
    )
    if command.fidelity == "expensive":
        after = state.exploration.with_top(command.frame.id, event.label.energy)
        state = replace(state, exploration=after)
    return _record_entry(state, command, entry)


def _apply_retried(state: LoopState, event: e.Retried) -> LoopState:
    """Return the state in which the labels wait until the open step is resolved.

    A campaign that had finished goes on.
    """
    labels = {command.name: command for command in event.labels}
    return replace(
        state,
        labels=replace(state.labels, retries={**state.labels.retries, **labels}),
        attempts={k: v for k, v in state.attempts.items() if k not in labels},
        finished=None,
    )


def _record_entry(
    state: LoopState, command: LabelFrame, entry: LabelState
) -> LoopState:
    return replace(state, labels=state.labels.with_entry(command.name, entry))


def _failed_entry(command: LabelFrame, cpu_seconds: float = 0.0) -> LabelState:
    """Return the entry of a label that was asked for and not made."""
    return LabelState(
        frame=command.frame.id,
        fidelity=command.fidelity,
        purpose=command.purpose,
        molecule=command.molecule,
        good=False,
        cpu_seconds=cpu_seconds,
    )


def _label_bias(
    state: LoopState, event: e.Labelled, command: LabelFrame
) -> float | None:
    """Return ASTEROID's B, with the forces predicted before the label was made.

    None for an expensive label and where there is no such prediction.
    """
    if command.fidelity != "cheap":
        return None
    candidate = state.exploration.candidate(command.frame.id)
    if candidate is None:
        return None
    return float(np.abs(candidate.forces - event.label.forces).mean())


def _limit_ratio(
    state: LoopState, event: e.Labelled, command: LabelFrame
) -> tuple[float | None, bool | None]:
    """Return a control frame's largest force error over the limit promised for it.

    That is without the limit's factor; with it, whether the limit held. None for other
    frames, and where no limit was promised.
    """
    if (command.fidelity, command.purpose) != ("expensive", "control"):
        return None, None
    candidate = state.exploration.candidate(command.frame.id)
    summary = state.generations.summaries.get(state.exploration.generation)
    limits = None if summary is None else summary.error_limits
    if candidate is None or limits is None or not isfinite(candidate.surprise):
        return None, None
    limit = limits.limit(candidate.surprise, candidate.frame)
    if not isfinite(limit) or not event.label.has_forces:
        return None, None
    error = np.linalg.norm(candidate.forces - event.label.forces, axis=1).max()
    ratio = float(error) * limits.factor / limit
    return ratio, ratio <= limits.factor


def _apply_exclusion(state: LoopState, event: e.Excluded | e.Included) -> LoopState:
    labels = state.labels
    change = labels.exclude if isinstance(event, e.Excluded) else labels.include
    return replace(state, labels=change(event.frame, event.fidelity))
