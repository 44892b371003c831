import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.messages import (
    GarbledMessage,
    Message,
    decode_message,
    encode_message,
    label_request,
    outcome_message,
    parse_label_request,
    parse_outcome,
    receive_message,
)
from alloop.labels.toy import toy_level

ANY = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf])


@given(
    arrays(float, st.tuples(st.integers(0, 5), st.just(3)), elements=ANY),
    st.integers(-3, 3),
    st.integers(0, 3),
)
def test_a_request_arrives_as_it_was_sent(
    positions: np.ndarray, charge: int, spin: int
) -> None:
    frame = Frame(np.ones(len(positions), dtype=int), positions, charge, spin)
    stream = io.BytesIO(encode_message(label_request(toy_level(), frame)))
    level, again = parse_label_request(receive_message(stream))
    assert level == toy_level()
    np.testing.assert_array_equal(again.positions, frame.positions)
    assert (again.charge, again.spin, again.pbc) == (charge, spin, frame.pbc)
    assert receive_message(stream) is None


@given(st.floats(allow_nan=False), arrays(float, (2, 3), elements=ANY))
def test_a_label_arrives_bit_for_bit(energy: float, forces: np.ndarray) -> None:
    level = toy_level()
    frame = Frame(np.array([1, 1]), np.zeros((2, 3)))
    details = {"rung": "default", "gap": 1 / 3, "s2": None}
    sent = Label(frame.id, level.id, energy, forces, 0.25, details)
    message, _ = decode_message(encode_message(outcome_message(sent)))
    got = parse_outcome(message, frame, level)
    assert got.energy == energy
    assert got.forces.tobytes() == forces.tobytes()
    assert (got.frame, got.level) == (frame.id, level.id)
    assert (got.cpu_seconds, got.details) == (0.25, details)


def test_a_refusal_arrives_with_its_reason() -> None:
    level, frame = toy_level(), Frame(np.array([1]), np.zeros((1, 3)))
    sent = Unlabelled(frame.id, level.id, Failure.GATE, "why", 0.5, {"rung": "damping"})
    got = parse_outcome(
        decode_message(encode_message(outcome_message(sent)))[0], frame, level
    )
    assert isinstance(got, Unlabelled)
    assert (got.failure, got.message, got.cpu_seconds) == (Failure.GATE, "why", 0.5)
    assert got.details == {"rung": "damping"}


def test_bytes_that_are_no_message_are_told_at_once() -> None:
    whole = encode_message(Message({"say": "label"}, {"forces": np.ones((2, 3))}))
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for wrong in (b"garbage", b"\0" * 9, flipped):
        with pytest.raises(GarbledMessage):
            decode_message(wrong)
    level, frame = toy_level(), Frame(np.array([1]), np.zeros((1, 3)))
    for header in ({"say": "label"}, {"say": "none"}, {}):
        with pytest.raises(GarbledMessage):
            parse_outcome(Message(header), frame, level)


@pytest.mark.parametrize("length", [0, 7, 16, 40])
def test_an_incomplete_message_is_waited_for(length: int) -> None:
    whole = encode_message(Message({"say": "label"}, {"forces": np.ones((2, 3))}))
    assert decode_message(whole[:length]) is None
    message, size = decode_message(whole + b"the next one")
    assert size == len(whole)
    assert message.header == {"say": "label"}
