"""Records survive the way to bytes and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from alloop.core.batch import pack_frames as packed
from alloop.core.errors import DamagedError, NewerStoreError, StoreError
from alloop.core.frame import Frame
from alloop.core.levels import make_level
from alloop.core.records import Failure
from alloop.loop import events as ev
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.record import pack_record, unpack_record


def same(a: Any, b: Any) -> bool:
    """Equal in type and, bit for bit, in value, arrays and fields inside included."""
    if isinstance(a, np.ndarray):
        equal = a.dtype == b.dtype and a.shape == b.shape
        return equal and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return type(b) is float and (a == b or (math.isnan(a) and math.isnan(b)))
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def there_and_back(codec: Codec, record: object) -> Any:
    encoded = codec.encode(record)
    header = {
        "tree": encoded.tree,
        "frames": encoded.frames,
        "versions": dict(encoded.versions),
    }
    tree, stored = unpack_record(pack_record(header, encoded.arrays), "a record")
    return codec.decode(
        EncodedRecord(
            tree["tree"], tuple(stored), tuple(tree["frames"]), tree["versions"]
        )
    )


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    atoms = draw(st.integers(0, 4))
    numbers = draw(arrays(np.int64, atoms, elements=st.integers(1, 100)))
    coordinates = st.floats(-1e3, 1e3)
    return Frame(
        numbers,
        draw(arrays(np.float64, (atoms, 3), elements=coordinates)),
        charge=draw(st.integers(-3, 3)),
        spin=draw(st.integers(0, 3)),
        cell=draw(arrays(np.float64, (3, 3), elements=coordinates)),
        pbc=draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
    )


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: st.integers(-(2**62), 2**62),
    float: st.floats(),
    bool: st.booleans(),
    type(None): st.none(),
    Frame: frames(),
}


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this annotation can hold."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return st.deferred(lambda: records(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    return compound(get_origin(hint), get_args(hint))


def compound(origin: Any, inside: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin in (Union, UnionType):
        return st.one_of(*map(anything, inside))
    if origin is Literal:
        return st.sampled_from(inside)
    if origin is np.ndarray:
        dtype = get_args(inside[1])[0]
        return arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0))
    if origin is Mapping:
        return st.dictionaries(PLAIN[str], anything(inside[1]), max_size=3)
    if origin is tuple and Ellipsis not in inside:
        return st.tuples(*map(anything, inside))
    items = st.lists(anything(inside[0]), max_size=3)
    return {tuple: items.map(tuple), list: items}[origin]


def records(cls: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    return st.builds(
        cls, **{f.name: anything(hints[f.name]) for f in fields(cls) if f.init}
    )


turns = records(ev.Turn)


@settings(max_examples=60, deadline=None)
@given(turn=turns)
def test_any_turn_survives_the_way_to_bytes_and_back(codec: Codec, turn: Any) -> None:
    assert same(there_and_back(codec, turn), turn)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -0.0,
        math.nan,
        -math.inf,
        2**80,
        "é\0",
        (),
        [],
        {},
        ((1, [2.5, (None,)]), {"a": {"#": "Walker", "#map": 1}}),
        Failure.GATE,
        make_level("pyscf", {"method": "hf", "basis": "sto-3g"}),
        np.array(3.5),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
    ],
    ids=repr,
)
def test_plain_values_and_arrays_survive(codec: Codec, value: Any) -> None:
    assert same(there_and_back(codec, value), value)


def test_a_batch_survives_with_its_frames(codec: Codec, water: Any) -> None:
    batch = packed([water(0.0), water(1.0)])
    assert same(there_and_back(codec, batch), batch)


def test_a_numbers_numpy_type_becomes_the_plain_one(codec: Codec) -> None:
    value = (np.float64(0.5), np.int64(3), np.bool_(True))
    assert same(there_and_back(codec, value), (0.5, 3, True))


def test_the_sign_of_zero_survives(codec: Codec) -> None:
    assert math.copysign(1.0, there_and_back(codec, -0.0)) == -1.0


def test_a_frame_that_occurs_often_is_stored_once(codec: Codec, water: Any) -> None:
    once = codec.encode((water(0.0),))
    often = codec.encode((water(0.0),) * 5 + (water(0.0),))
    assert often.frames == once.frames == (water(0.0).id,)
    assert [a.nbytes for a in often.arrays] == [a.nbytes for a in once.arrays]
    first, *others = codec.decode(often)
    assert all(other is first for other in others)


def test_a_frame_with_other_content_than_its_id_is_refused(
    codec: Codec, water: Any
) -> None:
    encoded = codec.encode(water(0.0))
    other = EncodedRecord(encoded.tree, encoded.arrays, ("0" * 32,), encoded.versions)
    with pytest.raises(DamagedError, match=f"{'0' * 32} has the content of"):
        codec.decode(other)


@dataclass(frozen=True)
class Note:
    """A kind of record for the tests of versions."""

    text: str
    stars: int = 0


def test_a_newer_version_of_a_record_is_refused_in_one_sentence() -> None:
    written = replace(Codec([Note]).encode(Note("a")), versions={"Note": 3})
    with pytest.raises(
        StoreError,
        match=r"^it holds Note of version 3, which this alloop reads up to 1; upgrade",
    ):
        Codec([Note]).decode(written)


def test_an_unknown_record_is_refused_in_one_sentence() -> None:
    with pytest.raises(StoreError, match="Note of version 1, which this alloop does"):
        Codec([]).decode(Codec([Note]).encode(Note("a")))


def test_a_field_of_a_newer_record_is_refused_in_one_sentence() -> None:
    encoded = Codec([Note]).encode(Note("a", 1))
    tree = {**encoded.tree, "colour": "red"}
    with pytest.raises(
        NewerStoreError,
        match=r"^its Note has `colour`, which this alloop does not know",
    ):
        Codec([Note]).decode(replace(encoded, tree=tree))


def test_the_fields_of_an_older_record_are_turned_into_those_of_today() -> None:
    encoded = Codec([Note]).encode(Note("a", 1))
    old = replace(encoded, tree={"#": "Note", "said": "a", "stars": 1})
    codec = Codec([Note], {"Note": lambda f: {"text": f.pop("said", ""), **f}})
    assert codec.decode(old) == codec.decode(encoded) == Note("a", 1)


def test_a_new_field_with_a_default_needs_no_upcaster() -> None:
    encoded = Codec([Note]).encode(Note("a"))
    tree = {key: value for key, value in encoded.tree.items() if key != "stars"}
    decoded = Codec([Note]).decode(EncodedRecord(tree, (), (), encoded.versions))
    assert decoded == Note("a", 0)


@pytest.mark.parametrize(
    "tree",
    [
        {"#": "Note", "colour": "red"},
        {"#odd": 1},
        {"#enum": ["Failure", "MISCHIEF"]},
    ],
    ids=["field", "tag", "member"],
)
def test_what_does_not_fit_is_a_store_error(tree: Any) -> None:
    codec = Codec([Note])
    with pytest.raises(StoreError, match="alloop"):
        codec.decode(EncodedRecord(tree, (), (), {"Note": 1, "Failure": 1}))


@pytest.mark.parametrize(
    "value",
    [Note("a"), object(), {1: "a"}, np.array(["a"]), np.array([None])],
    ids=["class", "object", "key", "text array", "object array"],
)
def test_what_cannot_be_stored_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"stored|classes"):
        there_and_back(Codec([]), value)


def test_a_word_that_is_none_of_its_fields_is_damage(codec: Codec) -> None:
    encoded = codec.encode(ev.Excluded("0" * 32, "cheap", "odd"))
    assert codec.decode(encoded).fidelity == "cheap"
    encoded.tree["fidelity"] = "dear"
    with pytest.raises(DamagedError, match="Excluded has 'dear' for `fidelity`"):
        codec.decode(encoded)
