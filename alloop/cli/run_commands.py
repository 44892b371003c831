"""The commands `run` and `resume`: the loop, with clean handling of Ctrl-C."""

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from alloop.cli.campaign_paths import existing_path, warn_of_lost
from alloop.cli.console import busy, complain, out, say, warn
from alloop.core.errors import InputError
from alloop.core.text import plural

if TYPE_CHECKING:
    from alloop.campaign import Campaign, Outcome
    from alloop.driver.run import RunObserver
    from alloop.loop.events import Turn
    from alloop.loop.state import LoopState

RESUMABLE = 3

Quiet = Annotated[bool, typer.Option("--quiet", help="no live display")]
Controls = Annotated[
    bool,
    typer.Option(
        "--controls",
        help="then also run two controls at the same label cost: standard training, "
        "random selection",
    ),
]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry",
        help="ask again for labels that a limit, a crash or a lost worker cost",
    ),
]


Trust = Annotated[
    bool,
    typer.Option("--trust", help="run code that the store's configuration names"),
]


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """The options of a run of a campaign."""

    controls: bool
    quiet: bool
    retry: bool


def run(
    file: Annotated[Path, typer.Argument(help="a campaign's YAML file, or its store")],
    controls: Controls = False,
    retry: Retry = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> int:
    """Start a campaign, or go on with it.

    Runs the code that a YAML file names; of a store, only with --trust. Ctrl-C ends it
    within seconds; the same command goes on.
    """

    def opened() -> "Campaign":
        from alloop.campaign import Campaign

        if existing_path(file).is_dir():
            return Campaign.from_store(file, trust=trust)
        return Campaign.from_yaml(file)

    again = _again("run", file, controls, trust)
    return _run_with_controls(opened, again, _RunOptions(controls, quiet, retry))


def resume(
    store: Annotated[Path, typer.Argument(help="a store; nothing else is needed")],
    controls: Controls = False,
    retry: Retry = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> int:
    """Go on with a campaign from its store alone."""

    def opened() -> "Campaign":
        from alloop.campaign import Campaign

        return Campaign.from_store(existing_path(store), trust=trust)

    again = _again("resume", store, controls, trust)
    return _run_with_controls(opened, again, _RunOptions(controls, quiet, retry))


def _again(verb: str, place: Path, controls: bool, trust: bool) -> str:
    """Return the command that continues the campaign."""
    words = ["alloop", verb, str(place)]
    return shlex.join([*words, *["--controls"] * controls, *["--trust"] * trust])


class Asked(Event):
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
    asked = Asked()

    def ask(_number: int, _frame: Any) -> None:
        if not asked.looked_at or asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_with_controls(
    opened: Callable[[], "Campaign"], again: str, how: _RunOptions
) -> int:
    with stop_event() as asked:
        try:
            with busy("reading the campaign", how.quiet):
                campaign = opened()
            campaign.refuse_distrusted()
            for warning in campaign.setup.warnings:
                complain(f"warning: {warning}")
            warn_of_lost(campaign.store)
            if how.retry:
                say(_second_chances(campaign.lost()))
            outcomes = list(_run_outcomes(campaign, asked.is_set, how))
        except KeyboardInterrupt:
            return _stopped_message(again)
        return _end_message(campaign, outcomes, again)


def _second_chances(lost: int) -> str:
    if not lost:
        return "nothing to retry: no label was lost to a limit or a crash"
    return f"asking again for {plural(lost, 'lost label')}"


def _end_message(campaign: "Campaign", outcomes: "list[Outcome]", again: str) -> int:
    for outcome in outcomes:
        if outcome.state.broken:
            complain(f"{outcome.state.broken}; mend it and go on with: {again}")
            return RESUMABLE
        if outcome.finished is None:
            return _stopped_message(again)
    _show_end(campaign)
    return 0


def _run_outcomes(
    campaign: "Campaign", stop: Callable[[], bool], how: _RunOptions
) -> Iterator["Outcome"]:
    from alloop.store_copies.controls import NAMES

    with _observer(campaign, stop, how.quiet) as watch:
        outcome = campaign.run(watch=watch, retry=how.retry)
    yield outcome
    for name in NAMES if how.controls else ():
        if outcome.exit_code != 0:
            return
        control = campaign.control(name)
        with _observer(control, stop, how.quiet) as watch:
            outcome = control.run(watch=watch)
        yield outcome


@contextlib.contextmanager
def _observer(
    campaign: "Campaign", stop: Callable[[], bool], quiet: bool
) -> Iterator["RunObserver"]:
    from alloop.driver.run import RunObserver
    from alloop.report.text.live_display import LiveDisplay
    from alloop.workers.spool import spool_folder

    console = Console(quiet=True) if quiet else out()
    setup = campaign.setup
    spool = spool_folder(campaign.store)
    live = LiveDisplay(setup.name, setup.rules, console, spool=spool)
    with contextlib.ExitStack() as shown:
        log = shown.enter_context(_log_observer(campaign))
        start = contextlib.ExitStack()
        begin = shown.enter_context(start).enter_context(busy("", quiet))

        def observe(state: "LoopState", turn: "Turn") -> None:
            log(state, turn)
            live.observe(state, turn)

        def go_on() -> bool:
            """Start the live display if needed; return True to stop the loop."""
            if not live.shown:
                start.close()
                shown.enter_context(live)
            return stop()

        yield RunObserver(observe, live.tick, go_on, begin, warn)


@contextlib.contextmanager
def _log_observer(
    campaign: "Campaign",
) -> Iterator[Callable[["LoopState", "Turn"], None]]:
    """Yield an observer that writes a log file beside the store.

    The file is opened at the first turn.
    """
    from alloop.report.text.logfile import LogFile

    path, opened = campaign.store.with_suffix(".log"), list[LogFile | None]()
    with contextlib.ExitStack() as stack:

        def begun() -> LogFile | None:
            try:
                return stack.enter_context(LogFile(path))
            except InputError as error:
                warn(f"no log is written: {error}")
                return None

        def observe(state: "LoopState", turn: "Turn") -> None:
            if not opened:
                opened.append(begun())
            if opened[0] is not None:
                opened[0].observe(state, turn)

        yield observe


def _stopped_message(again: str) -> int:
    say(f"stopped; go on with: {again}")
    return RESUMABLE


def _show_end(campaign: "Campaign") -> None:
    from alloop.history.reader import read_history
    from alloop.report.sections.page import write_report
    from alloop.report.text.summary import end_lines, end_table

    history = campaign.history()
    controls = {name: read_history(path) for name, path in campaign.controls().items()}
    report = None
    try:
        report = write_report(history, campaign.store.with_suffix(".html"), controls)
    except (InputError, OSError) as error:
        warn(f"no report is written: {error}; `alloop report --out FILE` writes one")
    say(end_table(history, controls))
    for line in end_lines(history, controls, report):
        say(line)
