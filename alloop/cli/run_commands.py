"""The commands `run`, `resume` and `stop`: the loop and its clean end."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from alloop.cli.exits import DONE, MISTAKE, RESUMABLE, stop_event
from alloop.core.errors import AlloopError, InputError
from alloop.core.text import plural

if TYPE_CHECKING:
    from alloop.campaign import Campaign, Outcome
    from alloop.driver.run import RunObserver
    from alloop.loop.events import Turn
    from alloop.loop.state import LoopState
    from alloop.store.lock import Holder
    from alloop.workers.shared_cluster import SharedCluster

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
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="YAML file of a campaign, or its store"),
    ],
    controls: Controls = False,
    retry: Retry = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> int:
    """Start a campaign, or continue it; several one after the other.

    Code that a YAML file names is run; code that a store names, only with --trust.
    Ctrl-C ends the run within seconds; the same command continues it. Several campaigns
    share workers and labels, and one that fails does not stop the next.
    """
    again = _resume_command("run", files, controls, trust)
    options = _RunOptions(controls, quiet, retry)
    if len(files) > 1:
        return _run_queue(files, trust, again, options)
    return _run_with_controls(lambda: _campaign_at(files[0], trust), again, options)


def _campaign_at(file: Path, trust: bool) -> "Campaign":
    from alloop.campaign import Campaign

    if existing_path(file).is_dir():
        return Campaign.from_store(file, trust=trust)
    return Campaign.from_yaml(file)


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

    again = _resume_command("resume", [store], controls, trust)
    return _run_with_controls(opened, again, _RunOptions(controls, quiet, retry))


def _resume_command(
    verb: str, places: Sequence[Path], controls: bool, trust: bool
) -> str:
    """Return the command that continues the campaigns."""
    words = ["alloop", verb, *map(str, places)]
    return shlex.join([*words, *["--controls"] * controls, *["--trust"] * trust])


def _run_with_controls(
    opened: Callable[[], "Campaign"], again: str, options: _RunOptions
) -> int:
    with stop_event() as stopping:
        try:
            with busy_line("reading the campaign", options.quiet):
                campaign = opened()
            outcomes = _run_campaign(campaign, stopping.is_set, options)
        except KeyboardInterrupt:
            return _stopped_message(again)
        return _end_message(campaign, outcomes, again)


def _run_campaign(
    campaign: "Campaign", stop: Callable[[], bool], options: _RunOptions
) -> "list[Outcome]":
    campaign.refuse_distrusted()
    for warning in campaign.setup.warnings:
        print_error(f"warning: {warning}")
    warn_of_lost(campaign.store)
    if options.retry:
        print_text(_retry_text(campaign.lost()))
    return list(_run_outcomes(campaign, stop, options))


def _run_queue(
    files: Sequence[Path], trust: bool, again: str, options: _RunOptions
) -> int:
    """Run campaigns one after the other, on the same workers.

    Returns RESUMABLE if one of them can be continued, MISTAKE if one cannot.
    """
    from alloop.workers.shared_cluster import SharedCluster

    stores = _queue_stores(files, trust)
    cluster = SharedCluster()
    codes: dict[Path, int] = {}
    with stop_event() as stopping, contextlib.closing(cluster):
        try:
            for number, file in enumerate(files, 1):
                print_text(f"campaign {number} of {len(files)}: {short_path(file)}")
                opened = partial(_campaign_in_row, file, trust, stores, cluster)
                codes[file] = _run_queued(opened, stopping.is_set, options)
                if stopping.is_set():
                    return _stopped_message(again)
        except KeyboardInterrupt:
            return _stopped_message(again)
    return _queue_end(codes, again)


def _campaign_in_row(
    file: Path, trust: bool, stores: Mapping[Path, Path], cluster: "SharedCluster"
) -> "Campaign":
    others = [store for name, store in stores.items() if name != file]
    return _campaign_at(file, trust).after(others, cluster)


def _queue_stores(files: Sequence[Path], trust: bool) -> dict[Path, Path]:
    """Return the stores of a queue by file; tell now what is wrong with later files.

    Raises InputError where two files have the same store.
    """
    stores: dict[Path, Path] = {}
    for file in files:
        try:
            store = _campaign_at(file, trust).store.resolve()
        except AlloopError as error:
            print_error(f"{error}; mend it before its turn comes")
            continue
        if store in stores.values():
            raise InputError(
                f"expected campaigns with stores of their own, {file} has "
                f"{short_path(store)}, as another one; leave one of the two out"
            )
        stores[file] = store
    return stores


def _run_queued(
    opened: Callable[[], "Campaign"], stop: Callable[[], bool], options: _RunOptions
) -> int:
    """Run a campaign of a queue; what ends it is told, and ends it alone."""
    try:
        campaign = opened()
        reason = campaign.finished()
        if reason is not None and not (options.controls or options.retry):
            print_text(f"finished before: {reason}")
            return DONE
        outcomes = _run_campaign(campaign, stop, options)
    except AlloopError as error:
        print_error(str(error))
        return error.exit_code
    if stop():
        return RESUMABLE
    again = f"alloop resume {quote(short_path(campaign.store))}"
    return _end_message(campaign, outcomes, again)


def _queue_end(codes: Mapping[Path, int], again: str) -> int:
    done = sum(code == DONE for code in codes.values())
    rest = [str(file) for file, code in codes.items() if code != DONE]
    print_text(f"{done} of {plural(len(codes), 'campaign')} finished")
    if rest:
        print_error(f"not finished: {', '.join(rest)}; continue with: {again}")
    present = set(codes.values())
    return next(
        (code for code in (RESUMABLE, MISTAKE) if code in present), max(present)
    )


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
    results = try_receivers(receivers.trials, campaign.setup.name)
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
