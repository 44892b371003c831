"""A new store beside an old one, which appears whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.history.journal_codec import CODEC
from alloop.store.archive import Archive
from alloop.store.files import FileSystem, make_folders


def refuse_target(parent: Path, out: Path) -> None:
    """Raise InputError if `out` exists, or lies in the store `parent`."""
    if out.exists() or out.is_symlink():
        raise InputError(
            f"expected a place for a new store, {out} exists already; choose another"
        )
    if parent.resolve() in out.resolve().parents:
        raise InputError(
            f"expected a place beside {parent}, {out} lies in it; choose another"
        )


@contextlib.contextmanager
def new_store(out: Path, attrs: Mapping[str, Any]) -> Iterator[Path]:
    """Make a store with these attributes; yield the folder in which to complete it.

    It is moved to `out` when the block ends, and removed if the block fails. A killed
    process leaves a folder that ends in `.partial`, which the next one removes.
    """
    files = FileSystem()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folders(files, out.parent)
    Archive.create(partial, attrs=attrs, codec=CODEC).close()
    try:
        yield partial
        files.replace(partial, out)
        files.sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
