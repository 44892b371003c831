"""Ctrl-C and other signals: commands end cleanly and can be resumed."""

import contextlib
import signal
from collections.abc import Iterator
from threading import Event
from typing import Any


class StopEvent(Event):
    """A stop event that records if anybody has called `is_set`."""

    looked_at = False

    def is_set(self) -> bool:
        """Return True if the event is set, and record that it was looked at."""
        self.looked_at = True
        return super().is_set()


@contextlib.contextmanager
def stop_event() -> Iterator[Event]:
    """Yield an event that Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 sets.

    The second signal raises KeyboardInterrupt, and so does the first one before anybody
    looks at the event. Batch systems send SIGUSR1.
    """
    stop = StopEvent()

    def request(_number: int, _frame: Any) -> None:
        if not stop.looked_at or stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
