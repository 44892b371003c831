"""Times in seconds since 1970, written for people."""

from datetime import datetime


def local_time(moment: float) -> str:
    """Return local time with its offset, `2026-11-22 10:12:33+01:00` (ISO 8601)."""
    there = datetime.fromtimestamp(moment).astimezone()
    return there.isoformat(sep=" ", timespec="seconds")
