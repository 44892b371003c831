"""The opening of a campaign's store, and the checks that it is the campaign's own."""

from typing import Any

from alloop.config import Setup, fixed_differences
from alloop.config.build import child_limits
from alloop.config.checks.plan_checks import device_problems, tried_level_problems
from alloop.config.molecules import element_symbols
from alloop.config.yaml_text import ConfigError, Problem
from alloop.core.errors import InputError
from alloop.driver.own_parts import OwnParts, refuse_other_parts
from alloop.history.journal_codec import CODEC
from alloop.labels.programs import outside_code, program_of
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.store.archive import Archive


def campaign_opening(setup: Setup, parts: OwnParts) -> e.Opened:
    """Return the first event of a campaign, which never changes for its store."""
    return e.Opened(
        seed=setup.seed,
        levels={fidelity: level.id for fidelity, level in setup.levels.items()},
        start=setup.start,
        conformers=tuple(
            setup.conformers.get(molecule, ()) for molecule in range(len(setup.start))
        )
        if setup.conformers
        else (),
        given=setup.given,
        model=setup.model_id,
        parts=parts.names(),
        sets=setup.sets,
        replay=setup.replay,
    )


def refuse_another(setup: Setup, first: e.Opened | None, parts: OwnParts) -> None:
    """Raise InputError if a store was begun with another seed, start, levels or parts.

    first: its first event, None where it has none yet.
    """
    wrong = [] if first is None else fixed_differences(setup, first)
    if wrong:
        raise InputError(
            f"{setup.store} belongs to another campaign: {'; '.join(wrong)}. "
            "Choose another `store:`, or put the old values back"
        )
    if first is not None:
        refuse_other_parts(parts, first.parts)


def refuse_machine(setup: Setup) -> None:
    """Raise ConfigError if a level or the device of the campaign cannot be used here.

    A configuration that was just read has been checked, but for the code that levels
    name: it is imported here alone, in a child process.
    """
    tried = {
        name: level
        for name, level in setup.levels.items()
        if outside_code(level) or (program_of(level).problems and not setup.is_checked)
    }
    problems = [
        Problem(f"levels.{name}", text)
        for name, text in tried_level_problems(
            tried, element_symbols(setup.start), child_limits(setup.plan)
        )
    ]
    if not setup.is_checked:  # its store may come from another machine
        problems += device_problems(setup.plan)
    if problems:
        raise ConfigError(f"the campaign in {setup.store}", problems)


def verify_models(archive: Archive, state: LoopState) -> None:
    """Raise DamagedError if a model in use is not the one that the journal names."""
    used = {
        state.generations.model,
        *(summary.model for summary in state.generations.summaries.values()),
    }
    for model in sorted(used - {None}, key=str):
        archive.model(str(model))


def store_attributes(setup: Setup) -> dict[str, Any]:
    """Return the attributes of the store: name, seed, configuration and levels."""
    return {
        "name": setup.name,
        "seed": setup.seed,
        "config": setup.text,
        "levels": {
            fidelity: {"id": level.id, "title": level.title, "kind": level.kind}
            | {"settings": level.settings}
            for fidelity, level in setup.levels.items()
        },
    }


def open_archive(setup: Setup, parts: OwnParts) -> Archive:
    """Open the store of a campaign for writing, made where there is none."""
    if setup.store.exists():
        return Archive.open(setup.store, CODEC, mode="w")
    names = parts.names()
    attrs = store_attributes(setup) | ({"parts": names} if names else {})
    return Archive.create(setup.store, attrs=attrs, codec=CODEC)
