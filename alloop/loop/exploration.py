"""The walkers of a round, and their pieces of MD. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.loop import events as e
from alloop.loop.commands import Explore
from alloop.loop.label_choice import RoundQuotas
from alloop.loop.rules import Rules, walker_temperature
from alloop.loop.state import LoopState
from alloop.md.integrate import maxwell_boltzmann


def explore_commands(state: LoopState, rules: Rules) -> tuple[Explore, ...]:
    """Return the first commands of the next round, one for each batch of walkers.

    state.exploring_generation: the generation that explores.
    """
    walkers = [
        _round_walker(state, index, rules) for index in range(rules.exploring.walkers)
    ]
    size = rules.exploring.batch
    batches = [walkers[i : i + size] for i in range(0, len(walkers), size)]
    return tuple(
        _explore_piece(state, rules, state.round + 1, number, 0, batch)
        for number, batch in enumerate(batches)
    )


def next_explore_piece(
    state: LoopState, event: e.Explored, rules: Rules
) -> tuple[Explore, ...]:
    """Return the command for a batch's next piece, none at the end of the round."""
    after = event.piece + 1
    if after * rules.exploring.piece >= rules.exploring.steps:
        return ()
    return (
        _explore_piece(state, rules, event.round, event.batch, after, event.walkers),
    )


def _explore_piece(
    state: LoopState,
    rules: Rules,
    round_: int,
    batch: int,
    piece: int,
    walkers: Sequence[Walker],
) -> Explore:
    exploring = rules.exploring
    steps = min(exploring.piece, exploring.steps - piece * exploring.piece)
    picks = RoundQuotas.from_state(state, rules)
    return Explore(
        round=round_,
        piece=piece,
        batch=batch,
        generation=state.exploring_generation,
        model=state.summaries[state.exploring_generation].model,
        walkers=tuple(_at_temperature(state, x, rules) for x in walkers),
        steps=steps,
        keep=3 * max(picks.cheap, picks.expensive),
        controls=picks.controls if rules.selection == "flagged" else picks.all,
    )


def _round_walker(state: LoopState, index: int, rules: Rules) -> Walker:
    """Return the walker where it was, or a new one if it never moved or was stopped.

    By the naive protocol it is always a new one.
    """
    walker = state.walkers.get(index)
    goes_on = rules.exploring.protocol != "naive"
    if goes_on and walker is not None and walker.stopped is None:
        return walker
    molecule = index % len(state.start)
    rng = random_stream(state.seed, f"walker/{index}/{state.round + 1}")
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    kelvin = _temperature(state, index, rules)
    velocities = maxwell_boltzmann(frame, kelvin, rng)
    return Walker(index, molecule, frame, velocities, temperature=kelvin)


def _at_temperature(state: LoopState, walker: Walker, rules: Rules) -> Walker:
    """Return the walker at the temperature that the rules give it now."""
    kelvin = _temperature(state, walker.index, rules)
    if walker.temperature == kelvin:
        return walker
    return replace(walker, temperature=kelvin)


def _temperature(state: LoopState, index: int, rules: Rules) -> float:
    return walker_temperature(rules.exploring.temperatures, index, len(state.start))
