"""One driver a store: a lock that the kernel gives back when its holder dies."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from alloop.core.errors import LockedError, StoreError
from alloop.store.files import explained

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[int] = set()


def _forget() -> None:
    # A forked child shares the lock until it closes its copy of the handle: a child
    # that outlives a killed driver would keep the store locked.
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


class Lock:
    """An exclusive lock on a file, held from construction to `release`.

    Raises
    ------
    LockedError
        Another driver holds it; the sentence names its process and host.
    StoreError
        The file cannot be written, or its file system has no locks.
    """

    def __init__(self, path: Path, store: Path) -> None:
        with explained(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(self._handle, path, store)
            _sign(self._handle)
        except StoreError:
            os.close(self._handle)
            raise
        self._path, self._store = path, store
        self._signature = _read(self._handle)
        _held.add(self._handle)

    def confirm(self) -> None:
        """LockedError if another driver has signed since, as on a broken file system.

        Names of records become free again where they are sealed, so that who comes late
        is not refused by the names alone.
        """
        if _read(self._handle) != self._signature:
            raise LockedError(
                f"{self._store} was taken over by {_holder(self._path)}; only one "
                "driver may run, so stop one of the two"
            )

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._handle in _held:
            _held.remove(self._handle)
            os.close(self._handle)


def _lock(handle: int, path: Path, store: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"{store} is in use by {_holder(path)}; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
        raise StoreError(
            f"the file system of {store} has no file locks ({error.strerror}); put the "
            "store on one that has"
        ) from error


def _sign(handle: int) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    # A full disk must not refuse a lock: the signature only serves the other's message.
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)


def _read(handle: int) -> bytes:
    return os.pread(handle, 4096, 0)


def _holder(path: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(path.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (OSError, ValueError, KeyError):
        return "another driver"
