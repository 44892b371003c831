"""What the columns promise to their readers."""

from typing import Any

import numpy as np
import pytest

from alloop.core.doubts import Doubt
from alloop.core.records import Failure
from alloop.store import schema

UNITS = {
    *(
        "eV",
        "eV/angstrom",
        "eV/angstrom^3",
        "angstrom",
        "angstrom/fs",
        "e",
        "s",
        "MB",
        "hartree",
        "1",
    )
}


DOUBTS = [doubt.name.lower() for doubt in Doubt]


def labels() -> dict[str, Any]:
    """Two labels of water, the second one failed."""
    return {
        "structure": [0, 1],
        "offsets": [0, 3, 3],
        "energy": [-75.0, np.nan],
        "forces": np.ones((3, 3)),
        "stress": np.full((2, 6), np.nan),
        "status": schema.word_codes(["ok", "failed"], schema.STATES),
        "failure": schema.failure_codes([None, Failure.GATE]),
        "cpu_seconds": [1.0, 2.0],
        "purpose": schema.word_codes(["seed", "test"], schema.PURPOSES),
        "rung": schema.word_codes(["second order", ""], schema.RUNGS),
        **{key: [np.nan, 0.1] for key in ("gap", "s2", "t1", "internal", "external")},
        "peak_mb": [100.0, np.nan],
        **{key: [False, True] for key in ("cached", *DOUBTS)},
    }


def test_every_failure_has_a_number_that_never_changes() -> None:
    assert {*schema.FAILURES[1:]} == {failure.name for failure in Failure}
    assert schema.FAILURES[:5] == (
        "",
        "GEOMETRY",
        "NOT_CONVERGED",
        "CC_NOT_CONVERGED",
        "GATE",
    )


def test_every_doubt_has_its_column_that_tells_what_it_means() -> None:
    for doubt in Doubt:
        assert schema.LABELS[doubt.name.lower()].about == doubt.value


def test_every_float_column_but_surprise_has_a_unit_of_alloop() -> None:
    for columns in schema.TABLES.values():
        for name, column in columns.items():
            if column.dtype == "f8" and name not in ("surprise", "threshold"):
                assert column.units in UNITS


def test_ids_go_to_digits_and_back() -> None:
    ids = ["0123456789abcdef" * 2, "f" * 32]
    assert schema.id_texts(schema.id_digits(ids)) == ids
    assert schema.id_digits([]).shape == (0, 32)


def test_a_table_is_brought_to_the_types_of_the_schema() -> None:
    arrays = schema.checked_table("labels/cheap", labels())
    assert arrays["structure"].dtype == np.int64
    assert arrays["energy"].dtype == np.float64
    assert list(arrays["failure"]) == [0, schema.FAILURES.index("GATE")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": [1.0]}, r"energy has shape \(1,\), expected \(2,\)"),
        ({"offsets": [0, 3]}, r"offsets has shape \(2,\), expected \(3,\)"),
        ({"forces": np.ones((3, 2))}, r"forces has shape \(3, 2\)"),
        ({"offsets": [0, 4, 3]}, "offsets do not fit the atoms"),
        ({"offsets": [0, 1, 2]}, "offsets do not fit the atoms"),
        ({"extra": [1, 2]}, "needs the columns"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schema.checked_table("labels/cheap", labels() | change)


def test_an_unknown_word_has_no_number() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        schema.word_codes(["whim"], schema.PURPOSES)
