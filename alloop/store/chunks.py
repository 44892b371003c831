"""Arrays in the Zarr format, encoded in memory by zarr and written to disk by alloop.

zarr writes metadata before data and syncs nothing. Here its encoder writes to a store
in memory, and the resulting bytes can be written in an order in which no reader ever
sees a half-written array.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.errors import DamagedError
from alloop.store.record import Array
from alloop.store.root import NODE_FILE, Node


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """The storage layout of an array: chunks of `rows` rows, compressed or not."""

    rows: int
    dimensions: tuple[str, ...]
    compressed: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


def encode_chunks(
    values: Array, layout: ArrayLayout, first: int = 0
) -> tuple[Node, dict[str, bytes]]:
    """Return the metadata of an array, and the chunks with its rows from `first` on.

    values: these rows; `first` must be the first row of a chunk. The keys are relative
    to the array's folder.
    """
    length = first + len(values)
    whole = -(-length // layout.rows) * layout.rows
    memory: dict[str, Any] = {}
    array = _memory_array(memory, (whole, *values.shape[1:]), values, layout)
    if whole > first:
        array[first:whole] = _padded_rows(values, whole - first)
    node: Node = json.loads(memory.pop(NODE_FILE).to_bytes())
    node["shape"][0] = length
    return node, {key: buffer.to_bytes() for key, buffer in memory.items()}


def open_chunk_row(length: int, layout: ArrayLayout) -> int:
    """Return the first row of the last, partly filled chunk of an array."""
    return length // layout.rows * layout.rows


def open_rows(folder: Path, length: int, layout: ArrayLayout) -> Array:
    """Return the rows of the last, partly filled chunk of the array in `folder`.

    length: the rows of the array that readers see; the files may hold more, from a
    write that was never published. Raises DamagedError if the rows are missing or not
    as they were written.
    """
    import zarr  # slow to import: longer than reading a journal

    first = open_chunk_row(length, layout)
    try:
        array: Any = zarr.open_array(folder, mode="r")
        chunk = folder / chunk_name(first // layout.rows, array.ndim)
        if length > first and not chunk.is_file():
            raise FileNotFoundError(chunk.name)  # zarr would read it as fill values
        rows = np.asarray(array[first:length])
    except (OSError, ValueError, RuntimeError) as error:
        raise _damaged_error(folder, str(error)) from error
    if len(rows) != length - first:
        raise _damaged_error(folder, f"it ends at row {first + len(rows)}")
    return rows


def chunk_name(index: int, dimensions: int) -> str:
    """Return the file name of a chunk.

    index: of the chunk along the first axis; the others are not divided.
    """
    return f"c.{index}" + ".0" * (dimensions - 1)


def _damaged_error(folder: Path, what: str) -> DamagedError:
    return DamagedError(
        f"{folder} cannot be read ({what}); columns are rebuilt from the journal"
    )


def _memory_array(
    memory: dict[str, Any], shape: tuple[int, ...], like: Array, layout: ArrayLayout
) -> Any:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import MemoryStore

    packed = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),)
    return zarr.create_array(
        MemoryStore(memory),
        shape=shape,
        chunks=(layout.rows, *shape[1:]),
        dtype=like.dtype,
        fill_value=_fill_value(like),
        compressors=(*(packed if layout.compressed else ()), Crc32cCodec()),
        dimension_names=layout.dimensions,
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=dict(layout.attributes),
        config={"write_empty_chunks": True},
    )


def _padded_rows(values: Array, rows: int) -> Array:
    out = np.full((rows, *values.shape[1:]), _fill_value(values), dtype=values.dtype)
    out[: len(values)] = values
    return out


def _fill_value(values: Array) -> Any:
    # A lost chunk must not be read as plausible numbers.
    return np.nan if values.dtype.kind == "f" else values.dtype.type(0).item()
