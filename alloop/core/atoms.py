"""Frames to ase.Atoms and back."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers

# Names of an extxyz file's or a database's keys, in any case of letters; `spin` is 2S,
# as alloop writes it, and `total_spin` is 2S + 1, as MACE has it.
CHARGES = ("charge", "total_charge", "net_charge", "molecular_charge", "tot_charge")
UNPAIRED = ("spin", "unpaired_electrons", "uhf")
MULTIPLICITIES = ("multiplicity", "spin_multiplicity", "mult", "total_spin")
# Other keys with these in their name are not understood, but not passed over either.
_OF_CHARGE = re.compile(r"charge|^q(_?tot)?$", re.IGNORECASE)
_OF_SPIN = re.compile(r"spin|mult|unpaired|magmom|magnetic|^2s$", re.IGNORECASE)
_OF_ATOMS = re.compile(
    r"(?!initial|nuclear|core|valence).*(charges|magmoms|spins)", re.IGNORECASE
)
ROUNDING = 0.1  # e or electrons that rounded numbers of atoms are off by in their sum
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
    charges or magnetic moments, else the total of those in its calculator's results.
    Raises InputError where two of them disagree, one is not a whole number, or a whole
    number stands under another name of a charge or spin and nothing else tells it.
    """
    charges = _written_charges(atoms) if charge is None else {}
    spins = _written_spins(atoms) if spin is None else {}
    if charge is None and not charges:
        _refuse_unread(atoms, _OF_CHARGE, "charge")
    if spin is None and not spins:
        _refuse_unread(atoms, _OF_SPIN, "multiplicity")
    unpaired = _agreed(spins, "multiplicity") if spin is None else spin
    if unpaired < 0:
        raise InputError(
            f"expected a spin (2S) of 0 or more, got {unpaired} "
            f"({next(iter(spins), _GIVEN)}); give `multiplicity`"
        )
    return ElectronicState(
        charge=_agreed(charges, "charge") if charge is None else charge,
        spin=unpaired,
        charge_name=next(iter(charges), "" if charge is None else _GIVEN),
        spin_name=next(iter(spins), "" if spin is None else _GIVEN),
    )


def _written_charges(atoms: Atoms) -> dict[str, float]:
    """Return the total charge in e under each name that has one."""
    charges = {key: _number(key, value) for key, value in _of_names(atoms, CHARGES)}
    if atoms.has("initial_charges") and atoms.get_initial_charges().any():
        charges["initial_charges"] = float(atoms.get_initial_charges().sum())
    partial = _atomic_sum(atoms, "charges")
    if not charges and partial:
        charges["charges"] = partial
    return charges


def _written_spins(atoms: Atoms) -> dict[str, float]:
    """Return 2S under each name that has it."""
    spins = {key: _number(key, value) for key, value in _of_names(atoms, UNPAIRED)}
    for key, value in _of_names(atoms, MULTIPLICITIES):
        spins[key] = _number(key, value) - 1.0
    moments = atoms.get_initial_magnetic_moments()
    if moments.any():  # vectors where they are not collinear
        spins["initial_magmoms"] = float(np.linalg.norm(moments.sum(axis=0)))
    total = _results(atoms).get("magmom")
    if not spins and isinstance(total, np.ndarray | list | tuple):
        spins["magmom"] = float(np.linalg.norm(total))
    elif not spins and total:
        spins["magmom"] = abs(_number("magmom", total))
    partial = abs(_atomic_sum(atoms, "magmoms"))
    if not spins and partial:
        spins["magmoms"] = partial
    return spins


def _results(atoms: Atoms) -> Mapping[str, Any]:
    return {} if atoms.calc is None else getattr(atoms.calc, "results", {})


def _atomic_sum(atoms: Atoms, name: str) -> float:
    """Return the sum of the atoms' results of this name, 0.0 where it is about 0."""
    return _rounded_sum(_results(atoms).get(name, ()))


def _rounded_sum(values: object) -> float:
    """Return the sum of rounded numbers of atoms: near a whole number, that number."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        return 0.0
    total = float(array.sum())
    if not np.isfinite(total) or abs(total) < 0.5:
        return 0.0
    return float(round(total)) if abs(total - round(total)) < ROUNDING else total


def _of_names(atoms: Atoms, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield the keys of `atoms.info` that are one of these names, with their values."""
    for key, value in atoms.info.items():
        if str(key).lower() in names:
            yield str(key), value


def _refuse_unread(atoms: Atoms, pattern: re.Pattern[str], key: str) -> None:
    """Raise InputError for a whole number under an unknown name; key: of the mend.

    Zero and a multiplicity of 1 say nothing. Numbers with decimals, such as a spin
    contamination, and truth values are something else.
    """
    for name, number in _other_numbers(atoms):
        silent = (0, 1) if "mult" in name.lower() else (0,)
        if pattern.search(name) and number == round(number) and number not in silent:
            names = CHARGES if key == "charge" else (*UNPAIRED, *MULTIPLICITIES)
            raise InputError(
                f"expected the {key} of a structure under a known name "
                f"({', '.join(names)}), it has `{name}` {number:g}; give `{key}`, or "
                "rename the key"
            )


def _other_numbers(atoms: Atoms) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a structure, and the sums of charges or moments of atoms."""
    for name, value in atoms.info.items():
        if np.ndim(value) != 0 or isinstance(value, bool | np.bool_):
            continue
        with suppress(TypeError, ValueError):
            number = float(value)
            if np.isfinite(number):
                yield str(name), number
    for name, values in atoms.arrays.items():
        if _OF_ATOMS.fullmatch(name):
            yield name, _rounded_sum(values)


def _number(key: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
        if np.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"expected a whole number as `{key}` of a structure, got {value!r}; mend "
        "the file, or give charge and multiplicity"
    )


def _agreed(values: Mapping[str, float], key: str) -> int:
    """Return the whole number that all names give, 0 without one; key: of the mend."""
    numbers = {name: round(value) for name, value in values.items()}
    integral = all(
        abs(values[name] - number) < 0.01 for name, number in numbers.items()
    )
    if len(set(numbers.values())) > 1 or not integral:
        listed = ", ".join(f"`{name}` {value:g}" for name, value in values.items())
        what = "charge" if key == "charge" else "number of unpaired electrons"
        raise InputError(
            f"expected one whole {what} of a structure, it has {listed}; give `{key}`"
        )
    return next(iter(numbers.values()), 0)


def unpaired_electrons(spin: int | None, multiplicity: int | None) -> int | None:
    """Return 2S from a spin (2S) or a multiplicity (2S + 1), None where both are None.

    Raises InputError where both are given, or the multiplicity is below 1.
    """
    if multiplicity is None:
        return spin
    if spin is not None:
        raise InputError(
            "expected spin (2S) or multiplicity (2S + 1), got both; leave one out"
        )
    if multiplicity < 1:
        raise InputError(f"expected a multiplicity of at least 1, got {multiplicity}")
    return multiplicity - 1


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
    names = list(symbols)
    wrong = [name for name in names if not atomic_numbers.get(name)]
    if wrong:
        raise InputError(
            f"expected chemical symbols such as H or Cl, got {', '.join(wrong)}"
        )
    return [atomic_number(name) for name in names]


def hill_formula(frame: Frame) -> str:
    """Return the Hill formula of the frame, such as `CH4O` for methanol."""
    return str(Atoms(numbers=frame.numbers).get_chemical_formula())
