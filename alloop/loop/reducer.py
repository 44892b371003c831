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
from alloop.core.records import Candidate
from alloop.core.splits import EXAMINATION
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
from alloop.loop.state import (
    TEST,
    Exclusion,
    LabelState,
    LoopState,
    PartErrors,
    Stage,
    label_blocks,
)

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
            return replace(
                state,
                examination=replace(
                    state.examination,
                    posed_frames=event.frames,
                    posed_molecules=event.molecules,
                    frame_counts={},
                    reason=None,
                ),
                finished=None,
            )
        case e.Excluded() | e.Included():
            return apply_exclusion(state, event)
        case e.Retried():
            return apply_retried(state, event)
        case e.Restored():
            return state
        case e.TaskLost():
            return _apply_lost(state, event)
        case _:
            return _close_command(_apply_answer(state, event), event.name)


def _apply_answer(state: LoopState, event: e.Answer) -> LoopState:
    match event:
        case e.Labelled() | e.NotLabelled():
            return apply_labelled(state, event)
        case e.Explored() | e.Examined():
            return apply_motion(state, event)
        case e.Trained():
            return _apply_trained(state, event)
        case e.Prepared():
            seeds = (*state.seeds.get(event.molecule, ()), *event.seeds)
            return replace(state, seeds={**state.seeds, event.molecule: seeds})
        case e.PartTrained():
            return _apply_part(state, event)
        case e.Priced():
            return replace(state, labels=replace(state.labels, costs=dict(event.costs)))
        case e.Sampled() | e.Rechecked():
            return state


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
            return _apply_train(state, command)
        case Price(generation=number) if number > state.generations.labelled:
            waiting = {**state.generations.waiting, number: len(state.labels.blocks)}
            return replace(
                state,
                generations=replace(
                    state.generations, labelled=number, waiting=waiting
                ),
            )
        case Examine(reason=reason):
            last = replace(command, walkers=())
            return replace(
                state, examination=replace(state.examination, last=last, reason=reason)
            )
        case Recheck():
            return replace(
                state,
                labels=replace(
                    state.labels, rechecks=state.labels.rechecks | {command.name}
                ),
            )
        case _:
            return state


def _apply_train(state: LoopState, command: Train) -> LoopState:
    number = command.generation
    waiting = {k: v for k, v in state.generations.waiting.items() if k != number}
    return replace(
        state,
        generations=replace(
            state.generations,
            labelled=max(state.generations.labelled, number),
            refined=number if command.refine else state.generations.refined,
            waiting=waiting,
        ),
        labels=replace(state.labels, unlearned=bool(command.refine)),
    )


def _keeps_stage(state: LoopState, command: Command) -> bool:
    """Return True if the command begins no stage, whichever is open.

    Such are a label that was lost, a training that had to wait and any recheck.
    """
    if isinstance(command, Train):
        return command.generation in state.generations.waiting
    return isinstance(command, Recheck) or command.name in state.labels.retries


def _apply_explore(state: LoopState, command: Explore) -> LoopState:
    """Return the state after a round has begun.

    Generations before the one that explores are dropped: none of them will explore
    again.
    """
    number = command.generation
    state = replace(
        state,
        exploration=replace(
            state.exploration,
            round=command.round,
            walkers={
                **state.exploration.walkers,
                **{each.index: each for each in command.walkers},
            },
            generation=number,
        ),
        generations=replace(
            state.generations,
            summaries={
                k: v for k, v in state.generations.summaries.items() if k >= number
            },
        ),
    )
    summary = state.generations.summaries.get(number)
    if summary is None:
        return state
    return replace(
        state,
        exploration=replace(
            state.exploration, threshold=summary.threshold, landmarks=summary.landmarks
        ),
    )


def _enter_stage(state: LoopState, stage: Stage) -> LoopState:
    """Return the state in a new stage.

    The entries of the step that ended become a block.
    """
    steps = [state.labels.recent] if state.labels.recent else []
    blocks = label_blocks(steps, before=state.labels.blocks)
    if state.stage == "explore":
        state = replace(
            state,
            exploration=replace(
                state.exploration,
                stalled_rounds=state.exploration.stalled_rounds + 1
                if state.exploration.died
                else 0,
            ),
        )
    if stage == "explore":
        state = replace(
            state, exploration=replace(state.exploration, pieces={}, moved_steps={})
        )
    return replace(
        state, stage=stage, labels=replace(state.labels, blocks=blocks, recent=())
    )


def _command_stage(command: Command) -> Stage:
    match command:
        case LabelFrame(purpose="seed" | "test") | Prepare() | Sample():
            return "seed"
        case LabelFrame(purpose="bias"):
            return "bias"
        case LabelFrame(purpose="examination") | Examine():
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
        generations=replace(state.generations, model=event.model),
        labels=replace(state.labels, recent=given_entries(event)),
    )


def _apply_trained(state: LoopState, event: e.Trained) -> LoopState:
    error = float("nan") if event.evaluation is None else event.evaluation.force_mae
    number = event.generation
    failed = bool(event.failed_checks)
    rejects = failed and (
        event.refinement is not None or bool(state.generations.accepted)
    )
    explores = failed and not rejects  # since no generation was accepted before it
    return replace(
        state,
        generations=replace(
            state.generations,
            count=number,
            model=state.generations.model if rejects else event.model,
            rejected=state.generations.rejected | {number}
            if rejects
            else state.generations.rejected,
            unaccepted=state.generations.unaccepted | {number}
            if explores
            else state.generations.unaccepted,
            summaries={**state.generations.summaries, number: event.summary()},
            errors=(*state.generations.errors, error),
            models=(*state.generations.models, event.model),
        ),
    )


def _apply_part(state: LoopState, event: e.PartTrained) -> LoopState:
    asked = state.open.get(event.name)
    if not isinstance(asked, TrainPart):
        return state
    found = PartErrors(len(asked.cheap), len(asked.expensive), event.errors)
    number = asked.generation
    known = {**state.generations.part_errors.get(number, {}), asked.part: found}
    return replace(
        state,
        generations=replace(
            state.generations,
            part_errors={**state.generations.part_errors, number: known},
        ),
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
            record_entry(state, command, failed_entry(command)), event.name
        )
    if isinstance(command, Recheck | TrainPart):  # what it measures stays unknown
        return _close_command(state, event.name)
    broken = f"{event.name} was tried {ATTEMPTS} times and failed: {event.reason}"
    return replace(state, broken=broken)


def _close_command(state: LoopState, name: str) -> LoopState:
    still = {key: value for key, value in state.open.items() if key != name}
    return replace(state, open=still)


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
        labels=replace(state.labels, retries={**state.labels.retries, **labels}),
        attempts={k: v for k, v in state.attempts.items() if k not in labels},
        finished=None,
    )


def record_entry(state: LoopState, command: LabelFrame, entry: LabelState) -> LoopState:
    """Return the state with the outcome of a label.

    A label that was asked for again takes the place of its failure, so that it counts
    once.
    """
    if command.name not in state.labels.retries:
        return replace(
            state, labels=replace(state.labels, recent=(*state.labels.recent, entry))
        )
    return replace(
        state,
        labels=replace(
            state.labels,
            blocks=label_blocks(
                _replace_entry(x.entries, entry) for x in state.labels.blocks
            ),
            recent=_replace_entry(state.labels.recent, entry),
            retries={
                k: v for k, v in state.labels.retries.items() if k != command.name
            },
            unlearned=state.labels.unlearned
            or (entry.good and entry.purpose != EXAMINATION),
        ),
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
    summary = state.generations.summaries.get(state.exploration.generation)
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
    for _, found in sorted(state.exploration.pieces.items(), key=lambda item: item[0]):
        for candidate in (*found.candidates, *found.controls):
            if candidate.frame.id == command.frame.id:
                return candidate
    return None


def apply_exclusion(state: LoopState, event: e.Excluded | e.Included) -> LoopState:
    """Return the state after a label was excluded or included by hand."""
    if isinstance(event, e.Excluded):
        pair: Exclusion = (event.frame, event.fidelity or "all")
        return replace(
            state, labels=replace(state.labels, excluded=state.labels.excluded | {pair})
        )
    gone = {
        (frame, fidelity)
        for frame, fidelity in state.labels.excluded
        if frame == event.frame and event.fidelity in (None, fidelity)
    }
    return replace(
        state, labels=replace(state.labels, excluded=state.labels.excluded - gone)
    )


def apply_motion(state: LoopState, event: e.Explored | e.Examined) -> LoopState:
    """Return the state after a piece of MD: walkers, their steps and candidates.

    Of an examination, only the number of frames asked for is kept.
    """
    if isinstance(event, e.Examined):
        return _apply_examined(state, event)
    return _apply_explored(state, event)


def _apply_explored(state: LoopState, event: e.Explored) -> LoopState:
    walkers = {walker.index: walker for walker in event.walkers}
    found = {**state.exploration.pieces, event.name: event.without_walkers()}
    command = state.open.get(event.name)
    begun = command.walkers if isinstance(command, Explore) else ()
    steps = {
        before.index: walkers[before.index].step - before.step
        for before in begun
        if before.index in walkers
    }
    moved = {
        **state.exploration.moved_steps,
        **{k: state.exploration.moved_steps.get(k, 0) + n for k, n in steps.items()},
    }
    walkers = {**state.exploration.walkers, **walkers}
    return replace(
        state,
        exploration=replace(
            state.exploration, walkers=walkers, pieces=found, moved_steps=moved
        ),
    )


def _apply_examined(state: LoopState, event: e.Examined) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, Examine) or not event.frames:
        return state
    asked = max(command.wanted, state.examination.frame_counts.get(command.model, 0))
    return replace(
        state,
        examination=replace(
            state.examination,
            frame_counts={**state.examination.frame_counts, command.model: asked},
        ),
    )
