"""The command `stop`: a clean end for a campaign that runs elsewhere."""

import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import Place, find_store, read_place, short_path
from alloop.cli.console import complain, say
from alloop.cli.run_commands import RESUMABLE

if TYPE_CHECKING:
    from alloop.store.lock import Holder

_LOOK = 0.2  # s between two checks of the lock


def stop(
    place: Place,
    wait: Annotated[
        float, typer.Option(min=0.0, help="seconds to wait for the end")
    ] = 600.0,
) -> int:
    """End a running campaign as Ctrl-C would, from another terminal or another host.

    Nothing that was finished is lost, and `alloop resume STORE` goes on. The exit code
    is 0 once nothing runs, 3 where it is still running when the time to wait is over.
    """
    from alloop.store.requests import request_stop, withdraw_stop

    store = find_store(place)
    began, asked = time.monotonic(), set[Path]()
    while (found := _driver(store)) is not None:
        running, driver = found
        request_stop(running, driver)
        if running not in asked:
            asked.add(running)
            say(f"asked {driver} to stop {short_path(running)}")
        if time.monotonic() - began >= wait:
            complain(
                f"{short_path(running)} is still running after {wait:g} s; it will end"
            )
            return RESUMABLE
        time.sleep(_LOOK)
    for path in asked:
        withdraw_stop(path)
    _tell(store, time.monotonic() - began if asked else None)
    return 0


def _driver(store: Path) -> "tuple[Path, Holder] | None":
    """Return the store in use, the campaign's or a control's, and its user."""
    from alloop.store.lock import holder
    from alloop.store_copies.controls import control_stores

    each = ((path, holder(path)) for path in (store, *control_stores(store).values()))
    return next(((path, found) for path, found in each if found is not None), None)


def _tell(store: Path, seconds: float | None) -> None:
    finished = read_place(store).state.finished
    if finished:
        say(f"{short_path(store)} has finished: {finished}")
        return
    took = "is not running" if seconds is None else f"stopped after {seconds:.1f} s"
    say(
        f"{short_path(store)} {took}; go on with: alloop resume "
        f"{quote(short_path(store))}"
    )
