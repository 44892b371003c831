"""The commands `status`, `why`, `log` and `report`: read a store, also while in use."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.cli.campaign_paths import Force, StorePath, open_history, short_path
from alloop.cli.console import AsJson, output_closed, print_json, print_text
from alloop.core.errors import InputError
from alloop.store.addresses import is_remote, store_address

if TYPE_CHECKING:
    from rich.table import Table

    from alloop.history.reader import History


def status(
    place: StorePath,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="show generations, labels, thresholds and costs in full"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a campaign reached: error, limits of errors, controls and cost."""
    from alloop.report.analysis.outcome import outcome_facts
    from alloop.report.status import campaign_status, warning_sentences

    history = open_history(place)
    values = campaign_status(history)
    if as_json:
        print_json(values)
        return
    controls = _control_histories(history)
    facts = {name: str(fact) for name, fact in outcome_facts(history, controls).items()}
    for name, value in _status_facts(values, facts, warning_sentences(history)):
        print_text(f"{name:<11} {value}")
    if everything:
        _print_details(history, controls, values)


def _print_details(
    history: "History", controls: "Mapping[str, History]", values: dict[str, Any]
) -> None:
    """Print the table of generations, all sentences and the table of labels."""
    from alloop.report.status import detail_lines, end_table

    print_text(end_table(history, controls))
    for line in detail_lines(history, controls):
        print_text(line)
    print_text(_label_table(values["labels"]))


def list_campaigns(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="folders to look in, or YAML files of campaigns  [default: this one]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all campaigns beneath folders: state, error, cost, last sign of life."""
    from alloop.report.campaign_list import campaign_rows, list_table

    rows = [row for folder in folders or [Path()] for row in campaign_rows(folder)]
    if as_json:
        print_json(rows)
    elif rows:
        print_text(list_table(rows))
    else:
        print_text("no campaign lies there")


def why(
    place: StorePath,
    frame: Annotated[
        str,
        typer.Argument(
            help="id of a frame, or its first characters; or the number of a generation"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the origin, labels and use of one frame, or of one generation."""
    from alloop.report.text import generation_history
    from alloop.report.text.frame_history import describe_frame, frame_facts

    history = open_history(place)
    number = generation_history.generation_number(history, frame)
    if number is not None:
        if as_json:
            print_json(generation_history.generation_details(history, number))
            return
        for line in generation_history.describe_generation(history, number):
            print_text(line)
        return
    if as_json:
        print_json(frame_facts(history, frame))
        return
    for line in describe_frame(history, frame):
        print_text(line)


def log(
    place: StorePath,
    last: Annotated[
        int, typer.Option(min=0, help="show only this many last lines; 0: all")
    ] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", help="wait for new lines until Ctrl-C")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show all events of a campaign, one line each.

    With --json, each line is a JSON object.
    """
    from alloop.history.reader import follow_records
    from alloop.report.text.event_log import log_entry, log_line

    history = open_history(place)
    levels = history.state.levels
    entries = iter(history.entries[-last:] if last else history.entries)
    coming = follow_records(history.path, len(history.entries)) if follow else ()
    with contextlib.suppress(KeyboardInterrupt):
        for entry in chain(entries, coming):
            if as_json:
                print_json(log_entry(entry, levels), indent=None)
            else:
                print_text(log_line(entry, levels))
            if output_closed():
                return


def report(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE",
            help="store, or YAML file of its campaign; also https:// or s3://",
        ),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="compare several stores on one page")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write  [default: beside the first store]"),
    ] = None,
    force: Force = False,
) -> None:
    """Write the report of a campaign, one self-contained HTML file."""
    from alloop.files.targets import PAGES, refuse_target

    if out is not None:
        refuse_target(out, PAGES, force=force)
    histories = [open_history(place) for place in places]
    if compare:
        print_text(f"comparison: {short_path(_write_comparison(histories, out))}")
        return
    if len(histories) > 1:
        raise InputError(
            f"expected one store to report on, got {len(histories)}; "
            "`alloop report --compare` compares several"
        )
    print_text(f"report: {short_path(_write_report(histories[0], out))}")


def _write_report(history: "History", out: Path | None) -> Path:
    from alloop.report.sections.page import write_report

    where = out or _place_beside(history, f"{history.path.stem}.html")
    return write_report(history, where, _control_histories(history))


def _write_comparison(histories: Sequence["History"], out: Path | None) -> Path:
    from alloop.report.sections.page import write_page
    from alloop.report.sections.side_by_side import ComparedCampaign, comparison_page

    page = comparison_page(
        [
            ComparedCampaign(history, _control_histories(history))
            for history in histories
        ]
    )
    return write_page(page, out or _place_beside(histories[0], "comparison.html"))


def _place_beside(history: "History", name: str) -> Path:
    """Return a path beside the store; of a remote store, in the working directory."""
    return Path(name) if is_remote(history.path) else history.path.with_name(name)


def _control_histories(history: "History") -> dict[str, "History"]:
    from alloop.history.reader import read_history
    from alloop.store_copies.fork import control_stores

    return {
        name: read_history(path) for name, path in control_stores(history.path).items()
    }


def _status_facts(
    values: dict[str, Any], facts: "Mapping[str, str]", notes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield names and texts; facts: what was reached; notes: warnings."""
    from alloop.report.text.formatting import STAGES, duration_text, task_text

    stage = STAGES.get(values["stage"], values["stage"])
    yield values["name"], f"{_current_stage(values, stage)} (round {values['round']})"
    yield "driver", _driver_text(values)
    if values["parent"]:
        origin = values["parent"]
        yield "forked", f"from {origin['store']}, generation {origin['generation']}"
    yield from facts.items()
    for sentence in notes:
        yield "note", sentence
    if values["notice"] and values["state"] == "paused":
        yield "told", f"{values['notice']['text']} ({values['notice']['time']})"
    if values["quarantined"]["labels"]:
        yield "quarantine", _quarantine_text(values)
    if not values["finished"]:
        yield "walkers", _walker_text(values["walkers"])
        yield "under way", task_text(values["open"])
    for training in values["training"]:
        yield "training", training
    if values["time_left"]:
        yield "time left", f"about {duration_text(values['time_left'])}"
    yield (
        "store",
        f"{short_path(Path(values['store']))}, last commit {values['last_commit']}",
    )


def _walker_text(walkers: dict[str, Any]) -> str:
    stopped = ", ".join(f"{many} {what}" for what, many in walkers["stopped"].items())
    return f"{walkers['walking']} walking, {stopped or 'none'} stopped"


def _current_stage(values: dict[str, Any], stage: str) -> str:
    """Return the end of the campaign and its reason, or the current stage."""
    if values["broken"]:
        return f"stopped: {values['broken']}"
    if values["finished"]:
        return f"finished: {values['finished']}"
    return stage if values["running"] else f"paused: {stage}"


def _driver_text(values: dict[str, Any]) -> str:
    """Return the process that runs the campaign, or the command to go on."""
    driver = values["running"]
    if store_address(values["store"]) is not None:
        return "not known of a store at an address"
    if driver is not None:
        who = f"process {driver['pid']} on {driver['host']} since {driver['since']}"
        return f"running: {who if driver['pid'] else 'another driver'}"
    again = f"; continue with: alloop resume {quote(short_path(Path(values['store'])))}"
    return f"none is running{'' if values['finished'] else again}"


def _quarantine_text(values: dict[str, Any]) -> str:
    from alloop.report.text.formatting import plural

    labels, retry = values["quarantined"]["labels"], values["quarantined"]["retry"]
    store = short_path(Path(values["store"]))
    hint = (
        f"; `alloop resume {quote(store)} --retry` requests {retry} again"
        if retry
        else ""
    )
    return f"{plural(labels, 'label')} failed{hint}"


def _label_table(values: dict[str, dict[str, Any]]) -> "Table":
    from alloop.report.text.fitting_table import FittingTable

    head = ("labels", "level", "good", "doubtful", "failed", "of budget", "CPU s")
    table = FittingTable(*head, box=None, first_out=("CPU s", "level", "doubtful"))
    for kind, counted in values.items():
        budget = (
            ""
            if counted["budget"] is None
            else f"{counted['used']}/{counted['budget']}"
        )
        counts = (str(counted[key]) for key in ("good", "doubtful", "failed"))
        spent = f"{counted['cpu_seconds']:.1f}"
        table.add_row(kind, counted["level"], *counts, budget, spent)
    return table
