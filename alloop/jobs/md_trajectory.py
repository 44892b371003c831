"""Trajectories of MD runs in extended XYZ, written during the run.

The comment of each frame has: walker, step, time (fs), energy (eV), surprise if the
model has a scorer, charge, spin (2S), of cells the present vectors (Å) and, where the
model gives it, the stress (eV/Å³), and `stopped`, the reason, if a guard stopped the
walker. The columns are species, position (Å), momentum (in ASE's units, so that
`get_velocities` works) and forces (eV/Å).
"""

import io
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import iread, write
from ase.io.trajectory import TrajectoryWriter

from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.units import ASE_VELOCITY
from alloop.files.targets import replace_atomically
from alloop.md.frame_collector import ScoredFrames

_PLAIN = (".extxyz", ".xyz")
_WHOLE = (".traj", ".db")  # ASE cannot truncate these after a kill: written at the end
KINDS = (*_PLAIN, *_WHOLE)


def trajectory_file(out: Path) -> Path:
    """Return the file written during the run; InputError for an unknown suffix."""
    if out.suffix in _PLAIN:
        return out
    if out.suffix in _WHOLE:
        return out.with_name(f"{out.name}.extxyz")
    raise InputError(
        f"expected a trajectory that ends in {', '.join(KINDS)}, got {out}"
    )


def convert_trajectory(source: Path, out: Path) -> None:
    """Write all frames of an extended XYZ file to a new file `out` (.traj or .db).

    Raises InputError where it cannot be written.
    """
    write_frames = _write_database if out.suffix == ".db" else _write_trajectory
    try:
        with replace_atomically(out) as partial:
            write_frames(source, partial)
    except (OSError, sqlite3.Error) as error:
        raise _write_error(out, error) from error


def _write_database(source: Path, out: Path) -> None:
    with connect(out, use_lock_file=False) as database:
        for atoms in iread(source, format="extxyz"):
            facts = {k: v for k, v in atoms.info.items() if k != "charge"}
            database.write(atoms, key_value_pairs=facts)


def _write_trajectory(source: Path, out: Path) -> None:
    with TrajectoryWriter(out, mode="w") as file:
        for atoms in iread(source, format="extxyz"):
            file.write(atoms)


def _write_error(out: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a file that can be written at {out} ({error}); choose another "
        "--out, or make room and run again, the frames are kept"
    )


class Trajectory:
    """An extended XYZ file, truncated to `length` bytes and appended to.

    A context manager. Raises InputError where the file cannot be written.
    """

    def __init__(self, out: Path, length: int, scored: bool = True) -> None:
        self._out, self._length, self._scored = out, length, scored

    def __enter__(self) -> Self:
        try:
            self._file = self._out.open("ab")
        except OSError as error:
            raise _write_error(self._out, error) from error
        self._file.truncate(self._length)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, found: ScoredFrames, timestep: float) -> None:
        """Append the frames of the walkers that are eligible."""
        text = io.StringIO()
        for index in map(int, np.flatnonzero(found.eligible)):
            write(
                text,
                _frame_atoms(found, index, timestep, self._scored),
                format="extxyz",
            )
        self._file.write(text.getvalue().encode())

    def sync(self) -> int:
        """Sync all frames to disk; return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()


def _frame_atoms(
    found: ScoredFrames, index: int, timestep: float, scored: bool
) -> object:
    walker, offsets = found.walkers[index], found.batch.offsets
    span = slice(int(offsets[index]), int(offsets[index + 1]))
    positions, cell = found.batch.positions[span], found.batch.cells[index]
    frame = replace(walker.frame, positions=positions, cell=cell)
    step = walker.step + found.step
    atoms = to_atoms(frame)
    atoms.info |= {"walker": walker.index, "step": step, "time": step * timestep}
    if scored:
        atoms.info["surprise"] = float(found.surprise[index])
    energy = float(found.predictions.energies[index])
    forces = found.predictions.forces[span]
    if found.velocities is not None:
        atoms.set_velocities(found.velocities[span] * ASE_VELOCITY)
    if index in found.stopped:
        atoms.info["stopped"] = found.stopped[index].replace("Å", "A")  # ASCII only
    known = {"energy": energy, "forces": forces}
    stress = found.predictions.stress
    if stress is not None and np.isfinite(stress[index]).all():
        known["stress"] = stress[index]
    atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms
