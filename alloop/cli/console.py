"""Terminal output: all of it is written here, without control characters."""

import codecs
import contextlib
import errno
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any, TypeAlias, cast

import typer
from rich.console import Console
from rich.text import Text

from alloop.core.text import printable

_WIDTH = 88  # characters, where the output is not a terminal
_ASCII = {"→": "->", "–": "-", "…": "...", "×": "x", "·": "|", "─": "-", "γ": "gamma"}
_lost: list[OSError] = []  # errors by which output was lost


class _TolerantStream:
    """A stream that drops text that cannot be written instead of raising errors."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it if that fails."""
        with _dropping_errors(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop the rest if that fails."""
        with _dropping_errors(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def _dropping_errors(stream: IO[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _lost.append(error)
        with contextlib.suppress(OSError, ValueError):  # or Python fails on it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_streams() -> None:
    """Make the standard streams accept any text.

    A letter that the terminal does not know is written in ASCII. A closed stream is
    replaced by the null device, since the next opened file would get its number.
    """
    _lost.clear()
    codecs.register_error("alloop", _transliterate)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="alloop")


class PlainConsole(Console):
    """A console that prints strings as plain text: no markup, no control characters.

    Strings come from stores, files and other programs, also in the cells of tables.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text without markup, its control characters escaped."""
        return super().render_str(printable(text), **{**options, "markup": False})


def output_console() -> Console:
    """Return a console for the current standard output."""
    console = _console(sys.stdout)
    return console if console.is_terminal else _console(sys.stdout, _WIDTH)


def print_text(*parts: Any) -> None:
    """Print a line or a table for the user; long lines are left to the terminal."""
    output_console().print(
        *parts, markup=False, soft_wrap=all(isinstance(p, str) for p in parts)
    )


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON, for scripts."""
    print_text(json.dumps(value, indent=indent))


AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="print JSON for scripts (eV, Å, s)")
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="show no live display")]


@contextmanager
def busy_line(text: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a line on a terminal while the context is open.

    It says what is being done; the context yields a function that changes the line.
    """
    console = Console(quiet=True) if quiet else output_console()
    with console.status(text) as status:
        yield status.update


def print_warning(text: str) -> None:
    """Print a warning, for a problem that stops nothing, on standard error."""
    print_error(f"warning: {text}")


def print_error(text: str) -> None:
    """Print a message on standard error."""
    _console(sys.stderr).print(text, markup=False, soft_wrap=True)


def output_closed() -> bool:
    """Return True once standard output has no reader any more."""
    return bool(_lost)


def output_error() -> str | None:
    """Return the reason why output was lost, None if it was not or nobody reads it."""
    causes = [error for error in _lost if error.errno != errno.EPIPE]
    return causes[0].strerror if causes else None


def _console(stream: IO[str] | None, width: int | None = None) -> Console:
    if stream is None:  # it was closed before Python began
        return PlainConsole(quiet=True)
    tolerant = cast(IO[str], _TolerantStream(stream))
    return PlainConsole(file=tolerant, highlight=False, width=width)


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_ascii_text, text)), error.end


def _ascii_text(letter: str) -> str:
    bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return _ASCII.get(letter) or bare or "?"
