"""Which labels teach, steer and test."""

import pytest

from alloop.core.seeds import split_of
from alloop.store.schema import PURPOSES


@pytest.mark.parametrize(
    ("purpose", "split"),
    [
        ("test", "validation"),
        ("examination", "test"),
        ("beyond", "test"),
        *((p, "train") for p in ("given", "seed", "flagged", "control", "bias")),
    ],
)
def test_the_split_follows_from_the_purpose(purpose, split):
    assert split_of(purpose) == split


def test_every_purpose_that_stores_know_is_covered():
    known = {"test", "examination", "given", "seed", "flagged", "control", "bias"}
    assert set(PURPOSES) == known | {"beyond"}
