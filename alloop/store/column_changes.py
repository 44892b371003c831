"""The changes that new rows make to a table's arrays: chunks and metadata to write.

Only the last, partly filled ("open") chunk, from the rows on disk that readers see, and
those after it are encoded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from alloop.store import root
from alloop.store.chunks import ArrayLayout, encode_chunks, open_chunk_row, open_rows
from alloop.store.record import Array
from alloop.store.root import Node
from alloop.store.schema import (
    ATOM,
    BOUND,
    REPLACED,
    ROW,
    VERSION,
    Column,
    column_attributes,
    table_columns,
)

MARK, RECORD, SCHEMA = "mark", "record", "schema"  # last record, its checksum
Tail: TypeAlias = tuple[int, Array]  # where a chunk begins, and all rows from there on


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """The additions to a table: chunks to write, and nodes to write and publish."""

    chunks: dict[str, bytes]
    nodes: dict[str, Node]


def table_place(name: str, last_seq: int) -> str:
    """Return the folder of a table whose last record is `last_seq`.

    Each state of a replaced table has its own: a reader of an older state never sees it
    mixed with newer ones.
    """
    return f"{name}/{last_seq:08d}" if name in REPLACED else name


def _member_length(members: Mapping[str, Node], path: str) -> int:
    return int(members[path]["shape"][0]) if path in members else 0


def appended_tails(
    store: Path, members: Mapping[str, Node], name: str, arrays: Mapping[str, Array]
) -> dict[str, Tail]:
    """Return the rows of the open chunks on disk, followed by these arrays."""
    if name in REPLACED or name not in members:
        return {key: (0, array) for key, array in arrays.items()}
    firsts, atoms = _first_open_rows(members, name), 0
    for key, column in table_columns(name).items():
        if column.along == ATOM:
            atoms = _member_length(members, f"{name}/{key}")
    out = {}
    for key, column in table_columns(name).items():
        path = f"{name}/{key}"
        before = open_rows(
            store / path, _member_length(members, path), column_layout(name, column)
        )
        new = arrays[key][1:] + atoms if column.along == BOUND else arrays[key]
        out[key] = (firsts[key], np.concatenate([before, new]))
    return out


def _first_open_rows(members: Mapping[str, Node], name: str) -> dict[str, int]:
    """Return the first row of the open chunk of each column of a table."""
    return {
        key: 0
        if name in REPLACED
        else open_chunk_row(
            _member_length(members, f"{name}/{key}"), column_layout(name, column)
        )
        for key, column in table_columns(name).items()
    }


def table_change(
    members: Mapping[str, Node],
    name: str,
    tails: Mapping[str, Tail],
    attributes: dict[str, Any],
) -> ColumnChange:
    """Return the change that brings a published table to these arrays."""
    home = table_place(name, attributes[MARK])
    columns = table_columns(name)
    counting = next(iter(columns))
    chunks: dict[str, bytes] = {}
    nodes: dict[str, Node] = {}
    for key in [*list(columns)[1:], counting]:
        path = f"{home}/{key}"
        first, values = tails[key]
        node, made = encode_chunks(values, column_layout(name, columns[key]), first)
        if node != members.get(path):
            nodes[path] = node
            chunks |= {f"{path}/{chunk}": data for chunk, data in made.items()}
    first, values = tails[counting]
    attributes |= {SCHEMA: VERSION, "rows": first + len(values)}
    return ColumnChange(chunks, {**nodes, **dict(_group_nodes(home, attributes))})


def _group_nodes(place: str, attributes: dict[str, Any]) -> Iterator[tuple[str, Node]]:
    above, _, _ = place.rpartition("/")
    if above:
        yield above, root.group_node()
    yield place, root.group_node(attributes)


def column_layout(table: str, column: Column) -> ArrayLayout:
    """Return the layout of a column: chunk, dimension names, attributes."""
    row = table.split("/")[0].removesuffix("s")
    first = row if column.along == ROW else f"{row}_{column.along}"
    dimensions = (first, *(axis for axis, _ in column.axes))
    return ArrayLayout(column.chunk, dimensions, True, column_attributes(column))
