"""The frames that a model was trained on, from its store or from a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from alloop.core.batch import Batch, evenly_thinned, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.core.units import Floats
from alloop.export.choice import Choice, chosen_labels
from alloop.files.frames import GivenStructure, read_sound_frames
from alloop.history.reader import History

_MAX_FRAMES = 2000  # frames of a training set that are looked at
_KEYS = ("REF_forces", "forces")


@dataclass(frozen=True, slots=True, eq=False)
class KnownFrames:
    """Frames, with the forces of labels (atoms, 3) in eV/Å where all have some."""

    batch: Batch
    forces: Floats | None

    def __len__(self) -> int:
        return len(self.batch)


def store_training_set(history: History, generation: int) -> KnownFrames:
    """Return the frames that a generation was trained on, evenly thinned.

    A frame with labels at both levels has the expensive one's forces.
    """
    forces_by_frame: dict[str, tuple[Frame, Floats]] = {}
    for chosen in chosen_labels(history, Choice("both", "train", generation)):
        record = chosen.entry.record
        assert isinstance(record, Label)
        if chosen.entry.fidelity == "expensive" or record.frame not in forces_by_frame:
            forces_by_frame[record.frame] = (chosen.entry.frame, record.forces)
    every = list(forces_by_frame.values())
    rows = every[evenly_thinned(len(every), _MAX_FRAMES)]
    batch = pack_frames([frame for frame, _ in rows])
    return KnownFrames(
        batch, np.concatenate([x for _, x in rows] or [np.zeros((0, 3))])
    )


def file_frames(sources: Sequence[str]) -> KnownFrames:
    """Return the frames of files that ASE reads, with their forces if all have some.

    Forces are `REF_forces`, or those that ASE understands, in eV/Å.
    """
    return known_frames(read_sound_frames(sources))


def known_frames(structures: Sequence[GivenStructure]) -> KnownFrames:
    """Return structures as frames, with their forces if all have some."""
    forces = [label_forces(structure.atoms) for structure in structures]
    some = [x for x in forces if x is not None]
    batch = pack_frames([structure.frame for structure in structures])
    complete = len(some) == len(forces) > 0
    return KnownFrames(batch, np.concatenate(some) if complete else None)


def label_forces(atoms: Atoms) -> Floats | None:
    """Return the forces (atoms, 3) in eV/Å that a structure was read with, if any.

    Raises InputError where they are not finite or of another shape.
    """
    results = {} if atoms.calc is None else atoms.calc.results
    values = {**results, **atoms.arrays}
    for key in _KEYS:
        if key in values:
            forces = np.asarray(values[key], dtype=np.float64)
            if forces.shape != (len(atoms), 3) or not np.isfinite(forces).all():
                raise InputError(
                    f"expected `{key}` of shape ({len(atoms)}, 3) and finite, got "
                    f"{forces.shape}; mend the file"
                )
            return forces
    return None
