"""Start molecules: by name or from a file, their names, and what refuses them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.data.g2 import data as g2

from alloop.config.sections.data import (
    File,
    Molecule,
)
from alloop.core.atoms import chemical_symbol, from_atoms, hill_formula
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.text import nearest_word
from alloop.labels.gate import check_electrons, check_geometry
from alloop.labels.programs import program_of
from alloop.labels.tolerances import FOREIGN

if TYPE_CHECKING:
    pass

NAMES = {
    "water": "H2O",
    "ammonia": "NH3",
    "methane": "CH4",
    "methanol": "CH3OH",
    "formaldehyde": "H2CO",
    "ethane": "C2H6",
    "ethene": "C2H4",
    "ethylene": "C2H4",
    "ethyne": "C2H2",
    "acetylene": "C2H2",
    "ethanol": "CH3CH2OH",
    "dimethyl ether": "CH3OCH3",
    "acetaldehyde": "CH3CHO",
    "acetic acid": "CH3COOH",
    "formic acid": "HCOOH",
    "benzene": "C6H6",
    "carbon dioxide": "CO2",
    "hydrogen peroxide": "H2O2",
    "CH2O": "H2CO",
    "CH4O": "CH3OH",
    "H3N": "NH3",
}


def molecule_by_name(item: Molecule) -> Frame:
    """Return the equilibrium structure of a small molecule, from ASE's G2 set.

    Raises InputError for an unknown name.
    """
    name = NAMES.get(item.molecule, NAMES.get(item.molecule.lower(), item.molecule))
    if name not in g2:
        raise InputError(_unknown_molecule(item.molecule))
    entry = g2[name]
    atoms = Atoms(entry["symbols"], positions=entry["positions"])
    unpaired = round(sum(entry["magmoms"] or (0,)))
    spin = unpaired if item.spin is None else item.spin
    return from_atoms(atoms, charge=item.charge, spin=spin)


def read_start_file(item: File, folder: Path) -> list[Frame]:
    """Read the structures in a file; raise InputError if it cannot be read."""
    from ase.io import read  # imports scipy

    path = folder / item.file
    if not path.is_file():
        raise InputError(f"expected a structure file, {item.file} is not there")
    try:
        atoms_list = read(path, index=item.index)
    except KeyError as error:
        raise InputError(_no_element(item.file, str(error.args[0]))) from error
    except Exception as error:  # ASE raises anything for a damaged file
        raise InputError(
            f"expected structures that ASE can read, {item.file} is not "
            f"({type(error).__name__}: {error})"
        ) from error
    images = [atoms_list] if isinstance(atoms_list, Atoms) else list(atoms_list)
    if not images:
        raise InputError(f"expected at least one structure, {item.file} has none")
    return [from_atoms(atoms, item.charge, item.spin) for atoms in images]


def molecule_names(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Return a name for each start: its formula, numbered if several share it."""
    formulas = [hill_formula(frame) for frame in frames]
    return tuple(
        f"{name} {formulas[: i + 1].count(name)}" if formulas.count(name) > 1 else name
        for i, name in enumerate(formulas)
    )


def element_symbols(frames: Sequence[Frame]) -> list[str]:
    """Return the symbols of all elements, sorted by atomic number."""
    numbers = np.unique(np.concatenate([[], *(f.numbers for f in frames)]))
    return [chemical_symbol(int(number)) for number in numbers]


def molecule_composition(frame: Frame) -> tuple[tuple[int, ...], int, int]:
    """Return a key of the molecule: sorted atomic numbers, charge, spin."""
    return tuple(sorted(map(int, frame.numbers))), frame.charge, frame.spin


def start_problems(frame: Frame, levels: Sequence[Level]) -> list[str]:
    """Return the reasons why a start cannot be used at these levels."""
    problems = []
    strange = [int(z) for z in frame.numbers if not 0 < z < len(chemical_symbols)]
    if strange:
        problems.append(f"expected chemical elements, got atomic number {strange[0]}")
    if len(frame) == 1 and not strange:
        problems.append(_single_atom(frame))
    close = None if strange else check_geometry(frame, FOREIGN)
    if close is not None:
        problems.append(f"{hill_formula(frame)} cannot be a molecule: {close}")
    if any(program_of(level).counts_electrons(frame) for level in levels):
        odd = check_electrons(frame)
        problems += (
            []
            if odd is None
            else [f"{hill_formula(frame)}: {odd}; set charge or multiplicity"]
        )
    for level in levels:
        problems += _boundary_problems(frame, level)
        if text := program_of(level).state_refusal(level.settings, frame):
            problems.append(text)
    return problems


def _single_atom(frame: Frame) -> str:
    return (
        f"expected molecules or cells of two atoms or more, got a single "
        f"{hill_formula(frame)}: no force ever acts on it, so that MD has nothing to "
        "learn; "
        "leave it out (`alloop atoms` gives its energy)"
    )


def _boundary_problems(frame: Frame, level: Level) -> list[str]:
    treats = program_of(level).boundary(level.settings)
    name, cell = hill_formula(frame), any(frame.pbc)
    if cell and not all(frame.pbc) and treats in ("cells", "both"):
        return [f"{name} is periodic in part, {level.title} needs all directions"]
    if not cell and treats == "cells":
        return [f"{name} is a molecule, {level.title} treats cells"]
    if cell and treats == "molecules":
        return [f"{name} is periodic, {level.title} treats molecules"]
    return []


def _unknown_molecule(name: str) -> str:
    for token in re.findall(r"[A-Z][a-z]?", name):
        if token not in chemical_symbols and token[0] not in chemical_symbols:
            return f"there is no element `{token}` in `{name}`{_near_element(token)}"
    close = nearest_word(name, [*NAMES, *g2])
    hint = f"did you mean `{close}`, or" if close else "give its structure as"
    return f"no molecule is known as `{name}`; {hint} `file: {name}.xyz`?"


def _no_element(file: str, token: str) -> str:
    return (
        f"{file} has an atom of element `{token}`, which is none{_near_element(token)}"
    )


def _near_element(token: str) -> str:
    close = nearest_word(token, chemical_symbols[1:], cutoff=0.5)
    return f"; did you mean `{close}`?" if close else ""
