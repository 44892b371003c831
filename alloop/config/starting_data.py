"""The frames and labels that a configuration names: molecules, files, other stores."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alloop.config.molecules import (
    molecule_by_name,
    molecule_composition,
    read_start_file,
    start_problems,
)
from alloop.config.sections.data import (
    File,
    Labelled,
    Labels,
    Molecule,
    ReplayedFrames,
    ReplayedLabels,
    Sampled,
    Smiles,
    Store,
    Units,
)
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import Ready, universal_weights
from alloop.config.yaml_text import Problem
from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Label, LabelSet
from alloop.core.units import Floats
from alloop.files.labelled_frames import energy_conflict
from alloop.labels.gate import check_geometry
from alloop.labels.tolerances import FOREIGN
from alloop.loop.events import Given, Opened
from alloop.md.conformers import smiles_conformers

if TYPE_CHECKING:
    from alloop.intake import LabelledFrames


@dataclass(frozen=True, slots=True, eq=False)
class SuppliedLabel:
    """A label that the user supplied; `path` is the key of the YAML that names it."""

    path: str
    fidelity: Fidelity
    frame: Frame
    label: Label


@dataclass(slots=True)
class StartingData:
    """The starting data that was found, and the problems on the way.

    conformers: by the index of a start, its other conformers.
    """

    start: list[Frame] = field(default_factory=list)
    conformers: dict[int, tuple[Frame, ...]] = field(default_factory=dict)
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
    data = StartingData()
    for index, item in enumerate(plan.start):
        path = f"start.{index}"
        try:
            _add_start_item(
                data, item, path, folder=folder, levels=levels, seed=plan.seed
            )
        except AlloopError as error:
            data.refuse(path, str(error))
    try:
        _add_validation(data, plan, folder, levels)
    except AlloopError as error:
        data.refuse("validation", str(error))
    data.train = _distinct_labels(data.train, data)
    for supplied in _new_starts(data):
        _add_start_frames(data, [supplied.frame], supplied.path, levels)
    _refuse_unknown_molecules(data)
    _refuse_duplicates(data)
    return data


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
    data: StartingData,
    item: Molecule | Smiles | File | Labels | Store,
    path: str,
    *,
    folder: Path,
    levels: Mapping[Fidelity, Level],
    seed: int,
) -> None:
    match item:
        case Molecule():
            _add_start_frames(data, [molecule_by_name(item)], path, levels)
        case Smiles():
            frames = smiles_conformers(item.smiles, item.conformers, seed, item.spin)
            _add_conformers(data, frames, path, levels)
        case File(conformers=True):
            _add_conformers(data, read_start_file(item, folder), path, levels)
        case File():
            _add_start_frames(data, read_start_file(item, folder), path, levels)
        case Labels():
            if item.level not in levels:
                raise InputError(
                    "the labels are cheap ones, `levels.cheap` is missing; add it"
                )
            intake = read_label_file(folder / item.labels, item)
            data.train += _supplied_labels(path, item.level, intake, levels[item.level])
            data.warnings += [f"{path}: {text}" for text in intake.warnings]
        case Store():
            data.train += _from_store(folder / item.store, path, levels)


def _add_start_frames(
    data: StartingData,
    frames: list[Frame],
    path: str,
    levels: Mapping[Fidelity, Level],
) -> None:
    for frame in frames:
        for flaw in start_problems(frame, list(levels.values())):
            data.refuse(path, flaw)
    data.start += frames


def _add_conformers(
    data: StartingData,
    frames: list[Frame],
    path: str,
    levels: Mapping[Fidelity, Level],
) -> None:
    """Add conformers as one start; refuse structures of other atoms or states."""
    first = frames[0]
    for number, frame in enumerate(frames):
        if not (
            np.array_equal(frame.numbers, first.numbers)
            and (frame.charge, frame.spin) == (first.charge, first.spin)
        ):
            data.refuse(
                path,
                f"expected conformers of one molecule, structure {number} has other "
                "atoms, another order of atoms, charge or spin than the first",
            )
            return
        if close := check_geometry(frame, FOREIGN):
            data.refuse(path, f"structure {number} cannot be a molecule: {close}")
    _add_start_frames(data, [first], path, levels)
    data.conformers[len(data.start) - 1] = tuple(frames[1:])


def _add_validation(
    data: StartingData, plan: Plan, folder: Path, levels: Mapping[Fidelity, Level]
) -> None:
    match plan.validation:
        case Labelled():
            intake = read_label_file(folder / plan.validation.file, plan.validation)
            data.warnings += [f"validation: {text}" for text in intake.warnings]
        case Store():
            from alloop.intake import read_labels

            path = folder / plan.validation.store
            _same_level(path, "expensive", levels["expensive"])
            intake = read_labels(path, fidelity="test")
        case Sampled():
            return
    data.validation = _distinct_labels(
        _supplied_labels("validation", "expensive", intake, levels["expensive"]), data
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
    items: Iterable[SuppliedLabel], data: StartingData
) -> list[SuppliedLabel]:
    """Return one label for each frame and fidelity; two that disagree are a problem."""
    first_of: dict[tuple[str, str], SuppliedLabel] = {}
    for item in items:
        first = first_of.setdefault((item.fidelity, item.frame.id), item)
        energies = first.label.energy, item.label.energy
        if conflict := energy_conflict(item.fidelity, *energies):
            data.refuse(item.path, conflict)
    return list(first_of.values())


def _new_starts(data: StartingData) -> list[SuppliedLabel]:
    """Return the labelled frame of lowest energy for each molecule without a start."""
    compositions = {molecule_composition(frame) for frame in data.start}
    lowest: dict[tuple[object, ...], SuppliedLabel] = {}
    for item in data.train:
        key = molecule_composition(item.frame)
        best = lowest.setdefault(key, item)
        if item.fidelity == best.fidelity and item.label.energy < best.label.energy:
            lowest[key] = item
    return [item for key, item in lowest.items() if key not in compositions]


def _refuse_unknown_molecules(data: StartingData) -> None:
    compositions = {molecule_composition(frame) for frame in data.start}
    unknown = [
        x.frame
        for x in data.validation
        if molecule_composition(x.frame) not in compositions
    ]
    if unknown and not data.problems:
        names = ", ".join(sorted({hill_formula(frame) for frame in unknown}))
        data.refuse(
            "validation",
            f"{names} is in the validation set and not in `start`; add it there",
        )
    data.validation = [
        x for x in data.validation if molecule_composition(x.frame) in compositions
    ]


def _refuse_duplicates(data: StartingData) -> None:
    if not (data.validation and data.train):
        return
    from alloop.intake import duplicate_frames

    train = [item.frame for item in data.train]
    duplicates = duplicate_frames([item.frame for item in data.validation], train)
    if duplicates:
        pairs = ", ".join(f"{i} (= {j} of training)" for i, j in duplicates[:_SHOWN])
        more = (
            f" and {len(duplicates) - _SHOWN} more" if len(duplicates) > _SHOWN else ""
        )
        data.refuse(
            "validation",
            f"frames that are trained on cannot validate: {pairs}{more}; take them out",
        )


_SHOWN = 3


@dataclass(slots=True)
class SuppliedSets:
    """The sets of acceptance by name, frames to replay, and problems and warnings."""

    sets: dict[str, LabelSet] = field(default_factory=dict)
    replay: LabelSet | Batch | None = None
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, text: str | None) -> None:
        """Add a problem, unless the text is None."""
        if text is not None:
            self.problems.append(Problem(path, text))


def read_supplied_sets(
    plan: Plan, folder: Path, start: StartingData, model: bytes | None
) -> SuppliedSets:
    """Read the frames of `acceptance.sets` and `training.replay`; writes nothing.

    start: the data of the campaign; model: the user's model, if there is one.
    """
    supplied = SuppliedSets()
    sections = {} if plan.acceptance is None else plan.acceptance.sets
    for name, section in sections.items():
        path = f"acceptance.sets.{name}"
        try:
            intake = read_label_file(folder / section.labels, section)
        except AlloopError as error:
            supplied.refuse(path, str(error))
            continue
        supplied.warnings += [f"{path}: {text}" for text in intake.warnings]
        labels = label_set(intake)
        supplied.sets[name] = labels
        supplied.refuse(path, unknown_frames(plan, labels.batch, start, model))
        supplied.refuse(path, _trained_frames(labels, start))
    if replays(plan):
        _add_replay(supplied, plan, folder, start, model)
    return supplied


def replays(plan: Plan) -> bool:
    """Return True if fine-tuning replays frames."""
    return plan.training is not None and plan.training.replay is not None


def read_replay(plan: Plan, folder: Path) -> tuple[LabelSet | Batch, tuple[str, ...]]:
    """Return the frames that a plan replays, and warnings about them.

    Raises InputError where they cannot be read.
    """
    section = None if plan.training is None else plan.training.replay
    if isinstance(section, ReplayedLabels):
        intake = read_label_file(folder / section.labels, section)
        return label_set(intake), intake.warnings
    assert isinstance(section, ReplayedFrames)
    return pack_frames(read_start_file(section, folder)), ()


def _add_replay(
    supplied: SuppliedSets,
    plan: Plan,
    folder: Path,
    start: StartingData,
    model: bytes | None,
) -> None:
    path = "training.replay"
    try:
        supplied.replay, warnings = read_replay(plan, folder)
    except AlloopError as error:
        supplied.refuse(path, str(error))
        return
    supplied.warnings += [f"{path}: {text}" for text in warnings]
    batch = _batch(supplied.replay)
    supplied.refuse(path, unknown_frames(plan, batch, start, model))
    replayed = {frame.id for frame in batch.frames()}
    for name, labels in supplied.sets.items():
        if twice := _frames_among(labels, replayed):
            text = f"frames that are replayed cannot test: {twice}; take them out"
            supplied.refuse(f"acceptance.sets.{name}", text)


def label_set(intake: "LabelledFrames") -> LabelSet:
    """Return the labels of a file as one set."""
    return LabelSet.of(intake.frames, intake.energies, intake.forces, intake.stress)


def unknown_frames(
    plan: Plan, batch: Batch, start: StartingData, model: bytes | None
) -> str | None:
    """Return a sentence about frames that the potential cannot treat, or None.

    A network knows the elements that it is trained on, a model that the user supplied
    its own ones too, and a universal potential all that it was made for.
    """
    if (universal := universal_weights(plan.potential)) is not None:
        return universal.refusal(batch)
    elements = {int(z) for frame in start.start for z in frame.numbers}
    if isinstance(plan.potential, Ready) and model is not None:
        elements |= _model_elements(model)
    strange = sorted(set(batch.numbers.tolist()) - elements)
    if not elements or not strange:
        return None
    return (
        f"the potential is trained on {_symbols(elements)}, got frames with "
        f"{_symbols(strange)}; take them out"
    )


def same_labels(labels: LabelSet | Batch, other: LabelSet | Batch) -> bool:
    """Return True if two sets hold the same frames in order, with equal labels."""
    return frames_digest(labels) == frames_digest(other)


def _batch(frames: LabelSet | Batch) -> Batch:
    return frames if isinstance(frames, Batch) else frames.batch


def frames_digest(frames: LabelSet | Batch) -> bytes:
    """Return a hash of frames and, where they have some, of their labels."""
    digest = hashlib.sha256()
    for frame in _batch(frames).frames():
        digest.update(frame.id.encode())
    if isinstance(frames, LabelSet):
        digest.update(_bytes(frames.energies) + _bytes(frames.forces))
    return digest.digest()


def _bytes(values: Floats) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _model_elements(model: bytes) -> set[int]:
    from alloop.models.checkpoint import checkpoint_from_bytes
    from alloop.potentials.restore import inner_checkpoint

    settings = inner_checkpoint(checkpoint_from_bytes(model)).settings
    return {int(z) for z in settings.get("references") or {}}


def _trained_frames(labels: LabelSet, start: StartingData) -> str | None:
    twice = _frames_among(labels, {item.frame.id for item in start.train})
    if not twice:
        return None
    return f"frames that are trained on cannot test: {twice}; take them out"


def _frames_among(labels: LabelSet, ids: Collection[FrameId]) -> str:
    """Return the indices of the frames that are among `ids`, as text."""
    frames = [frame.id for frame in labels.batch.frames()]
    return _listed([str(index) for index, key in enumerate(frames) if key in ids])


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _symbols(numbers: Collection[int]) -> str:
    return ", ".join(chemical_symbol(z) for z in sorted(numbers))
