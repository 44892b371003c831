"""Models as bytes: what comes back, what is refused, and what the identity sees."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from alloop.core.errors import DamagedError, InputError
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
    content_id,
)

DTYPES = st.sampled_from(["<f8", "<f4", "<i8", "|b1"])
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
TENSORS = st.dictionaries(
    st.text("abc/._", min_size=1, max_size=8),
    st.tuples(DTYPES, SHAPES).map(lambda pair: np.ones(pair[1], dtype=pair[0])),
    max_size=4,
)


def example(**changes: object) -> Checkpoint:
    settings = {"b": 1, "a": {"cutoff": 5.0}}
    tensors = {"w": np.arange(6.0).reshape(2, 3), "n": np.arange(3)}
    fields = {"kind": "toy", "settings": settings, "tensors": tensors, **changes}
    return Checkpoint(**fields)  # type: ignore[arg-type]


def with_header(**changes: object) -> bytes:
    blob = checkpoint_to_bytes(example())
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["alloop"])
    header |= changes
    kept = {key: value for key, value in header.items() if value is not None}
    return bytes(save(load(blob), {"alloop": json.dumps(kept)}))


@given(TENSORS)
def test_what_is_written_is_read_with_equal_bits(
    tensors: dict[str, np.ndarray],
) -> None:
    written = Checkpoint("toy", {"x": [1, 2.5, None, "é"]}, tensors)
    read = checkpoint_from_bytes(checkpoint_to_bytes(written))
    assert (read.kind, read.settings) == (written.kind, written.settings)
    assert set(read.tensors) == set(tensors)
    for name, array in tensors.items():
        assert read.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(read.tensors[name], array)
    assert content_id(read) == content_id(written)


def test_bytes_and_identity_do_not_depend_on_the_order_of_keys() -> None:
    one = example()
    other = example(
        settings={"a": {"cutoff": 5.0}, "b": 1},
        tensors=dict(reversed(list(one.tensors.items()))),
    )
    assert checkpoint_to_bytes(one) == checkpoint_to_bytes(other)
    assert content_id(one) == content_id(other)
    assert len(content_id(one)) == 32
    assert set(content_id(one)) <= set("0123456789abcdef")


def test_bytes_do_not_depend_on_the_memory_layout() -> None:
    tensors = {"w": np.arange(6.0).reshape(2, 3), "n": np.arange(3)}
    turned = {"w": np.asfortranarray(tensors["w"]), "n": np.arange(6)[::2] // 2}
    assert checkpoint_to_bytes(example(tensors=tensors)) == checkpoint_to_bytes(
        example(tensors=turned)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"settings": {"b": 2, "a": {"cutoff": 5.0}}},
        {"tensors": {"w": np.arange(6.0).reshape(3, 2), "n": np.arange(3)}},
        {"tensors": {"w": np.arange(6.0).reshape(2, 3), "m": np.arange(3)}},
        {"tensors": {"w": np.arange(6.0).reshape(2, 3), "n": np.arange(3.0)}},
        {"tensors": {"w": np.arange(6.0).reshape(2, 3), "n": np.array([0, 1, 3])}},
    ],
)
def test_the_identity_sees_every_part(changes: dict[str, object]) -> None:
    assert content_id(example(**changes)) != content_id(example())


@pytest.mark.parametrize(
    "foreign", [b"", b"hello", b"PK\x03\x04" + bytes(200), save({"w": np.ones(3)})]
)
def test_foreign_bytes_are_refused_in_a_sentence(foreign: bytes) -> None:
    with pytest.raises(InputError, match="expected an alloop model file"):
        checkpoint_from_bytes(foreign)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(InputError, match=r"got version 2; use a newer alloop"):
        checkpoint_from_bytes(with_header(version=2))


def test_a_header_without_its_fields_is_damaged() -> None:
    with pytest.raises(DamagedError):
        checkpoint_from_bytes(with_header(identity=None))


def test_every_lost_tail_is_noticed() -> None:
    blob = checkpoint_to_bytes(example())
    for length in range(len(blob)):
        with pytest.raises((InputError, DamagedError)):
            checkpoint_from_bytes(blob[:length])


def test_a_flipped_bit_in_a_tensor_is_noticed() -> None:
    blob = bytearray(checkpoint_to_bytes(example()))
    for place in range(len(blob) - 72, len(blob)):  # 6 floats and 3 integers
        blob[place] ^= 1
        with pytest.raises(DamagedError, match="does not match its checksum"):
            checkpoint_from_bytes(bytes(blob))
        blob[place] ^= 1
