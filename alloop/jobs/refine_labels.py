"""Labels for test-time training: cheap ones of new frames, expensive ones held out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, LabelSet, Unlabelled
from alloop.export.choice import Choice, chosen_labels
from alloop.files.labelled_frames import FileUnits
from alloop.history.reader import History
from alloop.intake import read_labels
from alloop.jobs.label_frames import LabelProgress, label_frames
from alloop.refine.test_time import thinned_labels


def level_labels(
    frames: Sequence[Frame],
    level: Level,
    workers: int | None = None,
    cache: Path | None = None,
    observe: Callable[[LabelProgress], None] | None = None,
) -> tuple[LabelSet, tuple[str, ...]]:
    """Return the labels of frames at a level, and a sentence on those without.

    Each frame is labelled once. observe: called with the progress. Raises InputError
    where the level cannot treat their elements, and where no frame got a label.
    """
    distinct = list(dict.fromkeys(frames))
    found = label_frames(distinct, level, workers=workers, cache=cache, observe=observe)
    rows = zip(distinct, found, strict=True)
    good = [(frame, x) for frame, x in rows if isinstance(x, Label)]
    failed = [x for x in found if isinstance(x, Unlabelled)]
    if not good:
        why = failed[0].message or failed[0].failure.name.lower()
        raise InputError(
            f"expected labels of the frames at {level.title}, it gave none of "
            f"{len(failed)} ({why}); choose another level"
        )
    if not failed:
        return _label_set(good), ()
    return _label_set(good), (f"{len(failed)} of {len(found)} frames got no label",)


def require_cheap_level(history: History, level: Level) -> None:
    """Raise InputError where a level is not that of a campaign's cheap labels."""
    own = history.opened.levels.get("cheap")
    if own is not None and own != level.id:
        title = history.attrs.get("levels", {}).get("cheap", {}).get("title", own)
        raise InputError(
            f"expected the level of the model's cheap head, {title}, got "
            f"{level.title}; give that level"
        )


def store_held_out(history: History, generation: int) -> LabelSet:
    """Return the expensive labels that a generation was not trained on.

    Raises InputError where there are none.
    """
    held = [
        each
        for split in ("validation", "test")
        for each in _store_labels(history, Choice("expensive", split, generation))
    ]
    if not held:
        raise InputError(
            f"expected expensive labels in {history.path} that the model was not "
            "trained on, found none; give `--heldout FILE`"
        )
    return _label_set(held)


def store_expensive(history: History, generation: int) -> LabelSet | None:
    """Return the expensive labels that a generation was trained on."""
    found = _store_labels(history, Choice("expensive", "train", generation))
    return _label_set(found) if found else None


def store_replay(history: History, generation: int) -> LabelSet | None:
    """Return the cheap labels that a generation was trained on, evenly thinned."""
    found = _store_labels(history, Choice("cheap", "train", generation))
    return thinned_labels(_label_set(found)) if found else None


def _store_labels(history: History, choice: Choice) -> list[tuple[Frame, Label]]:
    found = ((x.entry.frame, x.entry.record) for x in chosen_labels(history, choice))
    return [(frame, label) for frame, label in found if isinstance(label, Label)]


def _label_set(found: Sequence[tuple[Frame, Label]]) -> LabelSet:
    return LabelSet.of(
        [frame for frame, _ in found],
        [label.energy for _, label in found],
        [label.forces for _, label in found],
    )


def file_labels(path: Path, units: FileUnits) -> tuple[LabelSet, tuple[str, ...]]:
    """Return the labels of a file, and sentences on units that do not seem right."""
    given = read_labels(path, energy_unit=units.energy, length_unit=units.length)
    labels = LabelSet.of(given.frames, given.energies, given.forces)
    return labels, given.warnings
