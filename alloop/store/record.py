"""The bytes of one record: a JSON header, aligned arrays, a checksum over all.

    magic (8) | header's length (8, little-endian) | header, padded | arrays | sha256

Every array begins at a multiple of 64 bytes and is stored little-endian in C order, so
that a record can be read without this module.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from alloop.core.errors import DamagedError, NewerStoreError

Array: TypeAlias = npt.NDArray[Any]

MAGIC = b"alloop01"
_PREFIX = struct.Struct("<8sQ")
DIGEST = 32
_ALIGN = 64
_KINDS = "biufc"
_HUGE = (OverflowError, RecursionError)


def pack_record(header: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    """Return the bytes of a record; `header` must be JSON without NaN."""
    blobs = [_padded_bytes(_little_endian(array).tobytes()) for array in arrays]
    described = {**header, "arrays": [_describe_array(array) for array in arrays]}
    text = json.dumps(described, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % _ALIGN)
    body = b"".join([_PREFIX.pack(MAGIC, len(text)), text, *blobs])
    return body + hashlib.sha256(body).digest()


def unpack_record(data: bytes, name: str) -> tuple[dict[str, Any], list[Array]]:
    """Return the header and the arrays (read-only) of a record.

    Raises:
    ------
    DamagedError
        The bytes of file `name` are not those that were written.
    StoreError
        A newer alloop wrote them.
    """
    if not is_whole(data):
        raise DamagedError(
            f"{name} does not match its checksum; run `alloop doctor` on the store"
        )
    magic, size = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise NewerStoreError(
            f"{name} begins with {magic!r}, this alloop reads {MAGIC!r}; upgrade alloop"
        )
    start = _PREFIX.size + size
    try:
        header: dict[str, Any] = json.loads(data[_PREFIX.size : start].decode())
        return header, _split_record(data, start, header.pop("arrays"))
    except (ValueError, LookupError, TypeError, AttributeError, *_HUGE) as error:
        raise DamagedError(
            f"{name} is no record that alloop writes ({type(error).__name__}: "
            f"{str(error)[:80]}); restore it from a copy"
        ) from error


def is_whole(data: bytes) -> bool:
    """Return True if a record's bytes are those that were written."""
    body = memoryview(data)[:-DIGEST]
    enough = len(data) >= _PREFIX.size + DIGEST
    return enough and hashlib.sha256(body).digest() == data[-DIGEST:]


def record_length(data: bytes, start: int) -> int:
    """Return the size in bytes of the record at `start`, from its header.

    Raises DamagedError if the header cannot be read; the checksum is not verified.
    """
    try:
        magic, size = _PREFIX.unpack_from(data, start)
        text = data[start + _PREFIX.size : start + _PREFIX.size + size]
        described = json.loads(text)["arrays"]
        sizes = [math.prod(x["shape"]) * _dtype(x["dtype"]).itemsize for x in described]
    except (struct.error, ValueError, LookupError, TypeError, *_HUGE) as error:
        raise DamagedError(f"no record begins at byte {start}") from error
    if magic != MAGIC:
        raise DamagedError(f"no record begins at byte {start}")
    return _PREFIX.size + len(text) + sum(map(_rounded_size, sizes)) + DIGEST


def _split_record(
    data: bytes, start: int, described: list[dict[str, Any]]
) -> list[Array]:
    arrays = []
    for description in described:
        dtype, shape = _dtype(description["dtype"]), description["shape"]
        if dtype.kind not in _KINDS or min(shape, default=0) < 0:
            raise ValueError(f"an array of {dtype} and shape {shape}")
        count = math.prod(shape)
        arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
        start += _rounded_size(count * dtype.itemsize)
    return arrays


@cache
def _dtype(text: str) -> np.dtype[Any]:
    return np.dtype(text)


def _describe_array(array: Array) -> dict[str, Any]:
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {array.dtype} cannot be stored; use numbers")
    return {"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _padded_bytes(blob: bytes) -> bytes:
    return blob + b"\0" * (-len(blob) % _ALIGN)


def _rounded_size(size: int) -> int:
    return size + -size % _ALIGN
