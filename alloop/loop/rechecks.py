"""The labels that are made again, to measure how noisy their level is. Pure."""

from collections.abc import Iterator
from math import ceil

from alloop.core.seeds import name_share
from alloop.loop import events as e
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState

_LEAST = 3  # labels of a level; fewer do not give its noise


def recheck_commands(state: LoopState, rules: Rules) -> tuple[e.Recheck, ...]:
    """Return the rechecks that are still missing from those that `rules` ask for.

    `rules.recheck` gives the share of the good labels of each level; at least three are
    made again, none twice, and none that the user brought.
    """
    return tuple(
        command
        for fidelity, part in sorted(rules.recheck.items())
        if part > 0 and fidelity in state.levels
        for command in _level_rechecks(state, fidelity, part)
    )


def _level_rechecks(
    state: LoopState, fidelity: str, part: float
) -> Iterator[e.Recheck]:
    level = state.levels[fidelity]
    good = {
        entry.frame
        for entry in state.entries()
        if entry.good and entry.fidelity == fidelity and not entry.brought
    }
    # The order is that of a hash, so that it is a random sample that only grows.
    order = sorted(
        good, key=lambda frame: name_share(state.seed, f"noise/{level}/{frame}")
    )
    commands = [e.Recheck(frame, level, fidelity) for frame in order]
    done = sum(command.name in state.rechecks for command in commands)
    wanted = max(_LEAST, ceil(part * len(good))) - done
    fresh = [command for command in commands if command.name not in state.rechecks]
    yield from fresh[: max(0, wanted)]
