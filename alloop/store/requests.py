"""Requests to the driver of a store, wherever it runs: files beside the store.

A request repeats the signature of the lock, so that it reaches the driver that it was
meant for and no later one.
"""

import contextlib
from pathlib import Path

from alloop.store.files import explain_errors
from alloop.store.lock import Holder


def stop_file(store: Path) -> Path:
    """Where a request to stop lies: STORE.stop."""
    return store.with_name(store.name + ".stop")


def request_stop(store: Path, holder: Holder) -> None:
    """Ask the driver to stop as it would on Ctrl-C; StoreError if nothing can be
    written there."""
    path = stop_file(store)
    partial = path.with_name(path.name + ".part")
    with explain_errors(path):
        partial.write_bytes(holder.signature)
        partial.replace(path)


def stop_requested(store: Path, signature: bytes) -> bool:
    """True where somebody asked the driver of this signature to stop."""
    try:
        return stop_file(store).read_bytes() == signature
    except OSError:
        return False


def withdraw_stop(store: Path) -> None:
    """Remove a request to stop, if there is one."""
    with contextlib.suppress(OSError):
        stop_file(store).unlink(missing_ok=True)
