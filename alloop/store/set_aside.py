"""Columns that do not belong to the journal: they are set aside, never mixed.

A journal that lost its end, or was restored from an older copy, goes on differently
from what its columns hold. These are moved, unchanged, into a folder of the store that
plain zarr opens, and rebuilt from the journal.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from alloop.core.errors import StoreError
from alloop.store import root
from alloop.store.column_changes import MARK, RECORD
from alloop.store.files import FileSystem, make_folders, replace_file
from alloop.store.journal import Journal
from alloop.store.root import NODE_FILE, Node
from alloop.store.schema import TABLES

_PREFIX = "set-aside-"


def set_aside_folders(store: Path) -> tuple[Path, ...]:
    """Return the folders of columns that were set aside, sorted."""
    return tuple(sorted(x for x in store.glob(f"{_PREFIX}*") if x.is_dir()))


def foreign_record(members: Mapping[str, Node], journal: Journal) -> int:
    """Return the last record of the columns if the journal lacks it, else -1.

    members: a store's members.
    """
    for attributes in (node["attributes"] for node in _table_nodes(members).values()):
        last_seq = int(attributes.get(MARK, -1))
        if last_seq > journal.last() or not _is_same_record(
            journal, last_seq, attributes.get(RECORD)
        ):
            return last_seq
    return -1


def set_columns_aside(
    store: Path, members: Mapping[str, Node], last_seq: int, files: FileSystem
) -> Path:
    """Move the columns into a folder of their own and return it.

    After a crash in between, some tables are moved already: the next call moves the
    others to the same place.
    """
    moved = {k: node for k, node in members.items() if k.split("/")[0] in TABLES}
    text = json.dumps(moved, sort_keys=True).encode()
    name = f"{_PREFIX}{last_seq:08d}-{hashlib.sha256(text).hexdigest()[:8]}"
    target = store / name
    make_folders(files, target)
    about = {
        "about": f"columns up to record {last_seq}, which the journal does not have"
    }
    replace_file(
        files,
        target / NODE_FILE,
        root.dump_node(root.root_node(about, moved)),
        root.staging_folder(store),
    )
    for table in TABLES:
        if (store / table).is_dir():
            files.replace(store / table, target / table)
    files.sync(target)
    files.sync(store)
    root.publish_members(
        store, {k: v for k, v in members.items() if k not in moved}, files
    )
    return target


def _table_nodes(members: Mapping[str, Node]) -> dict[str, Node]:
    return {
        path: node
        for path, node in members.items()
        if path.split("/")[0] in TABLES and MARK in node["attributes"]
    }


def _is_same_record(journal: Journal, last_seq: int, digest: str | None) -> bool:
    """Return True if the journal's record of this number has the checksum.

    A checksum that was not noted, or a damaged record, counts as the same.
    """
    if digest is None or last_seq < 0:
        return True
    try:
        return journal.read(last_seq).digest.hex() == digest
    except StoreError:
        return True
