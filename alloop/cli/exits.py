"""The ends of commands: exit codes, and signals after which they can be resumed."""

import contextlib
import signal
from collections.abc import Iterator
from threading import Event
from typing import Any

from alloop.core.errors import AlloopError, Interrupted


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


DONE = 0
FRUITLESS = 1
MISTAKE = AlloopError.exit_code
RESUMABLE = Interrupted.exit_code
DAMAGED = 4

MEANINGS = {
    DONE: "done",
    FRUITLESS: "nothing to show (`md`: all walkers stopped early)",
    MISTAKE: "a mistake of the user's, in one sentence",
    RESUMABLE: "stopped early, the same command continues",
    DAMAGED: "a damaged store (`doctor`)",
}


def exit_codes_text() -> str:
    """Return one line with every exit code and its meaning."""
    codes = [f"{code} {meaning}" for code, meaning in sorted(MEANINGS.items())]
    return f"Exit codes: {'; '.join(codes)}."
