"""Forks, which continue another store's history from a record on, and controls.

Records are copied as they are, with their times; of the last one only the event is
copied, since the fork's own rules decide what follows it. Tasks under way in the parent
are not waited for: the fork requests them again where it needs them. The parent may be
running; nothing is written to it.

Control campaigns are forks that spend the same label cost with a simpler strategy, from
before the first decision that differs, so first labels and validation set are the same.
"standard" trains on expensive labels alone, and gets as many more of them as the cheap
labels cost, in no more generations than the campaign has. "random" selects its frames
at random. Each is examined on the frames and labels of the campaign's own examination.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

from alloop import config
from alloop.config import Setup, fixed_differences
from alloop.core.errors import InputError
from alloop.core.records import Label, Unlabelled
from alloop.driver.opening import store_attributes
from alloop.history.examination import examination_frames
from alloop.history.journal_codec import CODEC, event_config, first_configuration
from alloop.history.measured_costs import cheap_in_expensive
from alloop.history.reader import History
from alloop.history.record_index import LabelIndex
from alloop.loop import events as e
from alloop.loop.commands import Explore, Train
from alloop.loop.events import Posed
from alloop.store.archive import Archive
from alloop.store.files import FileSystem, make_folders
from alloop.store.journal import FOLDER, Journal


def refuse_target(parent: Path, out: Path) -> None:
    """Raise InputError if `out` exists, or lies in the store `parent`."""
    if out.exists() or out.is_symlink():
        raise InputError(
            f"expected a place for a new store, {out} exists already; choose another"
        )
    if parent.resolve() in out.resolve().parents:
        raise InputError(
            f"expected a place beside {parent}, {out} lies in it; choose another"
        )


@contextlib.contextmanager
def new_store(out: Path, attrs: Mapping[str, Any]) -> Iterator[Path]:
    """Make a store with these attributes; yield the folder in which to complete it.

    It is moved to `out` when the block ends, and removed if the block fails. A killed
    process leaves a folder that ends in `.partial`, which the next one removes.
    """
    files = FileSystem()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folders(files, out.parent)
    Archive.create(partial, attrs=attrs, codec=CODEC).close()
    try:
        yield partial
        files.replace(partial, out)
        files.sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


NAMES = ("standard", "random")


@dataclass(frozen=True, slots=True)
class FinishedLabels:
    """The labels of the finished campaign, as a read-only cache."""

    label_index: LabelIndex

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record under this key, or None."""
        return self.label_index.get(level, frame)

    def put(self, record: Label | Unlabelled) -> None:
        """Do nothing: the finished campaign gets no more labels."""


def control_stores(store: Path) -> dict[str, Path]:
    """Return the existing control stores of a campaign by name."""
    return {
        name: _control_store(store, name)
        for name in NAMES
        if _control_store(store, name).exists()
    }


def prepare_control(name: str, setup: Setup, history: History) -> Setup:
    """Return a control's configuration; fork its store unless that exists."""
    changes = _control_changes(name, setup, history)
    control = setup.with_changes(
        changes, _control_store(setup.store, name), history.opened
    )
    if not control.store.exists():
        branch_store(
            history.path, control, _fork_record(name, history), {"control": name}
        )
    return control


def _control_changes(name: str, setup: Setup, history: History) -> dict[str, Any]:
    # The campaign has measured the noise of the levels already.
    levels = {fidelity: {"recheck": 0.0} for fidelity in setup.levels}
    # The campaign's own frames are posed instead.
    validation = {"examination": 0, "beyond": 0}
    both = {"name": f"{setup.name}-{name}", "levels": levels, "validation": validation}
    if name == "random":
        return {**both, "flag": {"selection": "random"}}
    budget = setup.rules.budget.expensive + round(cheap_in_expensive(history))
    every = standard_interval(setup, budget)
    return {
        **both,
        "budget": {"cheap": 0, "expensive": budget, "split": "fixed"},
        "seeds": {"cheap": 0},
        "training": {"kind": "standard", "every": every},
        "refine": None,
    }


def standard_interval(setup: Setup, budget: int) -> int:
    """Return the expensive labels between two generations of standard training.

    They are the campaign's, or so many more that a budget (of expensive labels) is
    spent in as many generations: where a cheap label costs nearly as much as an
    expensive one there would be many more trainings, each on hardly more labels.
    """
    rules = setup.rules
    rounds = ceil((rules.budget.expensive - rules.seeding.expensive) / rules.every)
    return max(rules.every, ceil((budget - rules.seeding.expensive) / max(1, rounds)))


def posed_frames(history: History) -> Posed | None:
    """Return the labelled frames of the campaign's last examination, for its controls.

    None without any.
    """
    numbers = history.record_index.examinations
    if not numbers:
        return None
    level = history.state.levels["expensive"]
    frames_by_key = {
        x.frame.id: (x.frame, x.molecule)
        for x in examination_frames(history)
        if isinstance(history.label_index.get(level, x.frame.id), Label)
    }
    frames = [frames_by_key[key] for key in sorted(frames_by_key)]
    if not frames:
        return None
    return Posed(tuple(f for f, _ in frames), tuple(m for _, m in frames))


def _fork_record(name: str, history: History) -> int:
    """Return the number of the record at whose event the control is forked."""
    parting = Train if name == "standard" else Explore
    return next(
        entry.seq
        for entry in history.entries
        if any(isinstance(command, parting) for command in entry.turn.commands)
    )


def _control_store(store: Path, name: str) -> Path:
    return store.with_suffix(".controls") / f"{name}.zarr"
