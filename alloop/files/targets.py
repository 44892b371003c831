"""Files that a command writes: checked before any work is done, written atomically."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alloop.core.errors import InputError

LABELS = (".extxyz", ".xyz", ".db")
MODELS = (".model", ".alloop", ".safetensors")
PAGES = (".html", ".htm")
_STORE = "zarr.json"  # in every folder of a Zarr store


def refuse_target(
    out: Path, endings: Sequence[str], *, force: bool = False, taken: bool = True
) -> None:
    """Raise InputError if a file must not or cannot be written.

    Parameters
    ----------
    out
        The file to write.
    endings
        The endings by which the command chooses a format.
    force
        Replace an existing file.
    taken
        Refuse an existing file; False if the caller knows that it is its own.
    """
    if out.suffix.lower() not in endings:
        raise InputError(
            f"expected a file that ends in {', '.join(endings)}, got {out}; "
            "choose another name"
        )
    refuse_inside_store(out)
    if not out.parent.is_dir():
        raise InputError(
            f"expected a file that can be written at {out}, there is no folder "
            f"{out.parent}; make it, or choose another place"
        )
    if out.is_dir():
        raise InputError(
            f"expected a file to write at {out}, got a folder; choose another name"
        )
    if taken and not force and os.path.lexists(out):
        raise InputError(
            f"{out} is there already; choose another name, or add --force to replace it"
        )


def refuse_inside_store(out: Path) -> None:
    """Raise InputError if a path is within a store, where only alloop writes."""
    for folder in (out.resolve(), *out.resolve().parents):
        if (folder / _STORE).is_file():
            raise InputError(
                f"expected a place outside of stores, {out} is within {folder}; "
                "choose another place"
            )


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path`, synced.

    It has the ending of `path`, by which some writers choose a format.
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
