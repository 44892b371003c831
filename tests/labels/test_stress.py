"""The stress of a label: across a pipe, in a record, and as older records tell it."""

import numpy as np

from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.core.stress import voigt
from alloop.labels.child import messages
from alloop.labels.levels import toy_level
from alloop.store.codec import Codec

STRESS = np.arange(6.0) / 7.0


def label(frame: Frame, stress: np.ndarray | None) -> Label:
    forces = np.zeros((1, 3))
    return Label(frame.id, toy_level().id, -1.0, forces, stress=stress)


def test_stress_crosses_a_pipe_and_a_journal() -> None:
    frame, level, codec = Frame(np.array([2]), np.zeros((1, 3))), toy_level(), Codec(())
    for given in (STRESS, None):
        made = label(frame, given)
        answered = messages.parse_outcome(messages.outcome_message(made), frame, level)
        stored = codec.decode(codec.encode(made))
        for again in (answered, stored):
            assert isinstance(again, Label)
            if given is None:
                assert again.stress is None
            else:
                np.testing.assert_array_equal(again.stress, given)


def test_a_label_of_an_older_store_tells_its_stress_among_its_details() -> None:
    frame, codec = Frame(np.array([2]), np.zeros((1, 3))), Codec(())
    encoded = codec.encode(label(frame, None))
    del encoded.tree["stress"]  # as it was written before labels had one
    names = ("xx", "yy", "zz", "yz", "xz", "xy")
    details = {
        f"stress_{name}": float(x) for name, x in zip(names, STRESS, strict=True)
    }
    encoded.tree["details"] = {"#map": details}
    old = codec.decode(encoded)
    np.testing.assert_array_equal(old.stress, STRESS)
    encoded.tree["details"] = {"#map": {}}
    assert codec.decode(encoded).stress is None


def test_a_matrix_becomes_voigt_s_six() -> None:
    matrix = np.array([[1.0, 6.1, 5.1], [5.9, 2.0, 4.0], [4.9, 4.0, 3.0]])
    np.testing.assert_allclose(voigt(matrix), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
