"""The commands `status`, `why`, `log` and `report`: read a store, also while in use."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.cli.campaign_paths import Force, Place, read_place, short_path
from alloop.cli.console import AsJson, say, say_json, unheard
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from alloop.history.reader import History


def status(
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Show how far a campaign is: round, labels, cost, error."""
    from alloop.report.status import campaign_status

    told = campaign_status(read_place(place))
    if as_json:
        say_json(told)
        return
    for name, value in _status_facts(told):
        say(f"{name:<16} {value}")
    say(_label_table(told["labels"]))


def why(
    place: Place,
    frame: Annotated[str, typer.Argument(help="a frame's id, or how it begins")],
    as_json: AsJson = False,
) -> None:
    """Show the story of one frame: its origin, its labels, and what learned from it."""
    from alloop.report.text.frame_history import facts, frame_story

    history = read_place(place)
    if as_json:
        say_json(facts(history, frame))
        return
    for line in frame_story(history, frame):
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
    """Show everything that happened, a line each; with --json an object each."""
    from alloop.history.reader import following
    from alloop.report.text.event_text import log_entry, log_line

    history = read_place(place)
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
    histories = [read_place(place) for place in places]
    if compare:
        say(f"comparison: {short_path(_comparison(histories, out))}")
        return
    if len(histories) > 1:
        raise InputError(
            f"expected one store to report on, got {len(histories)}; `alloop report "
            "--compare` sets several side by side"
        )
    say(f"report: {short_path(_report(histories[0], out))}")


def _report(history: "History", out: Path | None) -> Path:
    from alloop.report.sections.page import write_report

    where = out or history.path.with_suffix(".html")
    return write_report(history, where, _controls(history))


def _comparison(histories: Sequence["History"], out: Path | None) -> Path:
    from alloop.report.sections.page import write_page
    from alloop.report.sections.side_by_side import ComparedCampaign, side_by_side

    page = side_by_side([ComparedCampaign(each, _controls(each)) for each in histories])
    return write_page(page, out or histories[0].path.with_name("comparison.html"))


def _controls(history: "History") -> dict[str, "History"]:
    from alloop.history.reader import read_history
    from alloop.store_copies.controls import control_stores

    return {
        name: read_history(path) for name, path in control_stores(history.path).items()
    }


def _status_facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from alloop.report.text.formatting import (
        STAGES,
        duration_text,
        milli_text,
        task_text,
    )

    stage = STAGES.get(told["stage"], told["stage"])
    walkers, stopped = told["walkers"], _count_text(told["walkers"]["stopped"])
    yield told["name"], f"{_current_stage(told, stage)} (round {told['round']})"
    yield "driver", _driver_text(told)
    if told["parent"]:
        origin = told["parent"]
        yield "forked", f"from {origin['store']}, generation {origin['generation']}"
    if told["examination"]:
        yield "examination", " ".join(told["examination"]["sentences"])
    errors = [milli_text(x) for x in told["errors"] if x is not None]
    shown = f"{' → '.join(errors)}{_best(told)}"
    yield f"{told['tested_on']} error", shown if errors else "none yet"
    if told["calibration"]:
        yield "threshold", " ".join(told["calibration"])
    yield "walkers", f"{walkers['walking']} walking, {stopped or 'none'} stopped"
    yield "CPU", duration_text(told["cpu_seconds"])
    if told["quarantined"]["labels"]:
        yield "quarantine", _quarantine_text(told)
    if not told["finished"]:
        yield "under way", task_text(told["open"])
    for training in told["training"]:
        yield "training", training
    if told["time_left"]:
        yield "time left", f"about {duration_text(told['time_left'])}"
    yield (
        "store",
        f"{short_path(Path(told['store']))}, last commit {told['last_commit']}",
    )


def _best(told: dict[str, Any]) -> str:
    """Return the unit of the listed errors, and the best generation if not the last."""
    words = " meV/Å, by generation"
    last = len(told["errors"])
    return words if told["best"] == last else f"{words}; {told['best']} is the best"


def _current_stage(told: dict[str, Any], stage: str) -> str:
    """Return the end of the campaign and its reason, or the current stage."""
    if told["broken"]:
        return f"stopped: {told['broken']}"
    if told["finished"]:
        return f"finished: {told['finished']}"
    return stage if told["running"] else f"paused: {stage}"


def _driver_text(told: dict[str, Any]) -> str:
    """Return the process that runs the campaign, or the command to go on."""
    driver = told["running"]
    if driver is not None:
        who = f"process {driver['pid']} on {driver['host']} since {driver['since']}"
        return f"running: {who if driver['pid'] else 'another driver'}"
    again = f"; go on with: alloop resume {quote(short_path(Path(told['store'])))}"
    return f"none is running{'' if told['finished'] else again}"


def _quarantine_text(told: dict[str, Any]) -> str:
    from alloop.report.text.formatting import plural

    labels, retry = told["quarantined"]["labels"], told["quarantined"]["retry"]
    store = short_path(Path(told["store"]))
    hint = (
        f"; `alloop resume {quote(store)} --retry` tries {retry} again" if retry else ""
    )
    return f"{plural(labels, 'label')} failed{hint}"


def _label_table(told: dict[str, dict[str, Any]]) -> "Table":
    from alloop.report.text.fitting_table import FittingTable

    head = ("labels", "level", "good", "doubtful", "failed", "of budget", "CPU s")
    table = FittingTable(*head, box=None, first_out=("CPU s", "level", "doubtful"))
    for kind, each in told.items():
        budget = "" if each["budget"] is None else f"{each['used']}/{each['budget']}"
        counts = (str(each[key]) for key in ("good", "doubtful", "failed"))
        spent = f"{each['cpu_seconds']:.1f}"
        table.add_row(kind, each["level"], *counts, budget, spent)
    return table


def _count_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{many} {what}" for what, many in counts.items())
