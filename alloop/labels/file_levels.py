"""Levels that are files, identified by a hash of their content, not their path."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.core.levels import Level, installed_version, make_level
from alloop.files.labelled_frames import FileUnits


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


def file_content(path: Path) -> str:
    """Return `sha256:` and 32 hexadecimal digits of the hash of a file's bytes.

    Raises InputError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # The prefix also keeps YAML from reading 12e34 as a number.
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def unchanged_file(settings: Mapping[str, Any]) -> Path:
    """Return the file of a level; InputError if it is missing or has changed."""
    path = Path(settings["path"])
    if file_content(path) != settings["content"]:
        raise InputError(
            f"{path} has changed since this level was described; bring the old file "
            "back, or begin another campaign with the new one"
        )
    return path
