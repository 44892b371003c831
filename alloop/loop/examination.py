"""The examination: its walkers, its frames and when it is due. Pure.

Walkers start from first frames, each on its own, and move on the best generation. A
frame of each is taken at fixed steps, whatever its surprise, so that the frames are
those that the model will be used on. Where they come from another campaign's
examination (`state.posed`), nothing moves.
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

_EACH = 2  # frames of one walker


def examine_commands(
    state: LoopState, rules: Rules, reason: str
) -> tuple[Examine, ...]:
    """Return the first commands of an examination of the best generation.

    There are none where it had one, or where none is wanted. reason: why the campaign
    ends.
    """
    wanted = len(state.posed) or rules.examining.frames
    if not state.models or wanted == 0 or _asked(state) >= wanted:
        return ()
    walkers = _posed(state, rules) if state.posed else _fresh(state, rules)
    size = rules.exploring.batch
    return tuple(
        Examine(
            number=_number(state),
            batch=batch,
            piece=0,
            generation=state.best,
            model=state.models[state.best - 1],
            walkers=tuple(walkers[start : start + size]),
            steps=0 if state.posed else rules.examining.spacing,
            wanted=wanted,
            reason=reason,
        )
        for batch, start in enumerate(range(0, len(walkers), size))
    )


def is_examined(state: LoopState) -> bool:
    """Return True if the best generation was examined on at least one frame."""
    return _asked(state) > 0


def next_examine_piece(state: LoopState, event: e.Examined) -> tuple[Examine, ...]:
    """Return the command that takes a batch to its next frames.

    There is none where the batch has given its share or no walker moves any more.
    """
    last, after = state.examination, event.piece + 1
    if last is None or last.number != event.number or last.steps == 0:
        return ()
    wanted = last.wanted - after * _crew(last.wanted, len(state.start))
    going = [x for x in event.walkers if x.stopped is None and x.index < wanted]
    if not going:
        return ()
    return (replace(last, batch=event.batch, piece=after, walkers=tuple(going)),)


def _fresh(state: LoopState, rules: Rules) -> Sequence[Walker]:
    """Return walkers on first frames, molecules in turn, at the set temperatures."""
    number = _number(state)
    return [
        _walker(state, index, f"examination/{number}/{index}", rules)
        for index in range(_crew(rules.examining.frames, len(state.start)))
    ]


def _walker(state: LoopState, index: int, name: str, rules: Rules) -> Walker:
    molecule = index % len(state.start)
    rng = random_stream(state.seed, name)
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    kelvin = _temperature(state, index, rules)
    velocities = maxwell_boltzmann(frame, kelvin, rng)
    return Walker(index, molecule, frame, velocities, temperature=kelvin)


def _temperature(state: LoopState, index: int, rules: Rules) -> float:
    return walker_temperature(rules.examining.temperatures, index, len(state.start))


def _posed(state: LoopState, rules: Rules) -> Sequence[Walker]:
    return [
        Walker(
            index=index,
            molecule=molecule,
            frame=frame,
            velocities=np.zeros((len(frame), 3)),
            temperature=_temperature(state, index, rules),
        )
        for index, (frame, molecule) in enumerate(
            zip(state.posed, state.posed_molecules, strict=True)
        )
    ]


def _crew(frames: int, molecules: int) -> int:
    """Return the number of walkers for so many frames.

    Every molecule has one if there are enough frames.
    """
    return max(ceil(frames / _EACH), min(frames, molecules))


def _number(state: LoopState) -> int:
    return 1 if state.examination is None else state.examination.number + 1


def _asked(state: LoopState) -> int:
    return state.examined.get(state.models[state.best - 1], 0) if state.models else 0
