"""The bytes of one record."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.errors import DamagedError, StoreError
from alloop.store.record import pack_record, unpack_record

ARRAYS = [np.arange(5.0), np.array([[1, 2]], dtype=">i4"), np.zeros((0, 3))]
BYTES = pack_record({"seq": 3}, ARRAYS)


def test_header_and_arrays_come_back() -> None:
    header, arrays = unpack_record(BYTES, "x")
    assert header == {"seq": 3}
    for found, array in zip(arrays, ARRAYS, strict=True):
        assert np.array_equal(found, array)
        assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        assert not found.flags.writeable


def test_an_array_lies_raw_at_a_multiple_of_64_bytes() -> None:
    at = BYTES.index(np.arange(5.0).tobytes())
    assert at % 64 == 0


@given(st.integers(0, len(BYTES) * 8 - 1))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    damaged = bytearray(BYTES)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError, match="record 12 does not match its checksum"):
        unpack_record(bytes(damaged), "record 12")


@given(st.integers(0, len(BYTES) - 1))
def test_any_cut_is_noticed(length: int) -> None:
    with pytest.raises(DamagedError):
        unpack_record(BYTES[:length], "x")


def test_a_newer_container_is_refused_with_the_way_out() -> None:
    body = b"alloop99" + BYTES[8:-32]
    with pytest.raises(StoreError, match="upgrade alloop"):
        unpack_record(body + hashlib.sha256(body).digest(), "x")
