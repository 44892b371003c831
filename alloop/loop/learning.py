"""How the loop learns: state is the fold of the journal over (event, commands). Pure.

`learn` is the only way to a new state. It splits into `absorb` (what happened) and
`ask` (what was decided because of it), since decisions are taken between the two.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

import numpy as np

from alloop.loop import events as e
from alloop.loop.state import TEST, Entry, Found, LoopState

ATTEMPTS = 3  # how often a lost command is tried


def learn(
    state: LoopState, event: e.Event, commands: Iterable[e.Command] = ()
) -> LoopState:
    """The state after an event and the commands that were decided because of it."""
    return ask(absorb(state, event), commands)


def replay(turns: Iterable[e.Turn], state: LoopState | None = None) -> LoopState:
    """The state that a journal's turns lead to."""
    start = LoopState() if state is None else state
    return reduce(lambda s, turn: learn(s, turn.event, turn.commands), turns, start)


def absorb(state: LoopState, event: e.Event) -> LoopState:
    """The state after the event, before anything is decided."""
    match event:
        case e.Opened():
            return _opened(state, event)
        case e.Amended():
            return replace(state, finished=None, broken=None, attempts={})
        case e.Excluded():
            pair = (event.frame, event.fidelity or "all")
            return replace(state, excluded=state.excluded | {pair})
        case e.TaskLost():
            return _lost(state, event)
        case _:
            return _close(_answered(state, event), event.name)


def _answered(state: LoopState, event: e.Answer) -> LoopState:
    match event:
        case e.Labelled() | e.NotLabelled():
            return _label(state, event)
        case e.Explored():
            return _explored(state, event)
        case e.Trained():
            return _trained(state, event)
        case e.Prepared():
            seeds = (*state.seeds.get(event.molecule, ()), *event.seeds)
            return replace(state, seeds={**state.seeds, event.molecule: seeds})
        case e.Sampled():
            return state


def ask(state: LoopState, commands: Iterable[e.Command]) -> LoopState:
    """The state once the commands are under way."""
    for command in commands:
        state = _ask(state, command)
    return state


def _ask(state: LoopState, command: e.Command) -> LoopState:
    if isinstance(command, e.Stop):
        return replace(state, finished=command.reason)
    stage = _stage(command)
    if stage != state.stage:
        state = _enter(state, stage)
    if isinstance(command, e.Explore):
        walkers = {walker.index: walker for walker in command.walkers}
        state = replace(
            state, round=command.round, walkers={**state.walkers, **walkers}
        )
    return replace(state, open={**state.open, command.name: command})


def _enter(state: LoopState, stage: str) -> LoopState:
    """Close the step that ended: its entries become a block."""
    blocks = (*state.blocks, state.recent) if state.recent else state.blocks
    found = {} if stage == "explore" else state.found
    return replace(state, stage=stage, blocks=blocks, recent=(), found=found)


def _stage(command: e.Command) -> str:
    match command:
        case e.LabelFrame(purpose="seed" | "test") | e.Prepare() | e.Sample():
            return "seed"
        case e.LabelFrame(purpose="bias"):
            return "bias"
        case e.LabelFrame():
            return "flag"
        case e.Explore():
            return "explore"
        case _:
            return "train"


def _opened(state: LoopState, event: e.Opened) -> LoopState:
    entries = tuple(
        Entry(
            frame=given.frame.id,
            fidelity=given.fidelity,
            purpose=TEST if given.test else "given",
            molecule=given.molecule,
            good=True,
            cpu_seconds=0.0,
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


def _label(state: LoopState, event: e.Labelled | e.NotLabelled) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, e.LabelFrame):
        return state
    if isinstance(event, e.NotLabelled):
        return _note(state, command, False, event.unlabelled.cpu_seconds)
    bias = _bias(state, event, command)
    return _note(state, command, True, event.label.cpu_seconds, bias)


def _note(
    state: LoopState,
    command: e.LabelFrame,
    good: bool,
    cpu_seconds: float = 0.0,
    bias: float | None = None,
) -> LoopState:
    """Enter how a label ended."""
    entry = Entry(
        frame=command.frame.id,
        fidelity=command.fidelity,
        purpose=command.purpose,
        molecule=command.molecule,
        good=good,
        cpu_seconds=cpu_seconds,
        bias=bias,
    )
    return replace(state, recent=(*state.recent, entry))


def _bias(state: LoopState, event: e.Labelled, command: e.LabelFrame) -> float | None:
    """ASTEROID's B, with the forces that the model predicted before the label came."""
    if command.fidelity != "cheap":
        return None
    for _, found in sorted(state.found.items(), key=lambda item: item[0]):
        for candidate in (*found.candidates, *found.controls):
            if candidate.frame.id == command.frame.id:
                return float(np.abs(candidate.forces - event.label.forces).mean())
    return None


def _explored(state: LoopState, event: e.Explored) -> LoopState:
    walkers = {walker.index: walker for walker in event.walkers}
    found = {**state.found, event.name: Found(event.candidates, event.controls)}
    return replace(state, walkers={**state.walkers, **walkers}, found=found)


def _trained(state: LoopState, event: e.Trained) -> LoopState:
    error = float("nan") if event.evaluation is None else event.evaluation.force_mae
    return replace(
        state,
        generation=event.generation,
        model=event.model,
        threshold=event.threshold,
        landmarks=event.landmarks,
        errors=(*state.errors, error),
    )


def _lost(state: LoopState, event: e.TaskLost) -> LoopState:
    if event.name not in state.open:
        return state
    attempts = {**state.attempts, event.name: event.attempt}
    state = replace(state, attempts=attempts)
    if event.attempt < ATTEMPTS:
        return state
    command = state.open[event.name]
    if isinstance(command, e.LabelFrame):
        return _close(_note(state, command, good=False), event.name)
    broken = f"{event.name} was tried {ATTEMPTS} times and failed: {event.reason}"
    return replace(state, broken=broken)


def _close(state: LoopState, name: str) -> LoopState:
    still = {key: value for key, value in state.open.items() if key != name}
    return replace(state, open=still)
