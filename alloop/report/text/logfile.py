"""The log file: one line for each committed event, through standard `logging`."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alloop.core.errors import InputError
from alloop.core.text import local_time, printable_line
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.report.text.event_text import turn_text

LOGGER = logging.getLogger("alloop")
_FORM = "%(asctime)s %(levelname)-7s %(message)s"


class _Formatter(logging.Formatter):
    """A formatter that writes times as the rest of alloop does, with zone offset."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the local time of a record."""
        del datefmt
        return local_time(record.created)


class _Handler(logging.FileHandler):
    """A handler that drops lines that cannot be written, since the journal has all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a failure to write a line; report other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _open(self) -> "TextIOWrapper[Any]":
        """Open the file to append to it, never through a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(self.baseFilename, flags, 0o666)
        return os.fdopen(handle, "a", encoding=self.encoding)

    def close(self) -> None:
        """Close the file, even where its last lines cannot be written."""
        with contextlib.suppress(OSError):
            super().close()


class LogFile:
    """A log file at `path`, open while its context is; lines are appended.

    All other messages to the `alloop` logger are written to it too. Raises InputError
    where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Handler(self.path, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"expected a log file that can be written at {self.path} ({error}); "
                "choose another place for the store"
            ) from error
        self._handler.setFormatter(_Formatter(_FORM))
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        LOGGER.addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        LOGGER.removeHandler(self._handler)
        LOGGER.setLevel(self._level)
        self._handler.close()

    def observe(self, state: LoopState, turn: e.Turn) -> None:
        """Log a turn that has been committed."""
        bad = isinstance(turn.event, e.NotLabelled | e.TaskLost)
        LOGGER.log(
            logging.WARNING if bad else logging.INFO,
            "%s",
            printable_line(turn_text(turn, state.levels)),
        )


@contextlib.contextmanager
def log_observer(
    path: Path, warn: Callable[[str], None]
) -> Iterator[Callable[[LoopState, e.Turn], None]]:
    """Yield an observer of turns that writes a log file, opened at the first turn.

    warn: called with the reason if the file cannot be written.
    """
    opened: list[LogFile | None] = []
    with contextlib.ExitStack() as stack:

        def open_file() -> LogFile | None:
            try:
                return stack.enter_context(LogFile(path))
            except InputError as error:
                warn(f"no log is written: {error}")
                return None

        def observe(state: LoopState, turn: e.Turn) -> None:
            if not opened:
                opened.append(open_file())
            if opened[0] is not None:
                opened[0].observe(state, turn)

        yield observe
