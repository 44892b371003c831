"""Trainings, and what runs beside them: rechecks, parts, the fit of label costs. Pure.

Rechecks are labels that are made again, to measure how noisy their level is.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from alloop.core.levels import Fidelity
from alloop.core.seeds import name_share
from alloop.loop.commands import Command, LabelFrame, Price, Recheck, Stop, Train
from alloop.loop.level_gains import part_commands
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import spent_reason

_LEAST = 3  # labels of a level; fewer do not give its noise


def train_and_price(state: LoopState, rules: Rules) -> tuple[Command, ...]:
    """Return the next training, some rechecks of labels and the fit of label costs.

    The training is left out while the generation before it is not there. The rest runs
    on cores that the training leaves idle. Where exploration goes on beside the
    training, rechecks come with the last labels of a round instead (`with_rechecks`),
    and only those that no such labels will follow come here.
    """
    generation = state.generations.labelled + 1
    train = (
        _train_command(state, rules)
        if state.generations.count + 1 == generation
        else ()
    )
    if any(isinstance(command, Stop) for command in train):
        return train
    wait = rules.staleness > 0 and spent_reason(state, rules) is None
    return (
        *train,
        *(() if wait else recheck_commands(state, rules)),
        *part_commands(state, rules),
        Price(generation),
    )


def waiting_training(state: LoopState, rules: Rules) -> tuple[Command, ...]:
    """Return the next training that had to wait, on the labels fixed for it."""
    blocks = state.generations.waiting.get(state.generations.count + 1)
    if blocks is None:
        return ()
    then = replace(state, labels=state.labels.first_blocks(blocks))
    return _train_command(then, rules)


def _train_command(state: LoopState, rules: Rules) -> tuple[Command, ...]:
    costly, doubted = rules.barred_doubts("expensive"), rules.barred_doubts("cheap")
    expensive = state.labels.trained_on("expensive", costly)
    if not expensive:
        return (Stop("no expensive label succeeded: `alloop log` tells why"),)
    heldout = (
        ()
        if rules.is_single_fidelity
        else state.labels.held_out(state.seed, rules.heldout, doubted)
    )
    cheap = (
        () if rules.is_single_fidelity else state.labels.trained_on("cheap", doubted)
    )
    train = Train(
        generation=state.generations.count + 1,
        cheap=tuple(sorted(set(cheap) - set(heldout))),
        expensive=expensive,
        test=state.labels.validation_frames(costly),
        parent=state.generations.model,
        heldout=heldout,
        length=rules.last if spent_reason(state, rules) else 1.0,
        parent_accepted=state.generations.model_accepted,
    )
    return (train,)


def with_rechecks(
    labels: tuple[LabelFrame, ...], state: LoopState, rules: Rules
) -> tuple[Command, ...]:
    """Return the last labels of a round and, with staleness, the rechecks due by now.

    Rechecks have the lowest priority, so they run on workers that would wait for the
    last of these labels.
    """
    if not labels or rules.staleness == 0:
        return labels
    return (*labels, *recheck_commands(state, rules))


def recheck_commands(state: LoopState, rules: Rules) -> tuple[Recheck, ...]:
    """Return the rechecks that are still missing from those that `rules` ask for.

    `rules.recheck` gives the share of the good labels of each level; at least three are
    made again, none twice, and none that the user supplied.
    """
    return tuple(
        command
        for fidelity, part in sorted(rules.recheck.items())
        if part > 0 and fidelity in state.levels
        for command in _level_rechecks(state, fidelity, part)
    )


def _level_rechecks(
    state: LoopState, fidelity: Fidelity, part: float
) -> Iterator[Recheck]:
    level = state.levels[fidelity]
    good = {
        entry.frame
        for entry in state.labels.entries()
        if entry.good and entry.fidelity == fidelity and not entry.supplied
    }
    # The order is that of a hash, so that it is a random sample that only grows.
    order = sorted(
        good, key=lambda frame: name_share(state.seed, f"noise/{level}/{frame}")
    )
    commands = [Recheck(frame, level, fidelity) for frame in order]
    done = sum(command.name in state.labels.rechecks for command in commands)
    missing = max(_LEAST, ceil(part * len(good))) - done
    fresh = [
        command for command in commands if command.name not in state.labels.rechecks
    ]
    yield from fresh[: max(0, missing)]
