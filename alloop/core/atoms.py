"""Frames to ase.Atoms and back."""

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers


def to_atoms(frame: Frame) -> Atoms:
    """Return an ase.Atoms of the frame; charge and spin are in `atoms.info`."""
    return Atoms(
        numbers=frame.numbers,
        positions=frame.positions,
        cell=frame.cell,
        pbc=frame.pbc,
        info={"charge": frame.charge, "spin": frame.spin},
    )


def from_atoms(
    atoms: Atoms, charge: int | None = None, spin: int | None = None
) -> Frame:
    """Return the frame of an ase.Atoms.

    charge and spin (2S) default to those in `atoms.info`, then to 0.
    """
    info = atoms.info
    return Frame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=int(info.get("charge", 0) if charge is None else charge),
        spin=int(info.get("spin", 0) if spin is None else spin),
        cell=np.asarray(atoms.cell.array, dtype=np.float64),
        pbc=tuple(atoms.pbc),
    )


def frame_masses(numbers: Integers) -> Floats:
    """Return the standard atomic masses (atoms,) in amu."""
    out: Floats = np.asarray(atomic_masses[numbers], dtype=np.float64)
    return out


def chemical_symbol(number: int) -> str:
    """Return the chemical symbol of an atomic number."""
    return str(chemical_symbols[number])


def atomic_number(element: str) -> int:
    """Return the atomic number of a chemical symbol; KeyError where there is none."""
    return int(atomic_numbers[element])


def atomic_numbers_of(symbols: Iterable[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols; InputError for unknown ones."""
    given = list(symbols)
    wrong = [name for name in given if not atomic_numbers.get(name)]
    if wrong:
        raise InputError(
            f"expected chemical symbols such as H or Cl, got {', '.join(wrong)}"
        )
    return [atomic_number(name) for name in given]


def hill_formula(frame: Frame) -> str:
    """Return the Hill formula of the frame, such as `CH4O` for methanol."""
    return str(Atoms(numbers=frame.numbers).get_chemical_formula())
