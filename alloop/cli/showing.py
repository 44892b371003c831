"""`status`, `why`, `log`, `report`: what a store tells, also while it is in use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from alloop.cli.console import say
from alloop.cli.places import Place, history_of, short


def status(
    place: Place,
    as_json: Annotated[
        bool, typer.Option("--json", help="for scripts; eV, Å, CPU seconds")
    ] = False,
) -> None:
    """How far a campaign is: round, labels, cost, error."""
    from alloop.report import story

    told = story.status(history_of(place))
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for key, value in _flat(told):
        say(f"{key:<32} {value}")


def why(
    place: Place,
    frame: Annotated[str, typer.Argument(help="a frame's id, or how it begins")],
) -> None:
    """One frame's story: where it was born, why it was labelled, what came of it."""
    from alloop.report import story

    for line in story.why(history_of(place), frame):
        say(line)


def log(
    place: Place,
    last: Annotated[
        int, typer.Option(min=0, help="only so many lines at the end; 0 for all")
    ] = 0,
) -> None:
    """Everything that happened, a line each."""
    from alloop.report import story

    lines = list(story.log_lines(history_of(place)))
    for line in lines[-last:]:
        say(line)


def report(
    place: Place,
    out: Annotated[
        Path | None, typer.Option(help="HTML file; beside the store by default")
    ] = None,
) -> None:
    """Write the self-contained HTML report."""
    from alloop.report.html import write

    history = history_of(place)
    written = write(history, out or history.path.with_suffix(".html"))
    say(f"report: {short(written)}")


def _flat(told: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in told.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
