"""The codec of the journal, and the first event of a campaign."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alloop.core import batch, cost_curve, frame, label_cost, levels, records
from alloop.core.error_limits import ErrorLimits, KnownDistances
from alloop.core.errors import DamagedError
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Prepare,
    Price,
    Recheck,
    Sample,
    Stop,
    Train,
    TrainPart,
    moved_walkers,
    with_walkers,
)
from alloop.store.archive import Archive
from alloop.store.codec import Codec, EncodedRecord, Fields, Upcaster

_EVENTS = (
    *(Prepare, Sample, LabelFrame, Explore, Train, Stop, e.Forked),
    *(Examine, e.Examined, e.Posed),
    *(e.Opened, e.Given, e.Amended, e.Prepared, e.Sampled, e.Labelled, e.NotLabelled),
    *(e.Explored, e.Evaluation, e.Trained, e.TaskLost, e.Excluded, e.Timing, e.Turn),
    *(Recheck, e.Rechecked, Price, e.Priced, e.Retried),
    *(e.Included, e.Restored, TrainPart, e.PartTrained),
)
_FACTS = (
    *(frame.Frame, batch.Batch, levels.Level, records.Walker, records.Candidate),
    records.MinimumPath,
    *(records.Label, records.Unlabelled, records.Failure, records.Noise),
    *(records.ModelCheck, records.Refinement),
    *(label_cost.Cost, cost_curve.Curve, ErrorLimits, KnownDistances),
)
CLASSES = (*_EVENTS, *_FACTS)


class JournalCodec(Codec):
    """The codec of a journal, each record of which is a turn."""

    def decode(self, encoded: EncodedRecord) -> e.Turn:
        """Return the turn that was encoded; raise DamagedError for anything else."""
        turn = super().decode(encoded)
        if not isinstance(turn, e.Turn):
            raise DamagedError(
                f"expected an event with its commands, it holds {type(turn).__name__}; "
                "restore it from a copy"
            )
        return turn


def _without_name(*numbers: str, text: str = "") -> Upcaster:
    """Return the upcaster of an event that once had its fields in its name only.

    numbers: the fields that the name counts, in order; text: the last one, if a word.
    """

    def upcast(stored: Fields) -> Fields:
        name = stored.pop("name", None)
        if name is None:
            return stored
        _, *words = name.split("/")
        last = {text: words.pop()} if text else {}
        return {**dict(zip(numbers, map(int, words), strict=True)), **last, **stored}

    return upcast


def _with_walker_temperatures(stored: Fields) -> Fields:
    """Return the fields of an examination that once held its walkers' temperatures.

    `temperatures` in K were those of the walkers in turn, `temperature` that of all
    where there were none.
    """
    if "temperature" not in stored:
        return stored
    kelvin = stored.pop("temperatures", ()) or (stored["temperature"],)
    del stored["temperature"]
    walkers = (
        replace(x, temperature=kelvin[x.index % len(kelvin)]) for x in stored["walkers"]
    )
    return {**stored, "walkers": tuple(walkers)}


UPCASTERS: Mapping[str, Upcaster] = {
    "Explored": _without_name("round", "batch", "piece"),
    "Examine": _with_walker_temperatures,
    "Examined": _without_name("number", "batch", "piece"),
    "PartTrained": _without_name("generation", text="part"),
}
CODEC = JournalCodec(CLASSES, UPCASTERS)


def identical_commands(command: Command, other: Command) -> bool:
    """Return True if two commands are equal, down to the bits of their arrays.

    Temperatures of walkers are compared where both commands record them.
    """
    walkers = (*moved_walkers(command), *moved_walkers(other))
    if any(walker.temperature is None for walker in walkers):  # of an older alloop
        command, other = _without_temperatures(command), _without_temperatures(other)
    first, second = CODEC.encode(command), CODEC.encode(other)
    return (first.tree, first.frames) == (second.tree, second.frames) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(first.arrays, second.arrays, strict=True)
    )


def _without_temperatures(command: Command) -> Command:
    walkers = moved_walkers(command)
    return with_walkers(command, [replace(x, temperature=None) for x in walkers])


def opening_event(archive: Archive) -> e.Opened | None:
    """Return the first event of an open archive, None before a campaign began."""
    for _, _, turn in archive.records():
        return turn.event if isinstance(turn.event, e.Opened) else None
    return None


def event_config(event: e.Event) -> str:
    """Return the configuration that the event puts in force, "" without a change."""
    return event.config if isinstance(event, e.Amended | e.Forked) else ""


def checked_attributes(archive: Archive) -> dict[str, Any]:
    """Return the attributes of an open store; `name` and `levels` get defaults.

    Raises DamagedError where one of them is of a wrong kind.
    """
    attrs = {"name": archive.path.stem, "levels": {}} | archive.attrs
    levels = attrs["levels"]
    kinds = {
        "name": isinstance(attrs["name"], str),
        "config": isinstance(attrs.get("config", ""), str),
        "levels": isinstance(levels, dict)
        and all(isinstance(level, dict) for level in levels.values()),
    }
    for name, right in kinds.items():
        if not right:
            raise _damaged_attribute(
                archive.path, name, f"is {str(attrs[name])[:40]!r}"
            )
    return attrs


def first_configuration(attrs: Mapping[str, Any], path: Path) -> str:
    """Return the configuration (YAML) that the store at `path` was made with.

    Raises DamagedError where the store has lost it.
    """
    text = attrs.get("config")
    if not isinstance(text, str):
        raise _damaged_attribute(path, "config", "is not there")
    return text


def _damaged_attribute(path: Path, name: str, what: str) -> DamagedError:
    return DamagedError(
        f"the attribute `{name}` in {path / 'zarr.json'} {what}; restore that file "
        "from a copy"
    )
