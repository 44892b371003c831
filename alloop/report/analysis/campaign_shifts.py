"""Shifts of validation frames and MD from what the last generation learned."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame
from alloop.core.label_cost import molecule_key
from alloop.core.splits import EXAMINATION, VALIDATION
from alloop.core.units import Floats
from alloop.generation import potential_from_bytes
from alloop.history.journal_codec import CODEC
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.jobs.diagnose_job import Diagnosis, diagnose
from alloop.jobs.training_set import KnownFrames, store_training_set
from alloop.loop import events as e
from alloop.refine.shifts import SHIFTS
from alloop.report.analysis.descriptor_map import thin_frames
from alloop.store.archive import Archive

_MOST_ATOMS = 4000  # of all groups, and of the training set
_LARGEST = 400  # atoms of a frame whose spectrum is worth the time of a report
_MOST_GROUPS = 7
_TESTS = {VALIDATION: "validation set", EXAMINATION: "examination"}


@dataclass(frozen=True, slots=True, eq=False)
class CampaignShifts:
    """The shifts of groups of frames from the training set of a generation.

    found: of all frames; groups: by name the indices of their frames.
    """

    found: Diagnosis
    groups: Mapping[str, tuple[int, ...]]
    generation: int

    def values(self) -> dict[str, dict[str, Floats]]:
        """Return the values of each shift by group."""
        shifts = self.found.shifts.values
        return {
            name: {shift: shifts.of(shift)[list(own)] for shift in SHIFTS}
            for name, own in self.groups.items()
        }

    def shares(self) -> dict[str, tuple[int, dict[str, float]]]:
        """Return the number of frames of each group, and the share out by shift."""
        shifts, found = self.found.shifts, {}
        for name, own in self.groups.items():
            rows = list(own)
            each = {
                shift: float(shifts.out[shift][rows].mean())
                if np.isfinite(shifts.values.of(shift)[rows]).any()
                else np.nan
                for shift in SHIFTS
            }
            found[name] = (len(rows), each)
        return found


def campaign_shifts(history: History) -> CampaignShifts | None:
    """Return the shifts from the last generation's training set.

    Groups are the validation set, the examination, and the frames that MD
    proposed, molecule by molecule; forces are the model's. None where the model cannot
    be opened here, with too few frames, and with frames of more than 400 atoms.
    """
    if not history.generations or not history.path.is_dir():
        return None
    last = history.generations[-1].event
    groups = _frame_groups(history)
    sizes = [len(frame) for own in groups.values() for frame in own]
    if not sizes or max(sizes) > _LARGEST:
        return None
    try:
        with Archive.open(history.path, CODEC) as archive:
            potential = potential_from_bytes(archive.model(last.model))
        known = store_training_set(history, last.generation).batch.frames()
        training = _thinned(dict.fromkeys(known))
        frames = [frame for own in groups.values() for frame in own]
        found = diagnose(potential, _without_labels(training), _without_labels(frames))
    except (AlloopError, ImportError, KeyError, TypeError, ValueError):
        return None  # of a kind that cannot be opened here, damaged, or too few
    ends = np.cumsum([0, *(len(own) for own in groups.values())]).tolist()
    spans = zip(groups, ends[:-1], ends[1:], strict=True)
    indices = {name: tuple(range(a, b)) for name, a, b in spans}
    return CampaignShifts(found, indices, last.generation)


def _without_labels(frames: list[Frame]) -> KnownFrames:
    return KnownFrames(pack_frames(frames), None)


def _frame_groups(history: History) -> dict[str, list[Frame]]:
    """Return the frames of each group, evenly thinned."""
    found: dict[str, dict[Frame, None]] = {}
    for label in label_entries(history):
        if label.purpose in _TESTS:
            found.setdefault(_TESTS[label.purpose], {})[label.frame] = None
    numbers = history.record_index.newest_explorations()
    for entry in history.select(numbers):
        event = entry.turn.event
        if isinstance(event, e.Explored):
            for each in (*event.controls, *event.candidates):
                name = f"MD of {molecule_key(each.frame)}"
                found.setdefault(name, {})[each.frame] = None
    shown = list(found.items())[:_MOST_GROUPS]
    return {name: _thinned(own, len(shown)) for name, own in shown}


def _thinned(frames: dict[Frame, None], parts: int = 1) -> list[Frame]:
    sizes = [len(frame) for frame in frames]
    most = max(10, int(_MOST_ATOMS / parts / max(1.0, float(np.mean(sizes or [1])))))
    known = {frame.id: frame for frame in frames}
    return [known[key] for key in thin_frames(list(known), most)]
