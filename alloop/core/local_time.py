"""Moments, in seconds since 1970, as people read them."""

from datetime import datetime


def local_time(moment: float) -> str:
    """`2026-11-22 10:12:33+01:00`: local time with its offset, ISO 8601 too."""
    there = datetime.fromtimestamp(moment).astimezone()
    return there.isoformat(sep=" ", timespec="seconds")
