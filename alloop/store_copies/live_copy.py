"""Incremental copies of a store, which a driver may be running.

A copy is a store at every instant, since it is written as a driver writes: models
first, then one record after the other, each checked against its checksum and synced.
So it holds all of the campaign up to a record, and resumes from there to the same end.
A copy that was killed, or whose source grew, is continued by the next one.

A plain `cp -r` of a running store is another matter: files are read one after the
other, while the driver seals and removes some and replaces others. Mostly the result
opens, since records that are missing at its end are as if they had never been; where
a pack was sealed between two reads, records in its middle are missing.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from alloop.core.errors import InputError
from alloop.driver.notices import notices_file
from alloop.files.targets import refuse_inside_store, replace_atomically
from alloop.history.fold_updater import FoldUpdater
from alloop.history.journal_codec import CODEC
from alloop.store.archive import Archive

_BATCH = 64  # records between two looks for new models


@dataclass(frozen=True, slots=True)
class Copied:
    """The records and models that a copy gained, and the records that it has now."""

    records: int
    models: int
    total: int


def copy_store(store: Path, target: Path) -> Copied:
    """Bring `target` up to the last record of `store`; make it where there is none.

    Raises:
    ------
    InputError
        The target lies in a store, is the store itself, or holds other records.
    StoreError
        One of the two cannot be used, or somebody is writing to the target.
    """
    refuse_inside_store(target.parent)
    if target.resolve() == store.resolve():
        raise InputError(f"expected another place than {store} for its copy")
    with (
        Archive.open(store, CODEC) as source,
        _open_target(source, target) as copy,
    ):
        begin = copy.last() + 1
        _refuse_other(source, copy)
        before = len(copy.model_ids())
        entries = source.entries(begin)
        while batch := list(islice(entries, _BATCH)):
            _copy_models(source, copy)
            for entry in batch:
                copy.append_entry(entry)
        _copy_models(source, copy)
        total = copy.last() + 1
        if total > begin:
            keeper = FoldUpdater(copy)
            keeper.fill_columns()
            keeper.close()
        models = len(copy.model_ids()) - before
    _copy_notices(store, target)
    return Copied(total - begin, models, total)


@contextlib.contextmanager
def _open_target(source: Archive, target: Path) -> Iterator[Archive]:
    if target.exists():
        with Archive.open(target, CODEC, "w") as copy:
            yield copy
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        with Archive.create(target, attrs=source.attrs, codec=CODEC) as copy:
            yield copy


def _refuse_other(source: Archive, copy: Archive) -> None:
    """Raise InputError unless the records of the copy are those of the source."""
    last = copy.last()
    names = [archive.attrs.get("name") for archive in (source, copy)]
    if names[0] != names[1] or (last >= 0 and source.digest(last) != copy.digest(last)):
        raise InputError(
            f"expected a copy of {source.path} at {copy.path}, it is another store, or "
            "a copy that went on by itself; choose another place"
        )


def _copy_models(source: Archive, copy: Archive) -> None:
    for name in sorted({*source.model_ids()} - {*copy.model_ids()}):
        copy.put_model(name, source.model(name))


def _copy_notices(store: Path, target: Path) -> None:
    """Copy what was told, so that the copy does not tell it again when it goes on."""
    with contextlib.suppress(FileNotFoundError):
        lines = notices_file(store).read_bytes()
        with replace_atomically(notices_file(target)) as partial:
            partial.write_bytes(lines)
