"""Arrays as Zarr's own bytes, made in memory by zarr, put on the disk by us.

zarr writes metadata before data and syncs nothing; here its encoder runs on a store in
memory, and what it made can be written in an order that no reader sees half of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from alloop.store.record import Array
from alloop.store.root import NODE_FILE, Node

_SHUFFLED = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec())


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array is stored: chunks of `rows` rows, compressed or not."""

    rows: int
    dimensions: tuple[str, ...]
    compressed: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


def encode(
    values: Array, layout: Layout, start: int = 0
) -> tuple[Node, dict[str, bytes]]:
    """Metadata of the array, and the chunks that hold its rows from `start` on.

    Chunks are made whole from `values`, never from what is on the disk. The keys are
    relative to the array's folder.
    """
    whole = -(-len(values) // layout.rows) * layout.rows
    begin = start // layout.rows * layout.rows
    memory: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(memory),
        shape=(whole, *values.shape[1:]),
        chunks=(layout.rows, *values.shape[1:]),
        dtype=values.dtype,
        fill_value=_fill(values),
        compressors=_SHUFFLED if layout.compressed else (Crc32cCodec(),),
        dimension_names=layout.dimensions,
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=dict(layout.attributes),
        config={"write_empty_chunks": True},
    )
    if whole > begin:
        array[begin:whole] = _padded(values[begin:], whole - begin)
    node: Node = json.loads(memory.pop(NODE_FILE).to_bytes())
    node["shape"][0] = len(values)
    return node, {key: buffer.to_bytes() for key, buffer in memory.items()}


def _padded(values: Array, rows: int) -> Array:
    out = np.full((rows, *values.shape[1:]), _fill(values), dtype=values.dtype)
    out[: len(values)] = values
    return out


def _fill(values: Array) -> Any:
    # A chunk that got lost must not read as plausible numbers.
    return np.nan if values.dtype.kind == "f" else values.dtype.type(0).item()
