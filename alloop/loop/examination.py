"""The examination: MD on the best generation, on frames nothing learns from. Pure.

Its frames are taken at fixed steps, whatever their surprise: they are those that the
model will be used on.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.loop import events as e
from alloop.loop.commands import Examine
from alloop.loop.rules import Rules, walker_temperature
from alloop.loop.state import LoopState
from alloop.md.integrate import maxwell_boltzmann

_WALKER_FRAMES = 2  # frames of one walker


def examine_commands(
    state: LoopState, rules: Rules, reason: str
) -> tuple[Examine, ...]:
    """Return the first commands of an examination of the best generation.

    Walkers start from first frames, each on its own. A frame of each is taken at fixed
    steps, whatever its surprise, so that the frames are those that the model will be
    used on. Where they come from another campaign's examination (`posed_frames`),
    nothing moves.

    There are none where it had one, or where the rules ask for none. reason: why the
    campaign ends.
    """
    posed, best = state.examination.posed_frames, state.generations.best
    count = len(posed) or rules.examining.frames
    if not state.generations.models or count == 0 or _frames_examined(state) >= count:
        return ()
    walkers = _posed_walkers(state, rules) if posed else _fresh_walkers(state, rules)
    size = rules.exploring.batch
    return tuple(
        Examine(
            number=_examination_number(state),
            batch=batch,
            piece=0,
            generation=best,
            model=state.generations.models[best - 1],
            walkers=tuple(walkers[start : start + size]),
            steps=0 if posed else rules.examining.spacing,
            wanted=count,
            reason=reason,
        )
        for batch, start in enumerate(range(0, len(walkers), size))
    )


def is_examined(state: LoopState) -> bool:
    """Return True if the best generation was examined on at least one frame."""
    return _frames_examined(state) > 0


def next_examine_piece(state: LoopState, event: e.Examined) -> tuple[Examine, ...]:
    """Return the command that takes a batch to its next frames.

    There is none where the batch has given its share or no walker moves any more.
    """
    last, after = state.examination.last, event.piece + 1
    if last is None or last.number != event.number or last.steps == 0:
        return ()
    walkers = last.wanted - after * _walker_count(last.wanted, len(state.start))
    going = [x for x in event.walkers if x.stopped is None and x.index < walkers]
    if not going:
        return ()
    return (replace(last, batch=event.batch, piece=after, walkers=tuple(going)),)


def _fresh_walkers(state: LoopState, rules: Rules) -> Sequence[Walker]:
    """Return walkers on first frames, molecules in turn, at the set temperatures."""
    number = _examination_number(state)
    return [
        _examining_walker(state, index, f"examination/{number}/{index}", rules)
        for index in range(_walker_count(rules.examining.frames, len(state.start)))
    ]


def _examining_walker(state: LoopState, index: int, name: str, rules: Rules) -> Walker:
    molecule = index % len(state.start)
    rng = random_stream(state.seed, name)
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    kelvin = _examining_temperature(state, index, rules)
    velocities = maxwell_boltzmann(frame, kelvin, rng)
    return Walker(index, molecule, frame, velocities, temperature=kelvin)


def _examining_temperature(state: LoopState, index: int, rules: Rules) -> float:
    return walker_temperature(rules.examining.temperatures, index, len(state.start))


def _posed_walkers(state: LoopState, rules: Rules) -> Sequence[Walker]:
    examination = state.examination
    frames = zip(examination.posed_frames, examination.posed_molecules, strict=True)
    return [
        Walker(
            index=index,
            molecule=molecule,
            frame=frame,
            velocities=np.zeros((len(frame), 3)),
            temperature=_examining_temperature(state, index, rules),
        )
        for index, (frame, molecule) in enumerate(frames)
    ]


def _walker_count(frames: int, molecules: int) -> int:
    """Return the number of walkers for so many frames.

    Every molecule has one if there are enough frames.
    """
    return max(ceil(frames / _WALKER_FRAMES), min(frames, molecules))


def _examination_number(state: LoopState) -> int:
    last = state.examination.last
    return 1 if last is None else last.number + 1


def _frames_examined(state: LoopState) -> int:
    generations = state.generations
    if not generations.models:
        return 0
    model = generations.models[generations.best - 1]
    return state.examination.frame_counts.get(model, 0)
