"""The first labels of a campaign, and the MD of its validation set. Pure."""

from math import ceil

from alloop.core.levels import Fidelity
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Prepare, Sample
from alloop.loop.label_choice import label_command
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState


def prepare_commands(state: LoopState, rules: Rules) -> tuple[Prepare, ...]:
    """Return a command for each molecule without first labels or validation frames."""
    has_test = bool(state.validation_frames())
    seeding = rules.seeding
    commands = []
    for molecule, frame in enumerate(state.start):
        if has_test and not _missing_fidelities(state, molecule, rules):
            continue
        test = (
            0
            if has_test
            else _equal_part(seeding.validation, molecule, len(state.start))
        )
        seeds = _equal_part(
            max(seeding.cheap, seeding.expensive), molecule, len(state.start)
        )
        walkers = ceil(test / seeding.per_walker)
        commands.append(Prepare(molecule, frame, seeds=seeds, walkers=walkers))
    return tuple(commands)


def seed_label_commands(
    state: LoopState, event: e.Prepared, rules: Rules
) -> tuple[LabelFrame, ...]:
    """Return the commands to label a molecule's first frames."""
    molecule, molecules = event.molecule, len(state.start)
    counts: dict[Fidelity, int] = {
        "expensive": _equal_part(rules.seeding.expensive, molecule, molecules),
        "cheap": _equal_part(rules.seeding.cheap, molecule, molecules),
    }
    return tuple(
        label_command(
            state, frame, molecule, fidelity, "seed", "drawn around the minimum"
        )
        for fidelity in _missing_fidelities(state, molecule, rules)
        for frame in event.seeds[: counts[fidelity]]
    )


def _missing_fidelities(
    state: LoopState, molecule: int, rules: Rules
) -> tuple[Fidelity, ...]:
    """Return the fidelities without training labels of the molecule from the user."""
    needed: tuple[Fidelity, ...] = (
        ("expensive",) if rules.is_single_fidelity else ("expensive", "cheap")
    )
    supplied = {
        entry.fidelity
        for entry in state.entries()
        if entry.purpose == "given" and entry.molecule == molecule
    }
    return tuple(fidelity for fidelity in needed if fidelity not in supplied)


def sample_commands(
    state: LoopState, event: e.Prepared, rules: Rules
) -> tuple[Sample, ...]:
    """Return the commands for the MD of a molecule's part of the validation set.

    Its walkers divide the frames evenly, so that no label above their number is bought.
    """
    part = _equal_part(rules.seeding.validation, event.molecule, len(state.start))
    walkers = len(event.starts)
    frames = [_equal_part(part, index, walkers) for index in range(walkers)]
    return tuple(
        Sample(walker, frames=min(count, rules.seeding.per_walker))
        for walker, count in zip(event.starts, frames, strict=True)
        if count
    )


def _equal_part(total: int, index: int, parts: int) -> int:
    """Return the share of part `index` when `total` is divided into `parts` parts."""
    return total // parts + (index < total % parts)
