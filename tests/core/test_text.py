"""Times and counts for people."""

import time
from datetime import datetime

import pytest

from alloop.core.text import local_time, plural


def test_a_moment_is_local_time_with_its_offset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        told = local_time(1_700_000_000.9)
        assert told == "2023-11-15 03:43:20+05:30"
        assert datetime.fromisoformat(told).timestamp() == 1_700_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_thing_is_singular_and_pieces_of_something_plural() -> None:
    assert [plural(n, "piece of MD") for n in (0, 1, 2)] == [
        "0 pieces of MD",
        "1 piece of MD",
        "2 pieces of MD",
    ]
