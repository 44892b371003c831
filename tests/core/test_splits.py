"""Which labels teach, steer and test."""

import pytest

from alloop.core.splits import split_of
from alloop.store.schema import PURPOSES


@pytest.mark.parametrize(
    ("purpose", "supplied", "split"),
    [
        ("test", False, "validation"),
        ("test", True, "test"),
        ("examination", False, "test"),
        ("given", True, "train"),
        *((p, False, "train") for p in ("seed", "flagged", "control", "bias")),
    ],
)
def test_the_split_follows_from_the_purpose(purpose, supplied, split):
    assert split_of(purpose, supplied) == split


def test_every_purpose_that_stores_know_is_covered():
    known = {"test", "examination", "given", "seed", "flagged", "control", "bias"}
    assert set(PURPOSES) == known
