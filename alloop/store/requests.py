"""Requests to the driver of a store, on any host: files beside the store.

A request repeats the signature of the lock, so that it reaches the driver that it was
meant for and no later one.
"""

import contextlib
from pathlib import Path

from alloop.store.files import explain_errors
from alloop.store.lock import Holder


def stop_file(store: Path) -> Path:
    """Return the path of a request to stop: STORE.stop."""
    return store.with_name(store.name + ".stop")


def request_stop(store: Path, holder: Holder) -> None:
    """Ask the driver to stop as it would on Ctrl-C.

    Raises StoreError if the request cannot be written.
    """
    path = stop_file(store)
    partial = path.with_name(path.name + ".part")
    with explain_errors(path):
        partial.write_bytes(holder.signature)
        partial.replace(path)


def stop_requested(store: Path, signature: bytes) -> bool:
    """Return True if the driver with this signature was asked to stop."""
    try:
        return stop_file(store).read_bytes() == signature
    except OSError:
        return False


def withdraw_stop(store: Path) -> None:
    """Remove a request to stop, if there is one."""
    with contextlib.suppress(OSError):
        stop_file(store).unlink(missing_ok=True)
