"""Checks of the files that a command is about to write, before any work is done."""

import os
from collections.abc import Sequence
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
