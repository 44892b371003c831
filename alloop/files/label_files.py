"""Reading of a file of labelled frames, and conversion to eV and Å with checks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alloop.core.atoms import refuse_unknown_elements
from alloop.core.errors import InputError
from alloop.core.frame import Frame, frame_fault
from alloop.core.units import Floats
from alloop.files.ase_files import read_ase
from alloop.files.labelled_frames import FileUnits, LabelKeys, LabelledFrames, RawLabel
from alloop.files.npz import read_npz

_SHOWN = 3  # frames that a message names


def read_file(path: Path, keys: LabelKeys) -> list[RawLabel]:
    """Read all labelled frames of an npz, an ASE database, or another file ASE reads.

    Raises InputError if the file cannot be read or lacks what a label needs.
    """
    return read_npz(path, keys) if path.suffix == ".npz" else read_ase(path, keys)


def convert_labels(
    path: Path, found: Sequence[RawLabel], units: FileUnits
) -> LabelledFrames:
    """Return the frames in eV and Å, without warnings; `path` is for the messages.

    Raises InputError if there are none, for shapes that do not fit and for numbers that
    are not finite.
    """
    if not found:
        raise InputError(f"expected labelled frames in {path}, found none")
    intake = LabelledFrames(
        frames=tuple(
            _convert_frame(path, i, raw, units) for i, raw in enumerate(found)
        ),
        energies=np.array([raw.energy for raw in found]) * units.to_ev,
        forces=tuple(
            _convert_forces(path, i, raw, units) for i, raw in enumerate(found)
        ),
        units=units,
        stress=tuple(_convert_stress(raw, units) for raw in found),
    )
    _refuse_not_finite(path, found, intake)
    return intake


def _convert_frame(path: Path, index: int, raw: RawLabel, units: FileUnits) -> Frame:
    numbers, positions = np.asarray(raw.numbers), np.asarray(raw.positions)
    if positions.shape != (len(numbers), 3):
        raise InputError(
            f"expected positions of shape ({len(numbers)}, 3) in frame {index} of "
            f"{path}, got {positions.shape}"
        )
    refuse_unknown_elements(numbers, first=1)
    frame = Frame(
        numbers=numbers,
        positions=positions * units.to_angstrom,
        charge=raw.charge,
        spin=raw.spin,
        cell=raw.cell * units.to_angstrom,
        pbc=raw.pbc,
    )
    if fault := frame_fault(frame):
        raise InputError(f"frame {index} of {path}: {fault}; mend it or take it out")
    if len(np.unique(frame.positions, axis=0)) < len(frame):
        raise InputError(
            f"frame {index} of {path}: two atoms lie at one place; mend it or take it "
            "out"
        )
    return frame


def _convert_forces(path: Path, index: int, raw: RawLabel, units: FileUnits) -> Floats:
    if raw.forces is None:
        return np.full((len(raw.numbers), 3), np.nan)
    try:
        forces = np.asarray(raw.forces, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"expected numbers as forces in frame {index} of {path}"
        ) from None
    if forces.shape != (len(raw.numbers), 3):
        raise InputError(
            f"expected forces of shape ({len(raw.numbers)}, 3) in frame {index} of "
            f"{path}, got {forces.shape}"
        )
    return np.asarray(forces * units.to_ev_per_angstrom)


def _convert_stress(raw: RawLabel, units: FileUnits) -> Floats | None:
    if raw.stress is None or not np.isfinite(raw.stress).all():
        return None
    return np.asarray(raw.stress * units.to_ev_per_volume)


def _refuse_not_finite(
    path: Path, found: Sequence[RawLabel], intake: LabelledFrames
) -> None:
    rows = zip(found, intake.energies, intake.forces, strict=True)
    bad = [
        index
        for index, (raw, energy, forces) in enumerate(rows)
        if not (
            np.isfinite(energy) and (raw.forces is None or np.isfinite(forces).all())
        )
    ]
    if bad:
        raise InputError(
            f"expected finite energies and forces in {path}, {listed_frames(bad)} "
            "have others; take them out"
        )


def listed_frames(indices: Sequence[int]) -> str:
    """Return frame numbers as text: `frames 1, 2, 3 and 4 more`."""
    shown = ", ".join(str(index) for index in indices[:_SHOWN])
    more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
    return f"frames {shown}{more}"
