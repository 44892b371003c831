"""Writing of the columns: new rows reach the disk first, then one switch shows them.

Order of writing: chunks, then each array's own metadata (the row-counting column last),
then the root `zarr.json`, replaced atomically, whose consolidated metadata is what a
reader opens. A crash in between leaves longer chunks that no reader sees; the next
write encodes the last chunks of every array again, from the published rows and the new
ones. All columns can be rebuilt from the journal.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from alloop.core.errors import DamagedError
from alloop.store import root
from alloop.store.archive import Archive
from alloop.store.chunks import open_array
from alloop.store.column_changes import (
    MARK,
    RECORD,
    SCHEMA,
    ColumnChange,
    appended_tails,
    table_change,
)
from alloop.store.files import explain_errors, write_many
from alloop.store.root import NODE_FILE, Node, dump_node
from alloop.store.schema import REPLACED, TABLES, VERSION, Tables, checked_table

Attributes: TypeAlias = Mapping[str, Mapping[str, Any]]
Rows: TypeAlias = Callable[[int], Tables]


def fill_columns(
    archive: Archive, rows: Rows, last_seq: int, attrs: Attributes | None = None
) -> None:
    """Bring the columns up to record `last_seq`, adding only what is new.

    The cost is that of the new rows and one chunk an array, however long the columns
    are.

    Parameters
    ----------
    archive
        The store, open for writing.
    rows
        `rows(after)` returns, for every table, the rows from the records after number
        `after` up to record `last_seq`; -1 asks for all rows. Offsets begin at 0;
        `structure` counts from the first row of the store. A table in
        `schema.REPLACED` is passed whole each time.
    last_seq
        The number of the last journal record that the rows hold.
    attrs
        More attributes of a table's group, such as a level's settings.
    """
    archive.confirm()
    after = appendable_record(archive.path)
    if after >= 0:
        try:
            return _append_rows(archive, rows(after), last_seq, attrs)
        except DamagedError:
            pass  # all columns can be rebuilt from the journal
    clear_columns(archive)
    return _append_rows(archive, rows(-1), last_seq, attrs)


def appendable_record(path: Path) -> int:
    """Return the number of the record after which rows can be appended, else -1."""
    members = root.node_members(root.read_root(path))
    present = table_names(members)
    marks = {members[name]["attributes"][MARK] for name in present}
    versions = {members[name]["attributes"].get(SCHEMA) for name in present}
    return int(marks.pop()) if len(marks) == 1 and versions == {VERSION} else -1


def open_column(path: Path, name: str) -> Any:
    """Return a published column, such as `labels/cheap/energy`, for reading.

    Raises ValueError or OSError where its metadata or chunks are not as alloop writes
    them, and KeyError where there is none.
    """
    return open_array(path / name, root.node_members(root.read_root(path))[name])


def _append_rows(
    archive: Archive, rows: Tables, last_seq: int, attrs: Attributes | None
) -> None:
    arrays = {name: checked_table(name, table) for name, table in rows.items()}
    members = root.node_members(root.read_root(archive.path))
    attributes = _last_record(archive, last_seq)
    with explain_errors(archive.path):
        changes = [
            table_change(
                members,
                name,
                appended_tails(archive.path, members, name, array),
                {**(attrs or {}).get(name, {}), **attributes},
            )
            for name, array in arrays.items()
        ]
        _commit_changes(archive, members, changes)


def _last_record(archive: Archive, last_seq: int) -> dict[str, Any]:
    """Return the record that the rows go up to, by number and by checksum."""
    digest = archive.digest(last_seq)
    return {MARK: last_seq} | ({} if digest is None else {RECORD: digest})


def clear_columns(archive: Archive) -> None:
    """Remove all columns; readers see none of them from the beginning on."""
    archive.confirm()
    with explain_errors(archive.path):
        members = root.node_members(root.read_root(archive.path))
        others = {path: node for path, node in members.items() if not _is_column(path)}
        root.publish_members(archive.path, others, archive.files)
        for name in TABLES:
            shutil.rmtree(archive.path / name, ignore_errors=True)


def table_names(members: Mapping[str, Node]) -> list[str]:
    """Return the tables among a store's members, sorted."""
    columns = (path for path in members if _is_column(path))
    return sorted(path for path in columns if MARK in members[path]["attributes"])


def _is_column(path: str) -> bool:
    return path.split("/")[0] in TABLES


def _commit_changes(
    archive: Archive, members: dict[str, Node], changes: list[ColumnChange]
) -> None:
    archive.confirm()
    store, files = archive.path, archive.files
    chunks = {key: data for change in changes for key, data in change.chunks.items()}
    nodes = {key: node for change in changes for key, node in change.nodes.items()}
    documents = {f"{key}/{NODE_FILE}": dump_node(node) for key, node in nodes.items()}
    write_many(files, store, chunks, root.staging_folder(store))
    write_many(files, store, documents, root.staging_folder(store))
    others = {
        path: node for path, node in members.items() if not _is_stale(path, nodes)
    }
    root.publish_members(store, {**others, **nodes}, files)
    _remove_unshown(store, {**members, **nodes})


def _is_stale(path: str, nodes: Mapping[str, Node]) -> bool:
    """Return True if a published path belongs to a table that these nodes replace."""
    name, place = path.split("/")[0], "/".join(path.split("/")[:2])
    return name in REPLACED and name in nodes and place not in nodes


def _remove_unshown(store: Path, members: Mapping[str, Node]) -> None:
    """Remove replaced tables that were not published even before this write."""
    for name in REPLACED:
        for folder in (store / name).glob("[0-9]*"):
            if f"{name}/{folder.name}" not in members:
                shutil.rmtree(folder, ignore_errors=True)
