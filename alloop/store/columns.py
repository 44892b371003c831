"""Filling the columns: new rows reach the disk first, one atomic switch shows them.

Order of writing: chunks, then each array's own metadata (the row-counting column last),
then the root `zarr.json`, whose consolidated metadata is what a reader opens. A crash
in between leaves longer chunks that nobody sees; the next write makes the last chunks
of every array anew from the tables. All columns can be rebuilt from the journal.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.store import root
from alloop.store.archive import Archive
from alloop.store.chunks import Layout, encode
from alloop.store.files import explained, write_many
from alloop.store.record import Array
from alloop.store.root import NODE_FILE, Node, dump
from alloop.store.schema import (
    REPLACED,
    ROW,
    TABLES,
    VERSION,
    Column,
    Tables,
    attributes,
    checked,
    columns,
)

Attributes = Mapping[str, Mapping[str, Any]]
_MARK, _SCHEMA = "mark", "schema"


@dataclass(frozen=True, slots=True)
class _Change:
    """What a table adds: chunks to write, and nodes to write and show."""

    chunks: dict[str, bytes]
    nodes: dict[str, Node]


def write(
    archive: Archive, tables: Tables, mark: int, attrs: Attributes | None = None
) -> None:
    """Bring the columns up to these tables.

    Parameters
    ----------
    archive
        The store, open for writing.
    tables
        All rows of each table from the first on; `alloop.store.schema` says which
        columns. Tables only grow, but for those in `schema.REPLACED`.
    mark
        The number of the last journal record that the tables hold.
    attrs
        More attributes of a table's group, such as a level's settings.
    """
    arrays = {name: checked(name, table) for name, table in tables.items()}
    shown = root.members(root.read(archive.path))
    if not all(_grown(shown, name, each) for name, each in arrays.items()):
        clear(archive)
        shown = root.members(root.read(archive.path))
    changes = [
        _change(shown, name, each, {**(attrs or {}).get(name, {}), _MARK: mark})
        for name, each in arrays.items()
    ]
    with explained(archive.path):
        _commit(archive, shown, changes)


def rebuild(
    archive: Archive, tables: Tables, mark: int, attrs: Attributes | None = None
) -> None:
    """Throw the columns away, whatever state they are in, and write them anew."""
    clear(archive)
    write(archive, tables, mark, attrs)


def clear(archive: Archive) -> None:
    """Remove all columns; a reader sees none from the first moment on."""
    with explained(archive.path):
        shown = root.members(root.read(archive.path))
        kept = {path: node for path, node in shown.items() if not _is_column(path)}
        root.publish(archive.path, kept, archive.files)
        for name in TABLES:
            shutil.rmtree(archive.path / name, ignore_errors=True)


def mark(path: Path) -> int:
    """The number of the last journal record that every table holds, -1 without any."""
    shown = root.members(root.read(path))
    return min((shown[name]["attributes"][_MARK] for name in names(shown)), default=-1)


def names(shown: Mapping[str, Node]) -> list[str]:
    """The tables among a store's members."""
    columns = (path for path in shown if _is_column(path))
    return sorted(path for path in columns if _MARK in shown[path]["attributes"])


def _is_column(path: str) -> bool:
    return path.split("/")[0] in TABLES


def _place(name: str, mark: int) -> str:
    # Another mark, another place: who still reads the last states never sees them mixed
    # with newer ones.
    return f"{name}/{mark:08d}" if name in REPLACED else name


def _grown(shown: Mapping[str, Node], name: str, arrays: Mapping[str, Array]) -> bool:
    """Whether what is shown of a table can be the beginning of these arrays."""
    if name in REPLACED or name not in shown:
        return True
    return shown[name]["attributes"].get(_SCHEMA) == VERSION and all(
        _length(shown, f"{name}/{key}") <= len(array) for key, array in arrays.items()
    )


def _length(shown: Mapping[str, Node], path: str) -> int:
    return int(shown[path]["shape"][0]) if path in shown else 0


def _change(
    shown: Mapping[str, Node],
    name: str,
    arrays: Mapping[str, Array],
    said: dict[str, Any],
) -> _Change:
    place = _place(name, said[_MARK])
    wanted = columns(name)
    chunks: dict[str, bytes] = {}
    nodes: dict[str, Node] = {}
    for key in [*list(wanted)[1:], next(iter(wanted))]:
        path = f"{place}/{key}"
        node, made = encode(
            arrays[key], _layout(name, wanted[key]), _length(shown, path)
        )
        if node != shown.get(path):
            nodes[path] = node
            chunks |= {f"{path}/{chunk}": data for chunk, data in made.items()}
    said |= {_SCHEMA: VERSION, "rows": len(arrays[next(iter(wanted))])}
    return _Change(chunks, {**nodes, **dict(_groups(place, said))})


def _groups(place: str, said: dict[str, Any]) -> Iterator[tuple[str, Node]]:
    above, _, _ = place.rpartition("/")
    if above:
        yield above, root.group()
    yield place, root.group(said)


def _layout(table: str, column: Column) -> Layout:
    row = table.split("/")[0].removesuffix("s")
    first = row if column.along == ROW else f"{row}_{column.along}"
    dimensions = (first, *(axis for axis, _ in column.axes))
    return Layout(column.chunk, dimensions, True, attributes(column))


def _commit(archive: Archive, shown: dict[str, Node], changes: list[_Change]) -> None:
    store, files = archive.path, archive.files
    chunks = {key: data for each in changes for key, data in each.chunks.items()}
    nodes = {key: node for each in changes for key, node in each.nodes.items()}
    documents = {f"{key}/{NODE_FILE}": dump(node) for key, node in nodes.items()}
    write_many(files, store, chunks, root.staging(store))
    write_many(files, store, documents, root.staging(store))
    kept = {path: node for path, node in shown.items() if not _stale(path, nodes)}
    root.publish(store, {**kept, **nodes}, files)
    _forget(store, {**shown, **nodes})


def _stale(path: str, nodes: Mapping[str, Node]) -> bool:
    """Whether a shown path belongs to a table that these nodes replace."""
    name, place = path.split("/")[0], "/".join(path.split("/")[:2])
    return name in REPLACED and name in nodes and place not in nodes


def _forget(store: Path, known: Mapping[str, Node]) -> None:
    """Remove replaced tables that were not shown even before this write."""
    for name in REPLACED:
        for folder in (store / name).glob("[0-9]*"):
            if f"{name}/{folder.name}" not in known:
                shutil.rmtree(folder, ignore_errors=True)
