"""Reading of npz files in the layout of MD17, rMD17, PhysNet and similar sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alloop.core.errors import InputError
from alloop.files.labelled_frames import LabelKeys, RawLabel, nearest_hint

Arrays = Mapping[str, npt.NDArray[Any]]

_NUMBERS = ("z", "numbers", "atomic_numbers", "nuclear_charges", "species")
_POSITIONS = ("r", "positions", "coords", "coordinates", "xyz")
_ENERGIES = ("e", "energy", "energies")
_FORCES = ("f", "force", "forces")
_CHARGES = ("q", "charge", "total_charge")
_SPINS = ("spin", "2s")
_MULTIPLICITIES = ("multiplicity", "total_spin")
_MOST = 1e6  # of atomic numbers, charges and spins
_ROUNDING = 0.1  # e or electrons that a sum of rounded numbers of atoms is off by


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
    spins = _per_frame(path, arrays, _SPINS, prefix, len(positions))
    if _find_key(arrays, _MULTIPLICITIES, prefix) is not None:
        named = [
            multiplicity - 1
            for multiplicity in _per_frame(
                path, arrays, _MULTIPLICITIES, prefix, len(positions)
            )
        ]
        if _find_key(arrays, _SPINS, prefix) is not None and named != spins:
            raise InputError(
                f"expected spins (2S) and multiplicities (2S + 1) of {path} to agree, "
                "they differ; leave one out"
            )
        spins = named
    return [
        _raw_labels(
            numbers[i],
            positions[i],
            float(energies[i]),
            None if forces is None else forces[i],
            charges[i],
            spin,
        )
        for i, spin in enumerate(spins)
    ]


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
    return RawLabel(numbers, positions, energy, forces, charge, spin)


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
    path: Path, arrays: Arrays, key: str | None, usual: Sequence[str], prefix: str
) -> npt.NDArray[Any]:
    if key is not None and key not in arrays:
        raise InputError(
            f"expected an array `{key}` in {path}, it holds {', '.join(arrays)}"
            f"{nearest_hint(key, arrays)}"
        )
    name = key or _find_key(arrays, usual, prefix)
    if name is None:
        raise InputError(
            f"expected one of {', '.join(usual)} in {path}, it holds "
            f"{', '.join(arrays)}; give `energy_key` and `forces_key`"
        )
    return _real_array(path, name, arrays[name])


def _find_key(arrays: Arrays, usual: Sequence[str], prefix: str) -> str | None:
    by_lower = {name.lower(): name for name in arrays}
    wanted = [prefix.lower() + name for name in usual] + list(usual)
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _per_frame(
    path: Path, arrays: Arrays, usual: Sequence[str], prefix: str, frames: int
) -> list[int]:
    """Return an integer for each frame; zeros if the file has none.

    Numbers of atoms, such as partial charges, are summed. Raises InputError for sums
    and numbers that are not whole.
    """
    name = _find_key(arrays, usual, prefix)
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
    _refuse_fractions(path, f"`{name}`", array, _ROUNDING)
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
    wrong = array[~(off < rounding) | (np.abs(array) > _MOST)]  # nan is wrong, too
    if wrong.size:
        raise InputError(f"expected whole numbers as {what} in {path}, got {wrong[0]}")


def _same_length(path: Path, frames: int, columns: Arrays) -> None:
    for name, array in columns.items():
        if len(array) != frames:
            raise InputError(
                f"expected {name} of {frames} frames in {path}, as there are "
                f"positions, got {len(array)}"
            )
