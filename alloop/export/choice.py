"""Choices of labels of a campaign: by level, split, generation and doubt. Pure."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from alloop.core.doubts import KEY, Doubt, doubts_of_details
from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.records import Label
from alloop.core.seeds import Split, held_out, split_of
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.loop.commands import Train

Level: TypeAlias = Literal["cheap", "expensive"]


Levels: TypeAlias = Literal["cheap", "expensive", "both"]


Splits: TypeAlias = Literal["train", "validation", "test", "all"]


LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of labels of a campaign: of one level or both, of one split or all.

    split: "train" is the training set of a generation, "validation" the frames that
    influenced the campaign (its validation set, cheap frames held out to calibrate
    surprise, and the share `validation` of the expensive ones that its trainer held
    out, if any), "test" those used only for examination. at: as of this generation; by
    default the last one, without labels that were excluded since. without: leave out
    labels with these doubts.
    """

    level: Levels = "expensive"
    split: Splits = "train"
    at: int | None = None
    without: Collection[Doubt] = ()
    validation: float = 0.0

    @property
    def levels(self) -> tuple[Level, ...]:
        """The chosen levels."""
        return LEVELS if self.level == "both" else (self.level,)


USUAL = Choice()


@dataclass(frozen=True, slots=True)
class ChosenLabel:
    """A label and its split."""

    entry: LabelEntry
    split: Split


def parse_doubts(names: str) -> frozenset[Doubt]:
    """Parse a list of doubts such as "instability,multireference".

    Raises InputError where one is not known.
    """
    try:
        return doubts_of_details({KEY: names.replace(" ", "")})
    except KeyError as error:
        names_of_doubts = ", ".join(doubt.name.lower() for doubt in Doubt)
        raise InputError(
            f"expected some of {names_of_doubts}, joined by commas, got `{names}`"
        ) from error


def chosen_labels(history: History, choice: Choice) -> list[ChosenLabel]:
    """Return the labels of a choice, in the order of the journal."""
    _refuse_unknown(choice)
    frames = _training_frames(history, choice)
    return [
        ChosenLabel(label, _label_split(label, frames))
        for label in label_entries(history)
        if isinstance(label.record, Label)
        and label.fidelity in choice.levels
        and not doubts_of_details(label.record.details) & set(choice.without)
        and _belongs_to(label, choice, frames)
    ]


def _refuse_unknown(choice: Choice) -> None:
    for name, value, allowed in (
        ("level", choice.level, get_args(Levels)),
        ("split", choice.split, get_args(Splits)),
    ):
        if value not in allowed:
            raise InputError(
                f"expected {name} to be one of {', '.join(allowed)}, got {value}"
            )


@dataclass(frozen=True, slots=True)
class _TrainingFrames:
    """The training and held-out frames of a generation, by fidelity.

    seq: the number of the journal record that requested its training.
    """

    seq: int
    trained: Mapping[str, Set[FrameId]]
    heldout: Mapping[str, Set[FrameId]]


def _training_frames(history: History, choice: Choice) -> _TrainingFrames | None:
    """Return the frames of the chosen generation.

    None where there is none yet and the choice does not need one. Raises InputError
    where it does.
    """
    done = [event.generation for _, event in history.generations]
    at = max(done, default=None) if choice.at is None else choice.at
    training = {x.generation: x for x in history.record_index.trainings}.get(at or 0)
    if training is None or at not in done:
        if choice.at is None and choice.split != "train":
            return None
        generations = ", ".join(map(str, done)) or "none yet"
        got = "" if choice.at is None else f", got {choice.at}"
        raise InputError(
            f"expected a generation of {history.path} (there are: {generations}){got}; "
            "`--split all` takes all labels"
        )
    (entry,) = history.select([training.seq])
    commands = {x.name: x for x in entry.turn.commands if isinstance(x, Train)}
    command = commands[training.name]
    aside = held_out(command.expensive, choice.validation)
    trained = {"cheap": set(command.cheap), "expensive": {*command.expensive} - aside}
    heldout = {"cheap": set(command.heldout), "expensive": aside}
    return _TrainingFrames(training.seq, trained, heldout)


def _label_split(label: LabelEntry, frames: _TrainingFrames | None) -> Split:
    if frames and label.frame.id in frames.heldout[label.fidelity]:
        return "validation"
    return split_of(label.purpose)


def _belongs_to(
    label: LabelEntry, choice: Choice, frames: _TrainingFrames | None
) -> bool:
    """Return True if a label belongs to the chosen split and generation."""
    if choice.at is None and label.excluded:
        return False
    if choice.split == "train":
        assert frames is not None
        return label.frame.id in frames.trained[label.fidelity]
    if choice.at is not None and frames is not None and label.answered > frames.seq:
        return False
    return choice.split in ("all", _label_split(label, frames))
