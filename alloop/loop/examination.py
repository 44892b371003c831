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
from alloop.md.shapes import has_torsions, open_bonds

_WALKER_FRAMES = 2  # frames of one walker


def examine_commands(
    state: LoopState, rules: Rules, reason: str
) -> tuple[Examine, ...]:
    """Return the first commands of an examination of the best generation.

    Walkers start from first frames, or from all conformers known, each on its own. A
    frame of each is taken at fixed steps, whatever its surprise, so that the frames are
    those that the model will be used on. Where they come from another campaign's
    examination (`posed_frames`), nothing moves. Walkers for frames beyond MD come last,
    in batches of their own.

    There are none where it had one, or where the rules ask for none. reason: why the
    campaign ends.
    """
    posed, best = state.examination.posed_frames, state.generations.best
    count = len(posed) or rules.examining.frames
    if not state.generations.models or count == 0 or _frames_examined(state) >= count:
        return ()
    walkers = _posed_walkers(state, rules) if posed else _fresh_walkers(state, rules)
    others = () if posed else _walkers_beyond(state, rules, first=len(walkers))
    size = rules.exploring.batch
    command = Examine(
        number=_examination_number(state),
        batch=0,
        piece=0,
        generation=best,
        model=state.generations.models[best - 1],
        walkers=(),
        steps=0 if posed else rules.examining.spacing,
        wanted=count,
        reason=reason,
        equilibration=0 if posed else _equilibration(state, rules),
    )
    batches = [
        (template, group[start : start + size])
        for template, group in (
            (command, walkers),
            (_beyond(command, len(others)), others),
        )
        for start in range(0, len(group), size)
    ]
    return tuple(
        replace(template, batch=batch, walkers=tuple(group))
        for batch, (template, group) in enumerate(batches)
    )


def _equilibration(state: LoopState, rules: Rules) -> int:
    """Return the pieces before the first frames; 0 where no molecule is flexible."""
    flexible = bool(state.conformers) or any(map(has_torsions, state.start))
    return rules.examining.equilibration if flexible else 0


def _beyond(command: Examine, wanted: int) -> Examine:
    """Return the command for frames beyond MD, which need less of it."""
    pieces = min(command.equilibration, 1)
    return replace(command, explorer="shapes", wanted=wanted, equilibration=pieces)


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
    going = [x for x in event.walkers if x.stopped is None]
    if event.explorer != "md":
        last = _beyond(last, len(going))
        going = going if after <= last.equilibration else []
    else:
        frames = max(0, after - last.equilibration)
        walkers = last.wanted - frames * _walker_count(last.wanted, len(state.start))
        going = [x for x in going if x.index < walkers]
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


def _walkers_beyond(state: LoopState, rules: Rules, *, first: int) -> Sequence[Walker]:
    """Return walkers for frames beyond MD, of molecules with bonds to turn or stretch.

    first: the index of the first one.
    """
    able = [i for i, frame in enumerate(state.start) if open_bonds(frame)]
    count = rules.examining.beyond if able else 0
    return [
        replace(
            _new_walker(
                state,
                molecule=able[turn % len(able)],
                name=f"examination/{_examination_number(state)}/{first + turn}",
                kelvin=walker_temperature(
                    rules.examining.temperatures, first + turn, len(able)
                ),
            ),
            index=first + turn,
        )
        for turn in range(count)
    ]


def _examining_walker(state: LoopState, index: int, name: str, rules: Rules) -> Walker:
    kelvin = _examining_temperature(state, index, rules)
    molecule = index % len(state.start)
    walker = _new_walker(state, molecule=molecule, name=name, kelvin=kelvin)
    return replace(walker, index=index)


def _new_walker(state: LoopState, *, molecule: int, name: str, kelvin: float) -> Walker:
    """Return a walker on a first frame of a molecule, by the random stream `name`."""
    rng = random_stream(state.seed, name)
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    velocities = maxwell_boltzmann(frame, kelvin, rng)
    return Walker(0, molecule, frame, velocities, temperature=kelvin)


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
