"""Reading of structures without labels, in any format that ASE reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.io import iread, read
from ase.io.formats import string2index

from alloop.core.atoms import from_atoms
from alloop.core.errors import InputError
from alloop.core.frame import Frame, frame_fault
from alloop.files.ase_files import DATABASES, UNREADABLE, database_rows


@dataclass(frozen=True, slots=True, eq=False)
class GivenStructure:
    """A structure as read from its file, and the frame made of it."""

    atoms: Atoms
    frame: Frame


def read_frames(
    sources: Sequence[str], charge: int | None = None, spin: int | None = None
) -> list[GivenStructure]:
    """Read all structures of some files, in order.

    A source is a path, or a path with ASE's index: `file.xyz@0:10`. charge (e) and spin
    (2S) of every frame default to what the files say, then to 0. Raises InputError if a
    file cannot be read.
    """
    return [
        GivenStructure(atoms, from_atoms(atoms, charge, spin))
        for source in sources
        for atoms in _read_structures(source)
    ]


def read_sound_frames(sources: Sequence[str]) -> list[GivenStructure]:
    """Read structures as `read_frames` does; refuse those that no program can use.

    Raises InputError for the first whose coordinates or cell are at fault.
    """
    structures = read_frames(sources)
    for index, structure in enumerate(structures):
        if fault := frame_fault(structure.frame):
            raise InputError(
                f"frame {index} of {', '.join(sources)}: {fault}; mend it or leave it "
                "out"
            )
    return structures


def iterate_frames(source: str) -> Iterator[GivenStructure]:
    """Yield the structures of a file one at a time, where its format allows that.

    Otherwise as `read_frames`; InputError comes when what cannot be read is reached.
    """
    file, index = _split_index(source)
    from_end = min(index.start or 0, index.stop or 0, index.step or 1) < 0
    if file.suffix in DATABASES or from_end or not file.is_file():
        yield from read_frames([source])
        return
    empty = True
    for atoms in _structures_in_turn(source, file, index):
        empty = False
        yield GivenStructure(atoms, from_atoms(atoms))
    if empty:
        raise _none_there(source)


def _structures_in_turn(source: str, file: Path, index: slice) -> Iterator[Atoms]:
    try:
        yield from iread(file, index=index, do_not_split_by_at_sign=True)
    except UNREADABLE as error:
        raise _unreadable(source, error) from error


def _read_structures(source: str) -> list[Atoms]:
    file, index = _split_index(source)
    if not file.is_file():
        raise InputError(f"expected a file of structures, {file} is not there")
    try:
        from_database = file.suffix in DATABASES  # ASE's reader would drop the keys
        images = (
            database_rows(file)[index] if from_database else _read_file(file, index)
        )
    except UNREADABLE as error:
        raise _unreadable(source, error) from error
    if not images:
        raise _none_there(source)
    return images


def _unreadable(source: str, error: Exception) -> InputError:
    return InputError(
        f"expected structures that ASE can read, {source} cannot be read "
        f"({type(error).__name__}: {error})"
    )


def _none_there(source: str) -> InputError:
    file, _ = _split_index(source)
    return InputError(
        f"expected structures, {source} names none that {file} has; count from 0"
    )


def _split_index(source: str) -> tuple[Path, slice]:
    """Split a source into file and index; a file's name may contain an `@`."""
    name, at, index = source.rpartition("@")
    if Path(source).exists() or not at:
        return Path(source), slice(None)
    try:
        selection = string2index(index)
    except ValueError:
        selection = index
    if isinstance(selection, str):
        raise InputError(
            f"expected an index such as 5, 0:10 or ::2 behind the `@` of {source}, "
            f"got {index}"
        )
    if isinstance(selection, int):
        selection = slice(selection, selection + 1 or None)
    return Path(name), selection


def _read_file(file: Path, index: slice) -> list[Atoms]:
    """Read some structures of a file; all are read if an index counts from its end."""
    if min(index.start or 0, index.stop or 0, index.step or 1) < 0:
        return _read_file(file, slice(None))[index]
    images: list[Atoms] = read(file, index=index, do_not_split_by_at_sign=True)
    return images
