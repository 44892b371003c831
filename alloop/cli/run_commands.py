"""The commands `run`, `resume` and `stop`: the loop and its clean end."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alloop.cli.campaign_paths import (
    StorePath,
    existing_path,
    find_store,
    open_history,
    short_path,
    warn_of_lost,
)
from alloop.cli.console import (
    Quiet,
    busy_line,
    output_console,
    print_error,
    print_text,
    print_warning,
)
from alloop.cli.exits import RESUMABLE, stop_event
from alloop.core.errors import InputError
from alloop.core.text import plural

if TYPE_CHECKING:
    from alloop.campaign import Campaign, Outcome
    from alloop.driver.run import RunObserver
    from alloop.loop.events import Turn
    from alloop.loop.state import LoopState
    from alloop.store.lock import Holder

Controls = Annotated[
    bool,
    typer.Option(
        "--controls",
        help="run two controls at the same label cost afterwards: standard training "
        "and random selection",
    ),
]

Retry = Annotated[
    bool,
    typer.Option(
        "--retry",
        help="request labels again that failed by a limit, a crash or a lost worker",
    ),
]

Trust = Annotated[
    bool,
    typer.Option("--trust", help="run the code that the store's configuration names"),
]


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """The options of a run of a campaign."""

    controls: bool
    quiet: bool
    retry: bool


def run(
    file: Annotated[Path, typer.Argument(help="YAML file of a campaign, or its store")],
    controls: Controls = False,
    retry: Retry = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> int:
    """Start a campaign, or continue it.

    Code that a YAML file names is run; code that a store names, only with --trust.
    Ctrl-C ends the run within seconds; the same command continues it.
    """

    def opened() -> "Campaign":
        from alloop.campaign import Campaign

        if existing_path(file).is_dir():
            return Campaign.from_store(file, trust=trust)
        return Campaign.from_yaml(file)

    again = _resume_command("run", file, controls, trust)
    return _run_with_controls(opened, again, _RunOptions(controls, quiet, retry))


def resume(
    store: Annotated[
        Path, typer.Argument(help="store of the campaign; no other file is needed")
    ],
    controls: Controls = False,
    retry: Retry = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> int:
    """Continue a campaign from its store alone.

    Ctrl-C ends the run within seconds; the same command continues it.
    """

    def opened() -> "Campaign":
        from alloop.campaign import Campaign

        return Campaign.from_store(existing_path(store), trust=trust)

    again = _resume_command("resume", store, controls, trust)
    return _run_with_controls(opened, again, _RunOptions(controls, quiet, retry))


def _resume_command(verb: str, place: Path, controls: bool, trust: bool) -> str:
    """Return the command that continues the campaign."""
    words = ["alloop", verb, str(place)]
    return shlex.join([*words, *["--controls"] * controls, *["--trust"] * trust])


def _run_with_controls(
    opened: Callable[[], "Campaign"], again: str, options: _RunOptions
) -> int:
    with stop_event() as stopping:
        try:
            with busy_line("reading the campaign", options.quiet):
                campaign = opened()
            campaign.refuse_distrusted()
            for warning in campaign.setup.warnings:
                print_error(f"warning: {warning}")
            warn_of_lost(campaign.store)
            if options.retry:
                print_text(_retry_text(campaign.lost()))
            outcomes = list(_run_outcomes(campaign, stopping.is_set, options))
        except KeyboardInterrupt:
            return _stopped_message(again)
        return _end_message(campaign, outcomes, again)


def _retry_text(lost: int) -> str:
    if not lost:
        return "nothing to retry: no label failed by a limit or a crash"
    return f"requesting {plural(lost, 'lost label')} again"


def _end_message(campaign: "Campaign", outcomes: "list[Outcome]", again: str) -> int:
    for outcome in outcomes:
        if outcome.state.broken:
            print_error(
                f"{outcome.state.broken}; fix the cause and continue with: {again}"
            )
            return RESUMABLE
        if outcome.finished is None:
            return _stopped_message(again)
    _show_end(campaign)
    return 0


def _run_outcomes(
    campaign: "Campaign", stop: Callable[[], bool], options: _RunOptions
) -> Iterator["Outcome"]:
    from alloop.store_copies.fork import NAMES

    with _run_observer(campaign, stop, options.quiet) as observer:
        outcome = campaign.run(observer=observer, retry=options.retry)
    yield outcome
    for name in NAMES if options.controls else ():
        if outcome.exit_code != 0:
            return
        control = campaign.control(name)
        with _run_observer(control, stop, options.quiet) as observer:
            outcome = control.run(observer=observer)
        yield outcome


@contextlib.contextmanager
def _run_observer(
    campaign: "Campaign", stop: Callable[[], bool], quiet: bool
) -> Iterator["RunObserver"]:
    from alloop.driver.run import RunObserver
    from alloop.report.text.event_log import LOGGER, log_observer
    from alloop.report.text.live_display import LiveDisplay
    from alloop.workers.spool import spool_folder

    console = Console(quiet=True) if quiet else output_console()
    setup = campaign.setup
    spool = spool_folder(campaign.store)
    live = LiveDisplay(setup.name, setup.rules, console, spool=spool)
    with contextlib.ExitStack() as shown:
        file = campaign.store.with_suffix(".log")
        log = shown.enter_context(log_observer(file, print_warning))
        start = contextlib.ExitStack()
        begin = shown.enter_context(start).enter_context(busy_line("", quiet))

        def observe(state: "LoopState", turn: "Turn") -> None:
            log(state, turn)
            live.observe(state, turn)

        def go_on() -> bool:
            """Start the live display if needed; return True to stop the loop."""
            if not live.shown:
                start.close()
                shown.enter_context(live)
            return stop()

        def warn(text: str) -> None:
            print_warning(text)
            if LOGGER.handlers:
                LOGGER.warning("%s", text)

        yield RunObserver(observe, live.tick, go_on, begin, warn)


def _stopped_message(again: str) -> int:
    print_text(f"stopped; continue with: {again}")
    return RESUMABLE


def _show_end(campaign: "Campaign") -> None:
    from alloop.history.reader import read_history
    from alloop.report.sections.page import write_report
    from alloop.report.status import end_lines

    history = campaign.history()
    controls = {name: read_history(path) for name, path in campaign.controls().items()}
    report = None
    try:
        report = write_report(history, campaign.store.with_suffix(".html"), controls)
    except (InputError, OSError) as error:
        print_warning(
            f"no report is written: {error}; `alloop report --out FILE` writes one"
        )
    for line in end_lines(history, controls, report):
        print_text(line)


def notify(
    file: Annotated[Path, typer.Argument(help="YAML file of a campaign, or its store")],
    trust: Trust = False,
) -> None:
    """Send a test notice to whom `notify:` of a campaign names.

    The exit code is 2 if one of them did not take it.
    """
    import os

    from alloop.campaign import Campaign
    from alloop.driver.receivers import make_receivers, try_receivers

    if existing_path(file).is_dir():
        campaign = Campaign.from_store(file, trust=trust)
    else:
        campaign = Campaign.from_yaml(file)
    campaign.refuse_distrusted()
    section = campaign.setup.plan.notify
    if section is None:
        raise InputError(f"expected `notify:` in {file}, there is none; add it")
    receivers = make_receivers(section, os.environ)
    results = try_receivers(receivers.sends, campaign.setup.name)
    for name, problem in results.items():
        print_text(f"{name}: {problem or 'taken'}")
    problems = [*receivers.problems, *(f"{k}: {x}" for k, x in results.items() if x)]
    if problems:
        raise InputError("not everybody took the notice: " + "; ".join(problems))


_POLL = 0.2  # s between two checks of the lock


def stop(
    place: StorePath,
    wait: Annotated[
        float, typer.Option(min=0.0, help="seconds to wait for the end")
    ] = 600.0,
) -> int:
    """Stop a running campaign cleanly from another terminal or host.

    Finished work is kept, and `alloop resume STORE` continues. The exit code is 0 once
    nothing runs, and 3 if the campaign still runs when the time to wait is over.
    """
    from alloop.store.lock import request_stop, withdraw_stop

    store = find_store(place)
    began, stores = time.monotonic(), set[Path]()
    while (user := _running_driver(store)) is not None:
        running, driver = user
        request_stop(running, driver)
        if running not in stores:
            stores.add(running)
            print_text(f"asked {driver} to stop {short_path(running)}")
        if time.monotonic() - began >= wait:
            print_error(
                f"{short_path(running)} is still running after {wait:g} s; it has been "
                "asked to stop and will end"
            )
            return RESUMABLE
        time.sleep(_POLL)
    for path in stores:
        withdraw_stop(path)
    _print_end(store, time.monotonic() - began if stores else None)
    return 0


def _running_driver(store: Path) -> "tuple[Path, Holder] | None":
    """Return the store in use, the campaign's or a control's, and its user."""
    from alloop.store.lock import lock_holder
    from alloop.store_copies.fork import control_stores

    holders = (
        (path, lock_holder(path)) for path in (store, *control_stores(store).values())
    )
    return next(
        ((path, holder) for path, holder in holders if holder is not None), None
    )


def _print_end(store: Path, seconds: float | None) -> None:
    finished = open_history(store).state.finished
    if finished:
        print_text(f"{short_path(store)} has finished: {finished}")
        return
    took = "is not running" if seconds is None else f"stopped after {seconds:.1f} s"
    print_text(
        f"{short_path(store)} {took}; continue with: alloop resume "
        f"{quote(short_path(store))}"
    )
