"""Reading of labelled frames with ASE: extxyz, databases, trajectories and others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.io import read

from alloop.core.atoms import electronic_state
from alloop.core.errors import InputError
from alloop.core.stress import from_any_shape
from alloop.core.units import Floats
from alloop.files.labelled_frames import LabelKeys, RawLabel, nearest_hint

_ENERGY = ("REF_energy", "energy")
_FORCES = ("REF_forces", "forces")
_STRESS = ("REF_stress", "stress")
DATABASES = (".db",)
UNREADABLE = Exception  # ASE's readers raise anything for damaged or crafted files


def read_ase(path: Path, keys: LabelKeys) -> list[RawLabel]:
    """Read all frames of a file with ASE; raise InputError if labels are missing."""
    try:
        images = (
            database_rows(path) if path.suffix in DATABASES else read(path, index=":")
        )
    except UNREADABLE as error:
        raise InputError(
            f"expected frames that ASE can read, {path} cannot be read "
            f"({type(error).__name__}: {error})"
        ) from error
    return [_raw_label(path, index, atoms, keys) for index, atoms in enumerate(images)]


def database_rows(path: Path) -> list[Atoms]:
    """Return the rows of an ASE database, with their keys and data in `info`."""
    images = []
    for row in connect(path).select():
        atoms = row.toatoms()
        atoms.info = {**row.data, **row.key_value_pairs}
        images.append(atoms)
    return images


def _raw_label(path: Path, index: int, atoms: Atoms, keys: LabelKeys) -> RawLabel:
    results = {} if atoms.calc is None else atoms.calc.results
    where = f"frame {index} of {path}"
    energy = _labelled_value(where, {**atoms.info, **results}, keys.energy, _ENERGY)
    values = {**atoms.info, **atoms.arrays, **results}
    lacking = keys.forces_optional and not set(_FORCES) & set(values)
    forces = None if lacking else _labelled_value(where, values, keys.forces, _FORCES)
    if np.ndim(energy) != 0:
        raise InputError(f"expected one energy in {where}, got {np.shape(energy)}")
    a, b, c = (bool(periodic) for periodic in atoms.pbc)
    state = electronic_state(atoms, keys.charge, keys.spin)
    return RawLabel(
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=_energy_number(where, energy),
        forces=forces,
        charge=state.charge,
        spin=state.spin,
        cell=np.asarray(atoms.cell.array, dtype=np.float64),
        pbc=(a, b, c),
        stress=_stress(where, {**atoms.info, **results}) if a and b and c else None,
    )


def _energy_number(where: str, energy: Any) -> float:
    try:
        return float(energy)
    except (TypeError, ValueError):
        raise InputError(
            f"expected a number as energy in {where}, got {energy!r}"
        ) from None


def _stress(where: str, values: Mapping[str, Any]) -> Floats | None:
    value = next((values[name] for name in _STRESS if name in values), None)
    stress = None if value is None else from_any_shape(value)
    if stress is None and value is not None:
        raise InputError(
            f"expected a stress of 6 or 3 x 3 numbers in {where}, got {np.shape(value)}"
        )
    return stress


def _labelled_value(
    where: str, values: Mapping[str, Any], key: str | None, names: tuple[str, ...]
) -> Any:
    for name in names if key is None else (key,):
        if name in values:
            return values[name]
    keys = " or ".join(f"`{name}`" for name in (names if key is None else (key,)))
    hint = "" if key is None else nearest_hint(key, values)
    kind = "energy" if names is _ENERGY else "forces"
    raise InputError(
        f"expected {keys} in {where}, found {', '.join(values) or 'no labels'}"
        f"{hint}; if the file has another name for it, give that as `{kind}_key`"
    )
