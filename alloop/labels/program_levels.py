"""Levels of programs other than PySCF, with all defaults explicit.

The programs themselves are not imported here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.core.levels import Level, installed_version, make_level
from alloop.core.spelling import known_word
from alloop.files.units import FileUnits
from alloop.labels.file_levels import file_content
from alloop.labels.xtb import METHODS


def xtb_level(
    method: str = "gfn2-xtb",
    *,
    spin_polarized: bool = False,
    accuracy: float = 0.01,
    temperature: float = 300.0,
    max_cycle: int = 250,
) -> Level:
    """Return a level of extended tight binding: gfn1-xtb or gfn2-xtb.

    spin_polarized adds the energy of spin polarisation (spGFN-xTB: Neugebauer et al.,
    J. Comput. Chem. 44, 2120 (2023)), without which triplet oxygen lies above the
    singlet. accuracy is tblite's (1 is its default, smaller is tighter), temperature
    that of the electrons in K. Raises InputError for an unknown method.
    """
    name = known_word(method, METHODS, "xTB method")
    note = f" ({temperature:g} K)" if temperature != 300.0 else ""
    settings = {
        "title": f"{'sp' if spin_polarized else ''}{METHODS[name]}{note}",
        "program": installed_version("tblite"),
        "method": name,
        "spin_polarized": spin_polarized,
        "accuracy": float(accuracy),
        "temperature": float(temperature),
        "max_cycle": max_cycle,
    }
    return make_level("xtb", settings)


def ase_level(calculator: str, arguments: Mapping[str, Any] | None = None) -> Level:
    """Return a level of the ASE calculator at an import path, with its arguments."""
    settings = {
        "title": calculator.rpartition(".")[2],
        "program": installed_version(calculator.partition(".")[0]),
        "calculator": calculator,
        "arguments": dict(arguments or {}),
    }
    return make_level("ase", settings)


def table_level(  # noqa: PLR0913 - one keyword for each fact a file cannot say
    path: str | Path,
    *,
    content: str | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int | None = None,
    spin: int | None = None,
) -> Level:
    """Return a level whose labels are stored in a file: extxyz, ASE database or npz.

    A frame is found by its id, the hash of its content. content: the hash of the file,
    computed from the file if not given; it identifies the level, the path only locates
    the file. Units default to eV and Å for files that ASE reads and must be given for
    an npz. charge and spin (2S) of every frame default to those in the file, then to 0.
    Raises InputError for a missing file, an unknown unit and an npz without units.
    """
    file = Path(path).absolute()
    if file.suffix == ".npz" and not (energy_unit and length_unit):
        raise InputError(
            "an npz does not say what its numbers mean: give the table's `energy_unit` "
            "and `length_unit`"
        )
    units = FileUnits(energy_unit or "eV", length_unit or "angstrom", force_unit or "")
    settings = {
        "content": content or file_content(file),
        "path": str(file),
        "energy_unit": units.energy,
        "length_unit": units.length,
        "force_unit": units.force,
        "energy_key": energy_key,
        "forces_key": forces_key,
        "charge": charge,
        "spin": spin,
    }
    return make_level("table", settings)


def model_level(
    path: str | Path, *, content: str | None = None, outside: bool = False
) -> Level:
    """Return a level of a trained alloop model, as `alloop export --model` writes it.

    content: the hash of the file, computed from the file if not given; it identifies
    the level, the path only locates the file. outside: label also charges, spins and
    compositions that the model was not trained on. Raises InputError if the file is
    missing.
    """
    file = Path(path).absolute()
    settings: dict[str, Any] = {"outside": True} if outside else {}
    settings |= {
        "program": f"{installed_version('alloop')}, {installed_version('torch')}",
        "content": content or file_content(file),
        "path": str(file),
    }
    return make_level("model", settings)
