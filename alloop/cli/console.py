"""The only place that writes to the terminal."""

from typing import Any

from rich.console import Console

_WIDTH = 88  # where the output is not a terminal


def out() -> Console:
    """Standard output, as it is now."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def say(*parts: Any) -> None:
    """A line, or a table, for the user; long lines are left to the terminal."""
    out().print(*parts, markup=False, soft_wrap=all(isinstance(p, str) for p in parts))


def complain(text: str) -> None:
    """What went wrong, on standard error."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
