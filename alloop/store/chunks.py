"""Arrays in the Zarr format, encoded in memory by zarr and written to disk by alloop.

zarr writes metadata before data and syncs nothing. Here its encoder writes to a store
in memory, and the resulting bytes can be written in an order in which no reader ever
sees a half-written array.

A store may come from elsewhere, and its metadata choose the code that decodes it: the
filters of Zarr format 2 can unpickle. So metadata are read and checked here, and zarr
gets what was checked; it never looks for metadata itself.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.errors import DamagedError
from alloop.store.record import Array
from alloop.store.root import NODE_FILE, Node

CODECS = frozenset({"bytes", "blosc", "crc32c"})  # all that alloop writes
_TYPES = re.compile(r"bool|u?int(8|16|32|64)|float(32|64)")
_ENCODING = {"name": "default", "configuration": {"separator": "."}}
_CHUNK_BYTES = 2**26  # more than any chunk that alloop writes, as decoded
_UNPACKED = struct.Struct("<4xI")  # in the header of blosc: the size when decoded


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
    end = -(-length // layout.rows) * layout.rows
    memory: dict[str, Any] = {}
    array = _memory_array(memory, (end, *values.shape[1:]), values, layout)
    if end > first:
        array[first:end] = _padded_rows(values, end - first)
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
    first = open_chunk_row(length, layout)
    try:
        array = open_array(folder)
        chunk = folder / chunk_name(first // layout.rows, array.ndim)
        if length > first and not chunk.is_file():
            raise FileNotFoundError(chunk.name)  # zarr would read it as fill values
        rows = np.asarray(array[first:length])
    except (OSError, ValueError, RuntimeError) as error:
        raise _damaged_error(folder, str(error)) from error
    if len(rows) != length - first:
        raise _damaged_error(folder, f"it ends at row {first + len(rows)}")
    return rows


def open_array(folder: Path, node: Node | None = None) -> Any:
    """Return the array in `folder` for reading, as zarr shows it.

    node: its metadata where a reader has them from the root, else its own file's.
    Raises ValueError where the metadata or chunks are not such as alloop writes, and
    OSError where they cannot be read.
    """
    if node is None:
        node = json.loads((folder / NODE_FILE).read_bytes())
    fault = array_fault(node) or next(_chunk_faults(folder, node), "")
    if fault:
        raise ValueError(fault)
    import zarr  # slow to import: longer than reading a journal
    from zarr.storage import LocalStore, StorePath

    place = StorePath(LocalStore(folder, read_only=True))
    try:
        return zarr.Array.from_dict(place, node)
    except (TypeError, KeyError) as error:  # settings that a codec does not have
        raise ValueError(f"metadata that zarr cannot read: {error}") from error


def read_array(folder: Path, node: Node | None = None) -> Array:
    """Return all values of the array in `folder`, see `open_array` for the errors.

    Raises FileNotFoundError where a chunk is missing, which zarr would fill.
    """
    array = open_array(folder, node)
    for index in range(-(-array.shape[0] // array.chunks[0])):
        (folder / chunk_name(index, array.ndim)).stat()
    return np.asarray(array[:])


def array_fault(node: Any) -> str:
    """Return what is foreign to alloop in the metadata of an array, "" if nothing is.

    Metadata without a fault name no code but that of `CODECS`.
    """
    try:
        codecs = {codec["name"] for codec in node["codecs"]}
        shape, chunk = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
        right = {
            "Zarr format": node["zarr_format"] == 3 and node["node_type"] == "array",
            "data type": _TYPES.fullmatch(node["data_type"]) is not None,
            "chunk grid": node["chunk_grid"]["name"] == "regular",
            "chunk keys": node["chunk_key_encoding"] == _ENCODING,
            "storage transformer": not node.get("storage_transformers"),
            "shape": len(shape) == len(chunk) > 0
            and all(type(x) is int and 0 <= x < 2**48 for x in shape)
            and all(type(x) is int and x > 0 for x in chunk)
            and list(chunk[1:]) == [max(x, 1) for x in shape[1:]]
            and math.prod(chunk) * 8 <= _CHUNK_BYTES,
        }
    except (KeyError, TypeError, AttributeError):
        return "its metadata are not those of an array"
    if not codecs <= CODECS:
        return f"it names the codec {min(map(str, codecs - CODECS))!r}"
    wrong = next((name for name, holds in right.items() if not holds), None)
    return f"its {wrong} is not as alloop writes it" if wrong else ""


def _chunk_faults(folder: Path, node: Node) -> Iterator[str]:
    """Yield each chunk on disk that is larger than the metadata have it.

    A few bytes could otherwise fill the memory when they are decoded.
    """
    configuration = node["chunk_grid"]["configuration"]
    size = math.prod(configuration["chunk_shape"]) * 8
    packed = any(codec["name"] == "blosc" for codec in node["codecs"])
    for path in folder.glob("c.*"):
        with path.open("rb") as file:
            head = file.read(_UNPACKED.size)
        unpacked = _UNPACKED.unpack(head)[0] if len(head) == _UNPACKED.size else 0
        if path.stat().st_size > 2 * size + 1024 or (packed and unpacked > size):
            yield f"its chunk {path.name} is larger than a chunk of it"


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
