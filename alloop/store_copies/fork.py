"""Forks: new stores that continue another's history from some record on.

Records are copied as they are, with their times; of the last one only the event is
copied, since the fork's own rules decide what follows it. Tasks under way in the parent
are not waited for: the fork requests them again where it needs them. The parent may be
running; nothing is written to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from alloop import config
from alloop.config import Setup, fixed_differences
from alloop.core.errors import InputError
from alloop.driver.opening import store_attributes
from alloop.history.journal_codec import CODEC, event_config, first_configuration
from alloop.loop import events as e
from alloop.store.archive import Archive
from alloop.store.files import FileSystem
from alloop.store.journal import FOLDER, Journal
from alloop.store_copies.new_store import new_store, refuse_target

_NOTABLE = {"Opened", "Amended", "Forked", "Trained"}
_Turns: TypeAlias = list[tuple[int, e.Turn]]


def fork_store(
    parent: Path, out: Path, at: int | None = None, rules: Path | None = None
) -> None:
    """Make a store `out` that continues from generation `at` of the store `parent`.

    Parameters
    ----------
    at
        By default the newest generation.
    rules
        A campaign's YAML file whose rules replace those in force in the parent. Its
        seed, start and levels must be the parent's; its `store:` is ignored.

    Raises:
    ------
    InputError
        There is no such generation, `out` exists already, or the file describes another
        campaign.
    """
    refuse_target(parent, out)
    with Archive.open(parent, CODEC) as archive:
        text = first_configuration(archive.attrs, parent)
    turns = list(_notable_turns(parent))
    cut = _cut_record(parent, turns, at)
    branch_store(parent, _fork_setup(parent, out, turns, text, rules), cut)


def branch_store(
    parent: Path, setup: Setup, cut: int, more: Mapping[str, Any] | None = None
) -> None:
    """Make the store of a configuration, with the records of `parent` up to `cut`.

    more: further attributes. The store appears whole or not at all.
    """
    origin = {"parent": str(parent.absolute()), "parent_record": cut}
    attrs = store_attributes(setup) | origin | dict(more or {})
    with new_store(setup.store, attrs) as partial:
        _copy_records(parent, partial, cut, FileSystem())
        _complete_store(parent, partial, cut, setup.text)


def _copy_records(parent: Path, partial: Path, cut: int, files: FileSystem) -> None:
    old = Journal(parent / FOLDER)
    begin = _copy_packs(parent, partial, cut, files)
    new = Journal(partial / FOLDER, writable=True, files=files)
    for entry in old.iterate(begin):
        if entry.seq == cut:
            turn = CODEC.decode(entry.record)
            return new.append(cut, CODEC.encode(e.Turn(turn.event)), entry.time)
        new.append(entry.seq, entry.record, entry.time)
    raise ValueError(f"{parent} ends before record {cut}")


def _copy_packs(parent: Path, partial: Path, cut: int, files: FileSystem) -> int:
    """Copy the packs before the cut as they are; return the next record's number.

    The last pack is left out, since a running parent may replace it meanwhile.
    """
    begin = 0
    for span in Journal(parent / FOLDER).listing().packs[:-1]:
        if span.first != begin or span.last >= cut:
            break
        data = (parent / FOLDER / span.name).read_bytes()
        files.write(partial / FOLDER / span.name, data)
        begin = span.last + 1
    return begin


def _complete_store(parent: Path, partial: Path, cut: int, text: str) -> None:
    """Add the models of the records, and a record of the fork's origin."""
    with (
        Archive.open(parent, CODEC) as old,
        Archive.open(partial, CODEC, "w") as new,
    ):
        generation = 0
        for _, turn in _notable_turns(partial):
            match turn.event:
                case e.Opened(model=str(model)):
                    new.put_model(model, old.model(model))
                case e.Trained(model=model):
                    new.put_model(model, old.model(model))
                    generation = turn.event.generation
        origin = str(parent.absolute())
        new.append(e.Turn(e.Forked(origin, cut, generation, text)))
        new.seal()


def _notable_turns(store: Path) -> Iterator[tuple[int, e.Turn]]:
    """Yield the records of the opening, of configurations and of trainings.

    Some others may be among them; the rest are only checked for damage.
    """
    for entry in Journal(store / FOLDER).iterate():
        if _NOTABLE & entry.record.versions.keys():
            yield entry.seq, CODEC.decode(entry.record)


def _cut_record(parent: Path, turns: _Turns, at: int | None) -> int:
    trained = {
        turn.event.generation: seq
        for seq, turn in turns
        if isinstance(turn.event, e.Trained)
    }
    chosen = max(trained, default=0) if at is None else at
    if chosen not in trained:
        generations = ", ".join(map(str, sorted(trained))) or "none yet"
        raise InputError(
            f"expected a generation of {parent} (there are: {generations}), "
            f"got {chosen}"
        )
    return trained[chosen]


def _fork_setup(
    parent: Path, out: Path, turns: _Turns, text: str, rules: Path | None
) -> Setup:
    (_, first), *_ = turns
    assert isinstance(first.event, e.Opened)  # a generation implies it
    if rules is None:
        for _, turn in turns:
            text = event_config(turn.event) or text
        setup = Setup.from_store(text, first.event, out)
    else:
        setup = replace(config.load_campaign(rules), store=out)
    wrong = fixed_differences(setup, first.event)
    if wrong:
        raise InputError(
            f"a fork of {parent} keeps its seed, start and levels, but "
            f"{'; '.join(wrong)}"
        )
    return setup
