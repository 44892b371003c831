"""Numbers as text for people."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.records import Failure
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    number_text,
    plural,
    rough_duration,
    span_text,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (math.nan, "?"),
        (0.0, "0.0 s"),
        (0.012, "12 ms"),
        (7.25, "7.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 5 min"),
        (4 * 86400 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_a_duration_reads_like_speech(seconds, words):
    assert duration_text(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (20.0, "less than a minute"), (300.0, "about 5 min 0 s")],
)
def test_a_guess_does_not_pretend_to_be_exact(seconds, words):
    assert rough_duration(seconds) == words


def test_errors_are_given_in_thousandths_with_three_digits():
    assert [milli_text(x) for x in (0.01234, 0.123456, 1.5, None, math.nan)] == [
        "12.3",
        "123",
        "1500",
        "–",
        "–",
    ]
    assert number_text(math.inf) == "–"


def test_counts_and_lists_are_grammatical():
    assert plural(1, "label") == "1 label"
    assert plural(0, "label") == "0 labels"
    assert and_list(["a", "b", "c"]) == "a, b and c"
    assert and_list(["a"]) == "a"
    assert and_list([]) == ""


def test_failures_are_named_most_frequent_first():
    counts = {Failure.TIMEOUT: 1, Failure.CC_NOT_CONVERGED: 2}
    assert failure_counts(counts) == "2 cc not converged, 1 timeout"


@given(st.sets(st.integers(0, 30)))
def test_spans_name_exactly_the_numbers(numbers):
    named = set()
    for part in filter(None, span_text(numbers).split(", ")):
        first, _, last = part.partition("–")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers
