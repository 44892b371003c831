"""Reading of a file of labelled frames, and conversion to eV and Å with checks.

ASE reads most formats; npz files are read in the layouts of MD17, rMD17, PhysNet and
similar sets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alloop.core.atoms import ROUNDING, refuse_unknown_elements
from alloop.core.errors import InputError
from alloop.core.frame import Frame, frame_fault
from alloop.core.units import Floats
from alloop.files.ase_files import read_ase
from alloop.files.labelled_frames import (
    FileUnits,
    LabelKeys,
    LabelledFrames,
    RawLabel,
    nearest_hint,
)

_SHOWN = 3  # frames that a message names
Arrays = Mapping[str, npt.NDArray[Any]]
_NUMBERS = ("z", "numbers", "atomic_numbers", "nuclear_charges", "species")
_POSITIONS = ("r", "positions", "coords", "coordinates", "xyz")
_ENERGIES = ("e", "energy", "energies")
_FORCES = ("f", "force", "forces")
_CHARGES = ("q", "charge", "total_charge")
_SPINS = ("spin", "2s")
_MULTIPLICITIES = ("multiplicity", "total_spin")
_MAX_NUMBER = 1e6  # of atomic numbers, charges and spins


def read_file(path: Path, keys: LabelKeys) -> list[RawLabel]:
    """Read all labelled frames of an npz, an ASE database, or another file ASE reads.

    Raises InputError if the file cannot be read or lacks what a label needs.
    """
    return read_npz(path, keys) if path.suffix == ".npz" else read_ase(path, keys)


def convert_labels(
    path: Path, raw_labels: Sequence[RawLabel], units: FileUnits
) -> LabelledFrames:
    """Return the frames in eV and Å, without warnings; `path` is for the messages.

    Raises InputError if there are none, for shapes that do not fit and for numbers that
    are not finite.
    """
    if not raw_labels:
        raise InputError(f"expected labelled frames in {path}, found none")
    intake = LabelledFrames(
        frames=tuple(
            _convert_frame(path, i, raw, units) for i, raw in enumerate(raw_labels)
        ),
        energies=np.array([raw.energy for raw in raw_labels]) * units.to_ev,
        forces=tuple(
            _convert_forces(path, i, raw, units) for i, raw in enumerate(raw_labels)
        ),
        units=units,
        stress=tuple(_convert_stress(raw, units) for raw in raw_labels),
    )
    _refuse_not_finite(path, raw_labels, intake)
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
    path: Path, raw_labels: Sequence[RawLabel], intake: LabelledFrames
) -> None:
    rows = zip(raw_labels, intake.energies, intake.forces, strict=True)
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


def read_npz(path: Path, keys: LabelKeys) -> list[RawLabel]:
    """Read all frames of an npz; raise InputError if it lacks what a label needs."""
    arrays = _load_arrays(path)
    prefix = _key_prefix(keys.energy)
    energies = _required_array(path, arrays, keys.energy, _ENERGIES, "")
    positions = _required_array(path, arrays, None, _POSITIONS, prefix)
    forces = _force_array(path, arrays, keys, prefix)
    numbers = _required_array(path, arrays, None, _NUMBERS, prefix)
    _refuse_fractions(path, "atomic numbers", numbers)
    if positions.ndim not in (2, 3):
        raise InputError(
            f"expected positions of shape (frames, atoms, 3) in {path}, got "
            f"{positions.shape}"
        )
    if positions.ndim == 2:
        positions = positions[None]
        forces = None if forces is None else forces.reshape(1, *forces.shape[-2:])
    energies = energies.reshape(-1)
    _same_length(path, len(positions), {"energies": energies})
    if forces is not None:
        _same_length(path, len(positions), {"forces": forces})
    if numbers.ndim == 1:
        numbers = np.broadcast_to(numbers, (len(positions), len(numbers)))
    _same_length(path, len(positions), {"atomic numbers": numbers})
    charges = _per_frame(path, arrays, _CHARGES, prefix, len(positions))
    spins = _spins(path, arrays, prefix, len(positions))
    return [
        _raw_labels(
            numbers=numbers[i],
            positions=positions[i],
            energy=float(energies[i]),
            forces=None if forces is None else forces[i],
            charge=charges[i],
            spin=spin,
        )
        for i, spin in enumerate(spins)
    ]


def _spins(path: Path, arrays: Arrays, prefix: str, frames: int) -> list[int]:
    """Return 2S of each frame, from spins or multiplicities."""
    spins = _per_frame(path, arrays, _SPINS, prefix, frames)
    if _find_key(arrays, _MULTIPLICITIES, prefix) is None:
        return spins
    multiplicities = _per_frame(path, arrays, _MULTIPLICITIES, prefix, frames)
    named = [multiplicity - 1 for multiplicity in multiplicities]
    if _find_key(arrays, _SPINS, prefix) is not None and named != spins:
        raise InputError(
            f"expected spins (2S) and multiplicities (2S + 1) of {path} to agree, "
            "they differ; leave one out"
        )
    return named


def _raw_labels(
    numbers: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    energy: float,
    forces: npt.NDArray[Any] | None,
    charge: int,
    spin: int,
) -> RawLabel:
    real = numbers != 0  # smaller molecules are padded with atomic number 0
    if len(real) == len(positions) and (forces is None or len(forces) == len(real)):
        numbers, positions = numbers[real], positions[real]
        forces = None if forces is None else forces[real]
    return RawLabel(
        numbers=numbers,
        positions=positions,
        energy=energy,
        forces=forces,
        charge=charge,
        spin=spin,
    )


def _force_array(
    path: Path, arrays: Arrays, keys: LabelKeys, prefix: str
) -> npt.NDArray[Any] | None:
    if keys.forces_optional and _find_key(arrays, _FORCES, prefix) is None:
        return None
    return _required_array(path, arrays, keys.forces, _FORCES, prefix)


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of a damaged or crafted archive, whatever it is
        raise InputError(
            f"expected an npz of plain arrays, {path} cannot be read ({error}); "
            "save it again with numpy.savez"
        ) from error


def _key_prefix(energy_key: str | None) -> str:
    """Return the prefix of an energy key, `cc_` of `cc_E`.

    Other arrays of the same labels begin with it too.
    """
    if energy_key is None:
        return ""
    for name in sorted(_ENERGIES, key=len, reverse=True):
        if energy_key.lower().endswith(f"_{name}"):
            return energy_key[: -len(name)]
    return ""


def _required_array(
    path: Path, arrays: Arrays, key: str | None, names: Sequence[str], prefix: str
) -> npt.NDArray[Any]:
    if key is not None and key not in arrays:
        raise InputError(
            f"expected an array `{key}` in {path}, it holds {', '.join(arrays)}"
            f"{nearest_hint(key, arrays)}"
        )
    name = key or _find_key(arrays, names, prefix)
    if name is None:
        raise InputError(
            f"expected one of {', '.join(names)} in {path}, it holds "
            f"{', '.join(arrays)}; give `energy_key` and `forces_key`"
        )
    return _real_array(path, name, arrays[name])


def _find_key(arrays: Arrays, names: Sequence[str], prefix: str) -> str | None:
    by_lower = {name.lower(): name for name in arrays}
    candidates = [prefix.lower() + name for name in names] + list(names)
    return next((by_lower[name] for name in candidates if name in by_lower), None)


def _per_frame(
    path: Path, arrays: Arrays, names: Sequence[str], prefix: str, frames: int
) -> list[int]:
    """Return an integer for each frame; zeros if the file has none.

    Numbers of atoms, such as partial charges, are summed. Raises InputError for sums
    and numbers that are not whole.
    """
    name = _find_key(arrays, names, prefix)
    if name is None:
        return [0] * frames
    array = _real_array(path, name, arrays[name])
    if array.ndim == 2 and len(array) == frames and array.shape[1] > 1:
        array = array.sum(axis=1)
    if array.size not in (1, frames):
        raise InputError(
            f"expected a number for each frame as `{name}` of {path}, got an array of "
            f"shape {array.shape}; mend it, or leave it out"
        )
    _refuse_fractions(path, f"`{name}`", array, ROUNDING)
    return [round(float(x)) for x in np.broadcast_to(array.ravel(), frames)]


def _real_array(path: Path, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"expected real numbers as `{name}` in {path}, got {array.dtype}"
        )
    return np.atleast_1d(array)


def _refuse_fractions(
    path: Path, what: str, array: npt.NDArray[Any], rounding: float = 0.01
) -> None:
    off = np.abs(array - np.round(array))
    within = (off < rounding) & (np.abs(array) <= _MAX_NUMBER)  # not for nan
    wrong = array[~within]
    if wrong.size:
        raise InputError(f"expected whole numbers as {what} in {path}, got {wrong[0]}")


def _same_length(path: Path, frames: int, columns: Arrays) -> None:
    for name, array in columns.items():
        if len(array) != frames:
            raise InputError(
                f"expected {name} of {frames} frames in {path}, as there are "
                f"positions, got {len(array)}"
            )
