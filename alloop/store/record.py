"""One record as one file's bytes: a JSON header, aligned arrays, a checksum over all.

    magic (8) | header's length (8, little-endian) | header, padded | arrays | sha256

Every array begins at a multiple of 64 bytes and is stored little-endian in C order, so
that a record can be read without this file.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from alloop.core.errors import DamagedError, StoreError

Array: TypeAlias = npt.NDArray[Any]

MAGIC = b"alloop01"
_PREFIX = struct.Struct("<8sQ")
_DIGEST = 32
_ALIGN = 64
_KINDS = "biufc"


def pack(header: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    """The bytes of a record; `header` is JSON without NaN."""
    blobs = [_padded(_little(array).tobytes()) for array in arrays]
    described = {**header, "arrays": [_describe(array) for array in arrays]}
    text = json.dumps(described, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % _ALIGN)
    body = b"".join([_PREFIX.pack(MAGIC, len(text)), text, *blobs])
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes, name: str) -> tuple[dict[str, Any], list[Array]]:
    """Header and arrays (read-only) of a record.

    Raises
    ------
    DamagedError
        The bytes of file `name` are not those that were written.
    StoreError
        A newer alloop wrote them.
    """
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if len(data) < _PREFIX.size + _DIGEST or hashlib.sha256(body).digest() != digest:
        raise DamagedError(
            f"{name} does not match its checksum; run `alloop doctor` on the store"
        )
    magic, length = _PREFIX.unpack_from(body)
    if magic != MAGIC:
        raise StoreError(
            f"{name} begins with {magic!r}, this alloop reads {MAGIC!r}; upgrade alloop"
        )
    start = _PREFIX.size + length
    header: dict[str, Any] = json.loads(body[_PREFIX.size : start])
    return header, _cut(body, start, header.pop("arrays"))


def _cut(body: bytes, start: int, described: list[dict[str, Any]]) -> list[Array]:
    arrays = []
    for each in described:
        dtype, shape = np.dtype(each["dtype"]), tuple(each["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(body, dtype, count, start).reshape(shape))
        start += _rounded(count * dtype.itemsize)
    return arrays


def _describe(array: Array) -> dict[str, Any]:
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {array.dtype} cannot be stored; use numbers")
    return {"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _padded(blob: bytes) -> bytes:
    return blob + b"\0" * (-len(blob) % _ALIGN)


def _rounded(size: int) -> int:
    return size + -size % _ALIGN
