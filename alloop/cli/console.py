"""The only place that writes to the terminal; what it writes cannot command it."""

from typing import Any

from rich.console import Console
from rich.text import Text

from alloop.core.printable import printable

_WIDTH = 88  # where the output is not a terminal


class PlainConsole(Console):
    """A console that takes strings as plain text: no markup, no control characters.

    Strings come from stores, files and other programs; cells of tables too.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as it stands, with control characters written out."""
        return super().render_str(printable(text), **{**options, "markup": False})


def out() -> Console:
    """Standard output, as it is now."""
    console = PlainConsole(highlight=False)
    if console.is_terminal:
        return console
    return PlainConsole(highlight=False, width=_WIDTH)


def say(*parts: Any) -> None:
    """A line, or a table, for the user; long lines are left to the terminal."""
    out().print(*parts, markup=False, soft_wrap=all(isinstance(p, str) for p in parts))


def complain(text: str) -> None:
    """What went wrong, on standard error."""
    PlainConsole(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
