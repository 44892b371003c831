"""A campaign's first data: molecules, labels of the user, a validation set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alloop.config.molecules import (
    molecule_by_name,
    molecule_composition,
    read_start_file,
    start_problems,
)
from alloop.config.problems import Problem
from alloop.config.sections.data import (
    File,
    Labelled,
    Labels,
    Molecule,
    Sampled,
    Store,
    Units,
)
from alloop.config.sections.plan import Plan
from alloop.core.atoms import hill_formula
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Label
from alloop.files.labelled_frames import energy_conflict
from alloop.loop.events import Given, Opened

if TYPE_CHECKING:
    from alloop.intake import LabelledFrames

_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class SuppliedLabel:
    """A label that the user supplied; `path` is the key of the YAML that names it."""

    path: str
    fidelity: Fidelity
    frame: Frame
    label: Label


@dataclass(slots=True)
class StartingData:
    """The starting data that was found, and the problems on the way."""

    start: list[Frame] = field(default_factory=list)
    train: list[SuppliedLabel] = field(default_factory=list)
    validation: list[SuppliedLabel] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def given(self) -> tuple[Given, ...]:
        """Return the labels that the user supplied, with the index of their start."""
        home = {
            molecule_composition(f): i for i, f in reversed(list(enumerate(self.start)))
        }
        return tuple(
            Given(
                x.frame, home[molecule_composition(x.frame)], x.fidelity, x.label, test
            )
            for test, items in ((False, self.train), (True, self.validation))
            for x in items
        )

    def refuse(self, path: str, text: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, text))


def read_starting_data(
    plan: Plan, folder: Path, levels: Mapping[Fidelity, Level]
) -> StartingData:
    """Read all data that the plan names; nothing is written."""
    found = StartingData()
    for index, item in enumerate(plan.start):
        path = f"start.{index}"
        try:
            _add_start_item(found, item, path, folder, levels)
        except AlloopError as error:
            found.refuse(path, str(error))
    try:
        _add_validation(found, plan, folder, levels)
    except AlloopError as error:
        found.refuse("validation", str(error))
    found.train = _distinct_labels(found.train, found)
    for supplied in _new_starts(found):
        _add_start_frames(found, [supplied.frame], supplied.path, levels)
    _refuse_unknown_molecules(found)
    _refuse_duplicates(found)
    return found


def store_opening(path: Path) -> Opened:
    """Return the first event of a store; raise InputError if it has none.

    Imports zarr.
    """
    from alloop.history.reader import CODEC
    from alloop.store.archive import Archive

    with Archive.open(path, CODEC) as archive:
        for record in archive.records():
            event = record.record.event
            if isinstance(event, Opened):
                return event
    raise InputError(f"{path} holds no campaign yet; run it first")


def _add_start_item(
    found: StartingData,
    item: Molecule | File | Labels | Store,
    path: str,
    folder: Path,
    levels: Mapping[Fidelity, Level],
) -> None:
    match item:
        case Molecule():
            _add_start_frames(found, [molecule_by_name(item)], path, levels)
        case File():
            _add_start_frames(found, read_start_file(item, folder), path, levels)
        case Labels():
            if item.level not in levels:
                raise InputError(
                    "the labels are cheap ones, `levels.cheap` is missing; add it"
                )
            intake = read_label_file(folder / item.labels, item)
            found.train += _supplied_labels(
                path, item.level, intake, levels[item.level]
            )
            found.warnings += [f"{path}: {text}" for text in intake.warnings]
        case Store():
            found.train += _from_store(folder / item.store, path, levels)


def _add_start_frames(
    found: StartingData,
    frames: list[Frame],
    path: str,
    levels: Mapping[Fidelity, Level],
) -> None:
    for frame in frames:
        for flaw in start_problems(frame, list(levels.values())):
            found.refuse(path, flaw)
    found.start += frames


def _add_validation(
    found: StartingData, plan: Plan, folder: Path, levels: Mapping[Fidelity, Level]
) -> None:
    match plan.validation:
        case Labelled():
            intake = read_label_file(folder / plan.validation.file, plan.validation)
            found.warnings += [f"validation: {text}" for text in intake.warnings]
        case Store():
            from alloop.intake import read_labels

            path = folder / plan.validation.store
            _same_level(path, "expensive", levels["expensive"])
            intake = read_labels(path, fidelity="test")
        case Sampled():
            return
    found.validation = _distinct_labels(
        _supplied_labels("validation", "expensive", intake, levels["expensive"]), found
    )


def read_label_file(
    path: Path, units: Units, energies_alone: bool = False
) -> "LabelledFrames":
    """Return the labels of a file in the units that its section declares.

    energies_alone: frames without forces are accepted, as in `read_labels`.
    """
    from alloop.intake import read_labels  # slow: imports zarr and the store

    declared = units.model_dump(include=set(Units.model_fields) - {"multiplicity"})
    return read_labels(path, **declared, energies_alone=energies_alone)


def _from_store(
    path: Path, where: str, levels: Mapping[Fidelity, Level]
) -> list[SuppliedLabel]:
    from alloop.intake import read_labels

    theirs = store_opening(path).levels
    same = [name for name in levels if theirs.get(name) == levels[name].id]
    if not same:
        raise InputError(
            f"expected labels at a level of this campaign, {path} has none; use the "
            "levels of that campaign, or leave its store out"
        )
    return [
        supplied
        for name in same
        for supplied in _supplied_labels(
            where, name, read_labels(path, fidelity=name), levels[name]
        )
    ]


def _same_level(path: Path, fidelity: Fidelity, level: Level) -> None:
    if store_opening(path).levels.get(fidelity) != level.id:
        raise InputError(
            f"expected the {fidelity} level of this campaign, {path} has another one; "
            "use its level, or leave its store out"
        )


def _supplied_labels(
    path: str, fidelity: Fidelity, intake: "LabelledFrames", level: Level
) -> list[SuppliedLabel]:
    return [SuppliedLabel(path, fidelity, x.frame, x.label(level.id)) for x in intake]


def _distinct_labels(
    items: Iterable[SuppliedLabel], found: StartingData
) -> list[SuppliedLabel]:
    """Return one label for each frame and fidelity; two that disagree are a problem."""
    first_of: dict[tuple[str, str], SuppliedLabel] = {}
    for item in items:
        first = first_of.setdefault((item.fidelity, item.frame.id), item)
        energies = first.label.energy, item.label.energy
        if conflict := energy_conflict(item.fidelity, *energies):
            found.refuse(item.path, conflict)
    return list(first_of.values())


def _new_starts(found: StartingData) -> list[SuppliedLabel]:
    """Return the labelled frame of lowest energy for each molecule without a start."""
    known = {molecule_composition(frame) for frame in found.start}
    lowest: dict[tuple[object, ...], SuppliedLabel] = {}
    for item in found.train:
        key = molecule_composition(item.frame)
        best = lowest.setdefault(key, item)
        if item.fidelity == best.fidelity and item.label.energy < best.label.energy:
            lowest[key] = item
    return [item for key, item in lowest.items() if key not in known]


def _refuse_unknown_molecules(found: StartingData) -> None:
    known = {molecule_composition(frame) for frame in found.start}
    unknown = [
        x.frame for x in found.validation if molecule_composition(x.frame) not in known
    ]
    if unknown and not found.problems:
        what = ", ".join(sorted({hill_formula(frame) for frame in unknown}))
        found.refuse(
            "validation",
            f"{what} is in the validation set and not in `start`; add it there",
        )
    found.validation = [
        x for x in found.validation if molecule_composition(x.frame) in known
    ]


def _refuse_duplicates(found: StartingData) -> None:
    if not (found.validation and found.train):
        return
    from alloop.intake import duplicate_frames

    train = [item.frame for item in found.train]
    duplicates = duplicate_frames([item.frame for item in found.validation], train)
    if duplicates:
        pairs = ", ".join(f"{i} (= {j} of training)" for i, j in duplicates[:_SHOWN])
        more = (
            f" and {len(duplicates) - _SHOWN} more" if len(duplicates) > _SHOWN else ""
        )
        found.refuse(
            "validation",
            f"frames that are trained on cannot validate: {pairs}{more}; take them out",
        )
