"""Labelled frames as read from a file and as converted, and the units between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label
from alloop.core.text import nearest_word
from alloop.core.units import ENERGY_UNITS, LENGTH_UNITS, Floats

_SAME = 1e-6  # eV, the largest difference between energies that agree


@dataclass(frozen=True, slots=True)
class FileUnits:
    """The declared units of a file's numbers.

    force is "<energy>/<length>"; by default, the units of the two others. Raises
    InputError for an unknown unit.
    """

    energy: str = "eV"
    length: str = "angstrom"
    force: str = ""

    def __post_init__(self) -> None:
        _check_unit("energy_unit", self.energy, ENERGY_UNITS)
        _check_unit("length_unit", self.length, LENGTH_UNITS)
        if not self.force:
            object.__setattr__(self, "force", f"{self.energy}/{self.length}")
        _check_unit("force_unit", self.force, FORCE_UNITS)

    @property
    def to_ev(self) -> float:
        """EV in one unit of energy."""
        return ENERGY_UNITS[self.energy]

    @property
    def to_angstrom(self) -> float:
        """Å in one unit of length."""
        return LENGTH_UNITS[self.length]

    @property
    def to_ev_per_angstrom(self) -> float:
        """eV/Å in one unit of force."""
        return FORCE_UNITS[self.force]

    @property
    def to_ev_per_volume(self) -> float:
        """eV/Å³ in one unit of stress, energy over cubed length."""
        return self.to_ev / self.to_angstrom**3


FORCE_UNITS = {
    f"{energy}/{length}": ev / angstrom
    for energy, ev in ENERGY_UNITS.items()
    for length, angstrom in LENGTH_UNITS.items()
}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """A frame with its energy (eV) and forces (atoms, 3) in eV/Å.

    forces are NaN where the file has energies alone. stress (6,) in eV/Å³, in Voigt's
    order, or None.
    """

    frame: Frame
    energy: float
    forces: Floats
    stress: Floats | None = None

    def label(self, level: LevelId) -> Label:
        """Return the label, as one of this level."""
        return Label(self.frame.id, level, self.energy, self.forces, stress=self.stress)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrames:
    """Labelled frames, converted to eV and Å.

    energies (frames,) in eV; forces: (atoms, 3) in eV/Å for each frame, NaN for frames
    without, where the reader was told that forces may be missing; warnings: what
    looks wrong, a sentence each; units: those that the file was declared in. stress:
    (6,) in eV/Å³ or None for each frame, or nothing.
    """

    frames: tuple[Frame, ...]
    energies: Floats
    forces: tuple[Floats, ...]
    units: FileUnits = field(default_factory=FileUnits)
    warnings: tuple[str, ...] = ()
    stress: tuple[Floats | None, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[LabelledFrame]:
        stress = self.stress or (None,) * len(self)
        energies = map(float, self.energies)
        rows = zip(self.frames, energies, self.forces, stress, strict=True)
        return (LabelledFrame(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class LabelKeys:
    """The names of energy and forces that the user gave; None means the usual names.

    energies_alone: frames may lack forces, unless the name of forces was given. charge
    (e), spin (2S): of every frame; None means those of the file.
    """

    energy: str | None = None
    forces: str | None = None
    energies_alone: bool = False
    charge: int | None = None
    spin: int | None = None

    @property
    def forces_optional(self) -> bool:
        """True if frames without forces are accepted."""
        return self.energies_alone and self.forces is None


@dataclass(frozen=True, slots=True, eq=False)
class RawLabel:
    """A labelled structure in the file's units.

    numbers (atoms,), positions and forces (atoms, 3), energy; forces are None where the
    file has energies alone; charge in e, spin is 2S; cell (3, 3) in rows; stress (6,)
    in Voigt's order, or None.
    """

    numbers: Any
    positions: Any
    energy: float
    forces: Any
    charge: int = 0
    spin: int = 0
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: tuple[bool, bool, bool] = (False, False, False)
    stress: Floats | None = None


def distinct_frames(
    frames: Iterable[LabelledFrame], kind: str
) -> dict[FrameId, LabelledFrame]:
    """Return the first label of each frame, by id; InputError where two disagree.

    kind: of the labels, for the message, such as "cheap".
    """
    first: dict[FrameId, LabelledFrame] = {}
    for labelled in frames:
        earlier = first.setdefault(labelled.frame.id, labelled)
        if conflict := energy_conflict(kind, earlier.energy, labelled.energy):
            raise InputError(conflict)
    return first


def energy_conflict(kind: str, first: float, second: float) -> str | None:
    """Return a sentence if two energies (eV) of one frame disagree, else None."""
    if abs(first - second) <= _SAME:
        return None
    return (
        f"one frame has two {kind} energies, {first:.6f} and {second:.6f} eV; "
        "keep the right one"
    )


def nearest_hint(word: str, words: Iterable[str]) -> str:
    """Return ", did you mean `...`?" if a known word is near, else an empty string."""
    nearest = nearest_word(word, words, cutoff=0.5)
    return f", did you mean `{nearest}`?" if nearest else ""


def _check_unit(key: str, word: str, units: Iterable[str]) -> None:
    if word not in units:
        raise InputError(
            f"expected {key} to be one of {', '.join(units)}, got `{word}`"
            f"{nearest_hint(word, units)}"
        )
