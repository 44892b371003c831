"""The state of the loop, a fold of the journal over (event, commands). Pure.

`next_state` is the only way to a new state. It consists of `apply_event` (what
happened) and `apply_commands` (what was decided because of it), since decisions are
taken between the two.
"""

from collections.abc import Iterable
from dataclasses import replace

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
from alloop.loop.label_outcomes import (
    apply_exclusion,
    apply_labelled,
    apply_retried,
    failed_entry,
    given_entries,
    record_entry,
)
from alloop.loop.motion_outcomes import apply_motion
from alloop.loop.state import (
    GenerationSummary,
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
                posed=event.frames,
                posed_molecules=event.molecules,
                examined={},
                ending=None,
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
            return replace(state, costs=dict(event.costs))
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
        case Price(generation=number) if number > state.labelled_generation:
            waiting = {**state.waiting_trainings, number: len(state.blocks)}
            return replace(state, labelled_generation=number, waiting_trainings=waiting)
        case Examine(reason=reason):
            last = replace(command, walkers=())
            return replace(state, examination=last, ending=reason)
        case Recheck():
            return replace(state, rechecks=state.rechecks | {command.name})
        case _:
            return state


def _apply_train(state: LoopState, command: Train) -> LoopState:
    number = command.generation
    waiting = {k: v for k, v in state.waiting_trainings.items() if k != number}
    return replace(
        state,
        labelled_generation=max(state.labelled_generation, number),
        refined_generation=number if command.refine else state.refined_generation,
        waiting_trainings=waiting,
        unlearned=bool(command.refine),
    )


def _keeps_stage(state: LoopState, command: Command) -> bool:
    """Return True if the command begins no stage, whichever is open.

    Such are a label that was lost, a training that had to wait and any recheck.
    """
    if isinstance(command, Train):
        return command.generation in state.waiting_trainings
    return isinstance(command, Recheck) or command.name in state.retries


def _apply_explore(state: LoopState, command: Explore) -> LoopState:
    """Return the state after a round has begun.

    Generations before the one that explores are dropped: none of them will explore
    again.
    """
    number = command.generation
    state = replace(
        state,
        round=command.round,
        walkers={**state.walkers, **{each.index: each for each in command.walkers}},
        exploring_generation=number,
        summaries={k: v for k, v in state.summaries.items() if k >= number},
    )
    summary = state.summaries.get(number)
    if summary is None:
        return state
    return replace(state, threshold=summary.threshold, landmarks=summary.landmarks)


def _enter_stage(state: LoopState, stage: Stage) -> LoopState:
    """Return the state in a new stage.

    The entries of the step that ended become a block.
    """
    steps = [state.recent] if state.recent else []
    blocks = label_blocks(steps, before=state.blocks)
    if state.stage == "explore":
        state = replace(
            state, stalled_rounds=state.stalled_rounds + 1 if state.died else 0
        )
    if stage == "explore":
        state = replace(state, found={}, moved_steps={})
    return replace(state, stage=stage, blocks=blocks, recent=())


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
        stalled_rounds=0,
        ending=None,
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
        model=event.model,
        recent=given_entries(event),
    )


def _apply_trained(state: LoopState, event: e.Trained) -> LoopState:
    error = float("nan") if event.evaluation is None else event.evaluation.force_mae
    summary = GenerationSummary(
        event.model, event.threshold, event.landmarks, event.error_limits
    )
    number = event.generation
    failed = bool(event.failed_checks)
    rejects = failed and (event.refinement is not None or bool(state.accepted))
    explores = failed and not rejects  # since no generation was accepted before it
    return replace(
        state,
        generation=number,
        model=state.model if rejects else event.model,
        rejected=state.rejected | {number} if rejects else state.rejected,
        unaccepted=state.unaccepted | {number} if explores else state.unaccepted,
        summaries={**state.summaries, number: summary},
        errors=(*state.errors, error),
        models=(*state.models, event.model),
    )


def _apply_part(state: LoopState, event: e.PartTrained) -> LoopState:
    asked = state.open.get(event.name)
    if not isinstance(asked, TrainPart):
        return state
    found = PartErrors(len(asked.cheap), len(asked.expensive), event.errors)
    number = asked.generation
    known = {**state.parts.get(number, {}), asked.part: found}
    return replace(state, parts={**state.parts, number: known})


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
