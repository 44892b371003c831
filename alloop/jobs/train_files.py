"""Conversion of label files named on a command line to sections of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.io import read

from alloop.core.errors import InputError
from alloop.files.ase_files import DATABASES, UNREADABLE, database_rows

_OURS = {"energy_unit": "eV", "length_unit": "angstrom"}
_PLAIN = (".xyz", ".extxyz")


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """Label files by level, a test set, and the units of files that do not state them.

    Files of `alloop label` and `alloop export` are in eV and Å; for any other file the
    units must be given.
    """

    expensive: Sequence[Path]
    cheap: Sequence[Path]
    test: Path | None
    energy_unit: str | None = None
    length_unit: str | None = None

    def tree(self) -> dict[str, Any]:
        """Return the sections `start` and `test`, each if files are named for it.

        Raises InputError for a file that does not exist or whose units are unknown.
        """
        levels = {"expensive": self.expensive, "cheap": self.cheap}
        start = [
            {"labels": str(file), "level": level, **self._units(file)}
            for level, files in levels.items()
            for file in files
        ]
        test = {} if self.test is None else {"test": self._test(self.test)}
        return {**({"start": start} if start else {}), **test}

    def _test(self, file: Path) -> dict[str, Any]:
        if file.is_dir():
            return {"store": str(file)}
        return {"file": str(file), **self._units(file)}

    def _units(self, file: Path) -> Mapping[str, str]:
        if file.is_dir():
            raise InputError(
                f"expected a file of labels, {file} is a folder; a store goes first: "
                f"alloop train {file}"
            )
        if not file.is_file():
            raise InputError(f"expected a file of labels, {file} is not there")
        units = {"energy_unit": self.energy_unit, "length_unit": self.length_unit}
        missing = [key for key, unit in units.items() if unit is None]
        if missing and _is_alloop_file(file):
            return _OURS
        if missing:
            options = " and ".join(f"--{key.replace('_', '-')}" for key in missing)
            raise InputError(
                f"expected the units of {file}, which does not say them; give {options}"
            )
        return {key: str(unit) for key, unit in units.items()}


def _is_alloop_file(file: Path) -> bool:
    """Return True if alloop wrote the file, judged by the keys of its first frame."""
    if file.suffix not in (*_PLAIN, *DATABASES):
        return False
    try:
        first = (
            database_rows(file)[0] if file.suffix in DATABASES else read(file, index=0)
        )
    except UNREADABLE:
        return False  # the label reader reports the error
    return {"REF_energy", "frame", "level"} <= set(first.info)
