"""The labels of a training, split into training, validation and test sets.

Files of labels that a command line names become sections of the YAML file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase.io import read

from alloop.config.sections.data import Labelled, Labels, Store
from alloop.config.sections.plan import Plan
from alloop.config.sections.training import (
    Asteroid,
    OptimiserSection,
    Stages,
    TwoHeads,
)
from alloop.config.starting_data import read_label_file, store_opening
from alloop.config.train_sections import label_sources
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity
from alloop.core.records import LabelSet
from alloop.core.seeds import name_share
from alloop.files.ase_files import DATABASES, UNREADABLE, database_rows
from alloop.files.labelled_frames import LabelledFrame, LabelledFrames, distinct_frames
from alloop.intake import duplicate_frames, read_labels
from alloop.training.trainers.staged_trainer import held_out_split

_OURS = {"energy_unit": "eV", "length_unit": "angstrom"}
_PLAIN = (".xyz", ".extxyz")


@dataclass(frozen=True, slots=True)
class HeldOutShares:
    """Shares of the expensive frames that are held out of training.

    validation: used to monitor training and to calibrate surprise. test: used only at
    the end, where no test set is given. The split depends on a frame's id alone, so
    that a frame keeps its set when others are added.
    """

    validation: float = 0.1
    test: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class TrainMaterial:
    """Labels of both levels (cheap ones may be missing), and the held-out sets.

    Frames of `validation` and `test` have no cheap label in `cheap`. warnings: about
    suspicious labels that are not refused.
    """

    cheap: LabelSet
    expensive: LabelSet
    validation: LabelSet
    test: LabelSet
    warnings: tuple[str, ...] = ()


def read_material(plan: Plan, shares: HeldOutShares) -> TrainMaterial:
    """Read and split the labels of a training.

    Paths are relative to the working folder. Raises InputError where labels cannot be
    read or disagree, or where test frames are also training frames.
    """
    warnings: list[str] = []
    cheap, expensive = (
        distinct_frames(_read_items(label_sources(plan), level, warnings), level)
        for level in ("cheap", "expensive")
    )
    if not expensive:
        raise InputError("expected expensive labels to learn from, got none")
    test = distinct_frames(_supplied_test(plan, warnings), "test")
    training_frames = [*cheap.values(), *expensive.values()]
    _refuse_duplicates(
        [x.frame for x in test.values()], [x.frame for x in training_frames]
    )
    if not test:
        test = {i: x for i, x in expensive.items() if _is_drawn(i, shares.test)}
        expensive = {i: x for i, x in expensive.items() if i not in test}
    if not expensive:
        raise InputError("all expensive labels became the test set; lower its share")
    training, aside = held_out_split(_label_set(expensive.values()), shares.validation)
    validation = _label_set(()) if aside is None else aside
    warnings += _validation_duplicates(validation, training)
    held = {*test, *(frame.id for frame in validation.batch.frames())}
    cheap = {i: x for i, x in cheap.items() if i not in held}
    if not cheap and _needs_cheap(plan.training):
        raise InputError(
            "expected cheap labels for the stages that learn from them, got none "
            "beside frames held back; bring some, or choose `--training standard`"
        )
    return TrainMaterial(
        cheap=_label_set(cheap.values()),
        expensive=training,
        validation=validation,
        test=_label_set(test.values()),
        warnings=tuple(warnings),
    )


def _needs_cheap(training: OptimiserSection | None) -> bool:
    match training:
        case Asteroid() | TwoHeads():
            return True
        case Stages(stages=stages):
            return any(stage.on != "expensive" for stage in stages)
    return False


def _is_drawn(frame: FrameId, fraction: float) -> bool:
    return name_share(0, f"test/{frame}") < fraction


def _read_items(
    items: Iterable[Labels | Store], level: Fidelity, warnings: list[str]
) -> Iterable[LabelledFrame]:
    for item in items:
        match item:
            case Labels() if item.level == level:
                yield from _labelled_frames(
                    read_label_file(Path(item.labels), item), item.labels, warnings
                )
            case Store() if level in store_opening(Path(item.store)).levels:
                yield from _labelled_frames(
                    _store_labels(item.store, level), item.store, warnings
                )


def _supplied_test(plan: Plan, warnings: list[str]) -> Iterable[LabelledFrame]:
    match plan.validation:
        case Labelled(file=path):
            labelled = read_label_file(Path(path), plan.validation, energies_alone=True)
            yield from _labelled_frames(labelled, path, warnings)
        case Store(store=path):
            yield from _labelled_frames(_store_labels(path, "test"), path, warnings)


def _store_labels(
    path: str, fidelity: Fidelity | Literal["test"]
) -> LabelledFrames | None:
    """Return a store's labels of a fidelity, or its test set; None without any."""
    from alloop.history.reader import read_history

    labels = read_history(Path(path)).state.labels
    needed = (
        labels.validation_frames()
        if fidelity == "test"
        else labels.trained_on(fidelity)
    )
    return read_labels(path, fidelity=fidelity) if needed else None


def _labelled_frames(
    intake: LabelledFrames | None, path: str, warnings: list[str]
) -> Iterable[LabelledFrame]:
    if intake is None:
        return
    warnings += [f"{path}: {text}" for text in intake.warnings]
    yield from intake


def _refuse_duplicates(test: Sequence[Frame], training_frames: Sequence[Frame]) -> None:
    duplicates = duplicate_frames(test, training_frames)
    if duplicates:
        first, other = duplicates[0]
        raise InputError(
            f"{len({i for i, _ in duplicates})} of {len(test)} test frames are trained "
            f"on too (the first is frame {first}, frame {other} of the labels); take "
            "them out of one of the two"
        )


def _validation_duplicates(validation: LabelSet, training: LabelSet) -> list[str]:
    """Return a warning if validation frames are also training frames."""
    duplicates = duplicate_frames(
        [*validation.batch.frames()], [*training.batch.frames()]
    )
    if not duplicates:
        return []
    return [
        f"{len({i for i, _ in duplicates})} of {len(validation)} validation frames are "
        "learned from too, turned or moved; take them out of the labels"
    ]


def _label_set(labelled: Iterable[LabelledFrame]) -> LabelSet:
    rows = list(labelled)
    return LabelSet.of(
        [x.frame for x in rows],
        [x.energy for x in rows],
        [x.forces for x in rows],
        [x.stress for x in rows],
    )


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """Label files by level, a test set, and the units of files that do not state them.

    Files of `alloop label` and `alloop export` are in eV and Å; for any other file the
    units must be given.
    """

    expensive: Sequence[Path]
    cheap: Sequence[Path]
    test: Path | None
    energy_unit: str | None = None
    length_unit: str | None = None

    def tree(self) -> dict[str, Any]:
        """Return the sections `start` and `test`, each if files are named for it.

        Raises InputError for a file that does not exist or whose units are unknown.
        """
        levels = {"expensive": self.expensive, "cheap": self.cheap}
        start = [
            {"labels": str(file), "level": level, **self._units(file)}
            for level, files in levels.items()
            for file in files
        ]
        test = {} if self.test is None else {"test": self._test(self.test)}
        return {**({"start": start} if start else {}), **test}

    def _test(self, file: Path) -> dict[str, Any]:
        if file.is_dir():
            return {"store": str(file)}
        return {"file": str(file), **self._units(file)}

    def _units(self, file: Path) -> Mapping[str, str]:
        if file.is_dir():
            raise InputError(
                f"expected a file of labels, {file} is a folder; a store goes first: "
                f"alloop train {file}"
            )
        if not file.is_file():
            raise InputError(f"expected a file of labels, {file} is not there")
        units = {"energy_unit": self.energy_unit, "length_unit": self.length_unit}
        missing = [key for key, unit in units.items() if unit is None]
        if missing and _is_alloop_file(file):
            return _OURS
        if missing:
            options = " and ".join(f"--{key.replace('_', '-')}" for key in missing)
            raise InputError(
                f"expected the units of {file}, which does not say them; give {options}"
            )
        return {key: str(unit) for key, unit in units.items()}


def _is_alloop_file(file: Path) -> bool:
    """Return True if alloop wrote the file, judged by the keys of its first frame."""
    if file.suffix not in (*_PLAIN, *DATABASES):
        return False
    try:
        first = (
            database_rows(file)[0] if file.suffix in DATABASES else read(file, index=0)
        )
    except UNREADABLE:
        return False  # the label reader reports the error
    return {"REF_energy", "frame", "level"} <= set(first.info)
