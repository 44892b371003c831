"""The outcomes of MD in the state of the loop. Pure."""

from dataclasses import replace

from alloop.loop import events as e
from alloop.loop.commands import Examine, Explore
from alloop.loop.state import FoundCandidates, LoopState


def apply_motion(state: LoopState, event: e.Explored | e.Examined) -> LoopState:
    """Return the state after a piece of MD: walkers, their steps and candidates.

    Of an examination, only the number of frames asked for is kept.
    """
    if isinstance(event, e.Examined):
        return _apply_examined(state, event)
    return _apply_explored(state, event)


def _apply_explored(state: LoopState, event: e.Explored) -> LoopState:
    walkers = {walker.index: walker for walker in event.walkers}
    found = {
        **state.found,
        event.name: FoundCandidates(event.candidates, event.controls),
    }
    command = state.open.get(event.name)
    begun = command.walkers if isinstance(command, Explore) else ()
    steps = {
        before.index: walkers[before.index].step - before.step
        for before in begun
        if before.index in walkers
    }
    moved = {
        **state.moved_steps,
        **{k: state.moved_steps.get(k, 0) + n for k, n in steps.items()},
    }
    walkers = {**state.walkers, **walkers}
    return replace(state, walkers=walkers, found=found, moved_steps=moved)


def _apply_examined(state: LoopState, event: e.Examined) -> LoopState:
    command = state.open.get(event.name)
    if not isinstance(command, Examine) or not event.frames:
        return state
    asked = max(command.wanted, state.examined.get(command.model, 0))
    return replace(state, examined={**state.examined, command.model: asked})
