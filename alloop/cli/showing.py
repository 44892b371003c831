"""`status`, `why`, `log`, `report`: what a store tells, also while it is in use."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.cli.console import AsJson, say, say_json, unheard
from alloop.cli.places import Force, Place, history_of, short
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from alloop.loop.history import History


def status(
    place: Place,
    as_json: AsJson = False,
) -> None:
    """How far a campaign is: round, labels, cost, error."""
    from alloop.report.status import status

    told = status(history_of(place))
    if as_json:
        say_json(told)
        return
    for name, value in _facts(told):
        say(f"{name:<16} {value}")
    say(_labels(told["labels"]))


def why(
    place: Place,
    frame: Annotated[str, typer.Argument(help="a frame's id, or how it begins")],
    as_json: AsJson = False,
) -> None:
    """One frame's story: where it was born, why it was labelled, what came of it."""
    from alloop.report.story import facts, why

    history = history_of(place)
    if as_json:
        say_json(facts(history, frame))
        return
    for line in why(history, frame):
        say(line)


def log(
    place: Place,
    last: Annotated[
        int, typer.Option(min=0, help="only so many lines at the end; 0 for all")
    ] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", help="wait for what comes; Ctrl-C ends it")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that happened, a line each; with --json an object each."""
    from alloop.loop.history import following
    from alloop.report.story import log_entry, log_line

    history = history_of(place)
    levels = history.state.levels
    entries = iter(history.entries[-last:] if last else history.entries)
    coming = following(history.path, len(history.entries)) if follow else ()
    with contextlib.suppress(KeyboardInterrupt):
        for entry in chain(entries, coming):
            if as_json:
                say_json(log_entry(entry, levels), indent=None)
            else:
                say(log_line(entry, levels))
            if unheard():
                return


def report(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="STORE", help="a store, or the campaign's YAML file"),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="several stores side by side, on one page")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file; beside the store (the first one) by default"),
    ] = None,
    force: Force = False,
) -> None:
    """Write the self-contained HTML report."""
    from alloop.files.targets import PAGES, refuse_target

    if out is not None:
        refuse_target(out, PAGES, force=force)
    histories = [history_of(place) for place in places]
    if compare:
        say(f"comparison: {short(_comparison(histories, out))}")
        return
    if len(histories) > 1:
        raise InputError(
            f"expected one store to report on, got {len(histories)}; `alloop report "
            "--compare` sets several side by side"
        )
    say(f"report: {short(_report(histories[0], out))}")


def _report(history: "History", out: Path | None) -> Path:
    from alloop.report.html import write

    where = out or history.path.with_suffix(".html")
    return write(history, where, _controls(history))


def _comparison(histories: Sequence["History"], out: Path | None) -> Path:
    from alloop.report.html import write_page
    from alloop.report.side_by_side import Compared, side_by_side

    page = side_by_side([Compared(each, _controls(each)) for each in histories])
    return write_page(page, out or histories[0].path.with_name("comparison.html"))


def _controls(history: "History") -> dict[str, "History"]:
    from alloop.controls import stores
    from alloop.loop.history import read

    return {name: read(path) for name, path in stores(history.path).items()}


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from alloop.report.words import STAGES, duration, milli, tasks

    stage = STAGES.get(told["stage"], told["stage"])
    walkers, stopped = told["walkers"], _counted(told["walkers"]["stopped"])
    yield told["name"], f"{_now(told, stage)} (round {told['round']})"
    yield "driver", _driver(told)
    if told["parent"]:
        origin = told["parent"]
        yield "forked", f"from {origin['store']}, generation {origin['generation']}"
    if told["examination"]:
        yield "examination", " ".join(told["examination"]["sentences"])
    errors = [milli(x) for x in told["errors"] if x is not None]
    shown = f"{' → '.join(errors)}{_best(told)}"
    yield f"{told['tested_on']} error", shown if errors else "none yet"
    if told["calibration"]:
        yield "threshold", " ".join(told["calibration"])
    yield "walkers", f"{walkers['walking']} walking, {stopped or 'none'} stopped"
    yield "CPU", duration(told["cpu_seconds"])
    if told["quarantined"]["labels"]:
        yield "quarantine", _quarantine(told)
    if not told["finished"]:
        yield "under way", tasks(told["open"])
    for training in told["training"]:
        yield "training", training
    if told["time_left"]:
        yield "time left", f"about {duration(told['time_left'])}"
    yield "store", f"{short(Path(told['store']))}, last commit {told['last_commit']}"


def _best(told: dict[str, Any]) -> str:
    """What the list of errors means, and which of them is used."""
    words = " meV/Å, by generation"
    last = len(told["errors"])
    return words if told["best"] == last else f"{words}; {told['best']} is the best"


def _now(told: dict[str, Any], stage: str) -> str:
    """Finished, stopped and why, or what is being done."""
    if told["broken"]:
        return f"stopped: {told['broken']}"
    if told["finished"]:
        return f"finished: {told['finished']}"
    return stage if told["running"] else f"paused: {stage}"


def _driver(told: dict[str, Any]) -> str:
    """Who runs the campaign, and how to go on where nobody does."""
    driver = told["running"]
    if driver is not None:
        who = f"process {driver['pid']} on {driver['host']} since {driver['since']}"
        return f"running: {who if driver['pid'] else 'another driver'}"
    again = f"; go on with: alloop resume {quote(short(Path(told['store'])))}"
    return f"none is running{'' if told['finished'] else again}"


def _quarantine(told: dict[str, Any]) -> str:
    from alloop.report.words import plural

    labels, retry = told["quarantined"]["labels"], told["quarantined"]["retry"]
    store = short(Path(told["store"]))
    hint = (
        f"; `alloop resume {quote(store)} --retry` tries {retry} again" if retry else ""
    )
    return f"{plural(labels, 'label')} failed{hint}"


def _labels(told: dict[str, dict[str, Any]]) -> "Table":
    from alloop.report.fitting import FittingTable

    head = ("labels", "level", "good", "doubtful", "failed", "of budget", "CPU s")
    table = FittingTable(*head, box=None, first_out=("CPU s", "level", "doubtful"))
    for kind, each in told.items():
        budget = "" if each["budget"] is None else f"{each['used']}/{each['budget']}"
        counts = (str(each[key]) for key in ("good", "doubtful", "failed"))
        spent = f"{each['cpu_seconds']:.1f}"
        table.add_row(kind, each["level"], *counts, budget, spent)
    return table


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{many} {what}" for what, many in counts.items())
