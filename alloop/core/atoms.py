"""Frames to ase.Atoms and back."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers

# Names of an extxyz file's or a database's keys; `spin` is 2S, as alloop writes it, and
# `total_spin` is 2S + 1, as MACE has it.
CHARGES = ("charge", "total_charge", "net_charge", "molecular_charge")
UNPAIRED = ("spin", "unpaired_electrons", "uhf")
MULTIPLICITIES = ("multiplicity", "spin_multiplicity", "mult", "total_spin")
_GIVEN = "as given"


def to_atoms(frame: Frame) -> Atoms:
    """Return an ase.Atoms of the frame; charge and spin are in `atoms.info`."""
    return Atoms(
        numbers=frame.numbers,
        positions=frame.positions,
        cell=frame.cell,
        pbc=frame.pbc,
        info={"charge": frame.charge, "spin": frame.spin},
    )


class ElectronicState(NamedTuple):
    """Total charge (e) and spin (2S) of a structure, and the names they were read from.

    A name is "" where the structure has none, so that the value is 0, and "as given"
    where the caller set it.
    """

    charge: int
    spin: int
    charge_name: str = ""
    spin_name: str = ""

    def __str__(self) -> str:
        charge, spin = (
            f" ({name})" if name else " (by default)"
            for name in (self.charge_name, self.spin_name)
        )
        return f"charge {self.charge}{charge}, multiplicity {self.spin + 1}{spin}"


def electronic_state(
    atoms: Atoms, charge: int | None = None, spin: int | None = None
) -> ElectronicState:
    """Return the charge and the spin of an ase.Atoms.

    Each is that of the caller, else that of a key of `atoms.info` in any case of
    letters (see CHARGES, UNPAIRED, MULTIPLICITIES), else the sum of ASE's initial
    charges or magnetic moments, else the total moment of its calculator's results.
    Raises InputError where two of them disagree, or one is not a whole number.
    """
    charges = _written_charges(atoms) if charge is None else {}
    spins = _written_spins(atoms) if spin is None else {}
    return ElectronicState(
        charge=_agreed(charges, "charge") if charge is None else charge,
        spin=_agreed(spins, "multiplicity") if spin is None else spin,
        charge_name=next(iter(charges), "" if charge is None else _GIVEN),
        spin_name=next(iter(spins), "" if spin is None else _GIVEN),
    )


def _written_charges(atoms: Atoms) -> dict[str, float]:
    """Return the total charge in e under each name that has one."""
    info = _lower_keys(atoms)
    charges = {key: _number(key, info[key]) for key in CHARGES if key in info}
    if atoms.has("initial_charges") and atoms.get_initial_charges().any():
        charges["initial_charges"] = float(atoms.get_initial_charges().sum())
    return charges


def _written_spins(atoms: Atoms) -> dict[str, float]:
    """Return 2S under each name that has it."""
    info = _lower_keys(atoms)
    spins = {key: _number(key, info[key]) for key in UNPAIRED if key in info}
    for key in MULTIPLICITIES:
        if key in info:
            spins[key] = _number(key, info[key]) - 1.0
    moments = atoms.get_initial_magnetic_moments()
    if moments.ndim == 1 and moments.any():
        spins["initial_magmoms"] = abs(float(moments.sum()))
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    if not spins and results.get("magmom"):
        spins["magmom"] = abs(_number("magmom", results["magmom"]))
    return spins


def _lower_keys(atoms: Atoms) -> dict[str, object]:
    return {str(key).lower(): value for key, value in atoms.info.items()}


def _number(key: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(
            f"expected a whole number as `{key}` of a structure, got {value!r}; mend "
            "the file, or give charge and multiplicity"
        ) from None


def _agreed(values: Mapping[str, float], key: str) -> int:
    """Return the whole number that all names give, 0 without one; key: of the mend."""
    numbers = {name: round(value) for name, value in values.items()}
    whole = all(abs(values[name] - number) < 0.01 for name, number in numbers.items())
    if len(set(numbers.values())) > 1 or not whole:
        listed = ", ".join(f"`{name}` {value:g}" for name, value in values.items())
        what = "charge" if key == "charge" else "number of unpaired electrons"
        raise InputError(
            f"expected one whole {what} of a structure, it has {listed}; give `{key}`"
        )
    return next(iter(numbers.values()), 0)


def from_atoms(
    atoms: Atoms, charge: int | None = None, spin: int | None = None
) -> Frame:
    """Return the frame of an ase.Atoms.

    charge and spin (2S) default to those of the structure, see `electronic_state`,
    which raises InputError where it has several. Raises InputError for numbers that are
    no element's; 0 is a dummy atom.
    """
    state = electronic_state(atoms, charge, spin)
    refuse_unknown_elements(atoms.numbers)
    return Frame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=state.charge,
        spin=state.spin,
        cell=np.asarray(atoms.cell.array, dtype=np.float64),
        pbc=tuple(atoms.pbc),
    )


def refuse_unknown_elements(numbers: Integers, first: int = 0) -> None:
    """Raise InputError where an atomic number is below `first` or no element's."""
    wrong = [x for x in numbers if not first <= x < len(chemical_symbols)]
    if wrong:
        last = len(chemical_symbols) - 1
        raise InputError(
            f"expected atomic numbers of {first} to {last}, got {wrong[0]}"
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
