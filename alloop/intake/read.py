"""Files of labelled frames to an Intake: one entrance for every format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.intake.arrays import read_npz
from alloop.intake.atoms import read_ase
from alloop.intake.doubts import unit_warnings
from alloop.intake.facts import Intake, Units
from alloop.intake.raw import Keys, Raw
from alloop.intake.stores import read_store

_SHOWN = 3  # frames that a message names


def read_labels(  # noqa: PLR0913 - one keyword for each fact that a file cannot say
    path: str | Path,
    *,
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int | None = None,
    spin: int | None = None,
    fidelity: str | None = None,
) -> Intake:
    """Read labelled frames from extxyz, an ASE database, npz, or an alloop store.

    Parameters
    ----------
    path
        `.npz` as MD17's, an ASE database (`.db`), a store's folder, or whatever
        `ase.io.read` reads.
    energy_unit, length_unit, force_unit
        Units of the file's numbers; forces default to energy/length.
    energy_key, forces_key
        Names in the file. In an npz a prefix such as `cc_` of `cc_E` counts for the
        positions and atomic numbers too.
    charge, spin
        Total charge (e) and 2S of every frame; default to what the file says, then 0.
    fidelity
        Of a store only: "cheap" or "expensive" for the labels that it trains on, "test"
        for its test set.

    Raises
    ------
    InputError
        The file, its labels or a unit cannot be used.
    """
    path = Path(path)
    units = Units(energy_unit, length_unit, force_unit or "")
    if not path.exists():
        raise InputError(f"expected a file of labelled frames at {path}, found nothing")
    keys = Keys(energy_key, forces_key)
    if path.is_dir():
        if units != Units():
            raise InputError(
                f"{path} is a folder, so it is read as an alloop store, which is in eV "
                "and Å; leave the units out"
            )
        found = read_store(path, fidelity)
    else:
        found = read_npz(path, keys) if path.suffix == ".npz" else read_ase(path, keys)
    if not found:
        raise InputError(f"expected labelled frames in {path}, found none")
    return _intake(path, [_stated(raw, charge, spin) for raw in found], units)


def _stated(raw: Raw, charge: int | None, spin: int | None) -> Raw:
    return replace(
        raw,
        charge=raw.charge if charge is None else charge,
        spin=raw.spin if spin is None else spin,
    )


def _intake(path: Path, found: Sequence[Raw], units: Units) -> Intake:
    intake = Intake(
        frames=tuple(_frame(path, i, raw, units) for i, raw in enumerate(found)),
        energies=np.array([raw.energy for raw in found]) * units.to_ev,
        forces=tuple(_forces(path, i, raw, units) for i, raw in enumerate(found)),
        units=units,
    )
    _refuse_not_finite(path, intake)
    doubts = (*_odd_electrons(path, intake.frames), *unit_warnings(intake))
    return replace(intake, warnings=doubts)


def _frame(path: Path, index: int, raw: Raw, units: Units) -> Frame:
    numbers, positions = np.asarray(raw.numbers), np.asarray(raw.positions)
    if positions.shape != (len(numbers), 3):
        raise InputError(
            f"expected positions of shape ({len(numbers)}, 3) in frame {index} of "
            f"{path}, got {positions.shape}"
        )
    return Frame(
        numbers=numbers,
        positions=positions * units.to_angstrom,
        charge=raw.charge,
        spin=raw.spin,
        cell=raw.cell * units.to_angstrom,
        pbc=raw.pbc,
    )


def _forces(path: Path, index: int, raw: Raw, units: Units) -> np.ndarray:
    forces = np.asarray(raw.forces, dtype=np.float64)
    if forces.shape != (len(raw.numbers), 3):
        raise InputError(
            f"expected forces of shape ({len(raw.numbers)}, 3) in frame {index} of "
            f"{path}, got {forces.shape}"
        )
    return forces * units.to_ev_per_angstrom


def _refuse_not_finite(path: Path, intake: Intake) -> None:
    bad = [
        index
        for index, (energy, forces) in enumerate(
            zip(intake.energies, intake.forces, strict=True)
        )
        if not (np.isfinite(energy) and np.isfinite(forces).all())
    ]
    if bad:
        raise InputError(
            f"expected finite energies and forces in {path}, {_listed(bad)} "
            "have others; take them out"
        )


def _odd_electrons(path: Path, frames: Sequence[Frame]) -> tuple[str, ...]:
    odd = [
        index
        for index, frame in enumerate(frames)
        if not any(frame.pbc)
        and (int(frame.numbers.sum()) - frame.charge - frame.spin) % 2
    ]
    if not odd:
        return ()
    frame = frames[odd[0]]
    return (
        f"charge {frame.charge} and spin {frame.spin} (2S, the number of unpaired "
        f"electrons) do not fit the electrons of {_listed(odd)} in {path}; give "
        "`charge` and `spin`",
    )


def _listed(indices: Sequence[int]) -> str:
    shown = ", ".join(str(index) for index in indices[:_SHOWN])
    more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
    return f"frames {shown}{more}"
