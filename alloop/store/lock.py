"""The lock of a store, which the kernel releases when its holder dies.

A request to stop is a file beside the store, so that it reaches a driver on any host.
It repeats the signature of the lock: it is meant for that driver and no later one.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.core.errors import LockedError, StoreError
from alloop.core.text import local_time
from alloop.store.files import explain_errors
from alloop.store.journal import FOLDER

LOCK = "lock"

# The lock file is written to: do not follow a link, do not wait for a pipe's reader.
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_TRIES, _PAUSE = 4, 0.05  # s: another process may hold it briefly to test it
_held: set[int] = set()


def _close_inherited() -> None:
    # A forked child shares the lock until it closes its copy of the handle: a child
    # that outlives a killed driver would keep the store locked.
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited)


def keep_handle(handle: int) -> None:
    """Note a handle with a lock, so that no forked child keeps the lock."""
    _held.add(handle)


def close_handle(handle: int) -> None:
    """Close a noted handle, and release its lock; a second call does nothing."""
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Holder:
    """The driver that holds a store's lock.

    pid, host, since: its process, its host and the time it took the lock (seconds since
    1970), each None if not known; signature: its bytes in the lock.
    """

    pid: int | None
    host: str | None
    since: float | None
    signature: bytes

    def __str__(self) -> str:
        if self.pid is None or self.host is None or self.since is None:
            return "another driver"
        return f"process {self.pid} on {self.host} since {local_time(self.since)}"


def lock_holder(store: Path) -> Holder | None:
    """Return the driver that is writing to a store now; None if none is known.

    Changes nothing and needs no right to write. Drivers on other hosts are found if the
    file system shares its locks.
    """
    try:
        handle = os.open(store / FOLDER / LOCK, os.O_RDONLY | _SAFE)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse_signature(_read_signature(handle))
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


class StoreLock:
    """An exclusive lock on a file, held from construction to `release`.

    Raises:
    ------
    LockedError
        Another driver holds it; the message names its process and host.
    StoreError
        The file cannot be written, or its file system has no locks.
    """

    def __init__(self, path: Path, store: Path) -> None:
        with explain_errors(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o666)
        try:
            _refuse_shared(self._handle, path)
            _take_lock(self._handle, path, store)
            _write_signature(self._handle)
        except StoreError:
            os.close(self._handle)
            raise
        self._path, self._store = path, store
        self._signature = _read_signature(self._handle)
        keep_handle(self._handle)

    @property
    def signature(self) -> bytes:
        """The bytes that this lock wrote into its file."""
        return self._signature

    def confirm(self) -> None:
        """Raise LockedError if another driver has signed since, or has its own file.

        This happens on file systems with broken locks, and where somebody removed the
        file while this process was halted. File names of records become free again when
        they are sealed, so the names alone do not stop a second writer.
        """
        if not self._is_held():
            raise LockedError(
                f"{self._store} was taken over by {_file_holder(self._path)}; only one "
                "driver may run, so stop one of the two"
            )

    def _is_held(self) -> bool:
        """Return True if the file is still there, and still says what was written."""
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        with explain_errors(self._path):
            same = os.path.samestat(there, os.fstat(self._handle))
            return same and _read_signature(self._handle) == self._signature

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        close_handle(self._handle)


def _refuse_shared(handle: int, path: Path) -> None:
    """Raise StoreError if the file is not a plain one, or has more than one name."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise StoreError(
            f"expected a plain file of one name at {path}, found another; remove "
            "it if no driver is running on the store"
        )


def _take_lock(handle: int, path: Path, store: Path) -> None:
    try:
        _try_lock(handle)
    except BlockingIOError:
        raise LockedError(
            f"{store} is in use by {_file_holder(path)}; wait until it ends, or stop "
            f"it: alloop stop {store}"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise StoreError(
                f"{path} cannot be locked ({error.strerror}); put the store on another "
                "disk"
            ) from error
        raise StoreError(
            f"the file system of {store} has no file locks ({error.strerror}); put the "
            "store on one that has"
        ) from error


def _try_lock(handle: int) -> None:
    """Take the lock; raise BlockingIOError if another process keeps it."""
    for attempt in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _write_signature(handle: int) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    # A full disk must not prevent locking: the signature only serves error messages.
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)


def _read_signature(handle: int) -> bytes:
    return os.pread(handle, 4096, 0)


def _file_holder(path: Path) -> Holder:
    try:
        return _parse_signature(path.read_bytes())
    except OSError:
        return _parse_signature(b"")


def _parse_signature(signature: bytes) -> Holder:
    try:
        holder: dict[str, Any] = json.loads(signature)
        pid, host, since = (
            int(holder["pid"]),
            str(holder["host"]),
            float(holder["since"]),
        )
    except (ValueError, KeyError, TypeError):
        return Holder(None, None, None, signature)
    return Holder(pid, host, since, signature)


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
