"""Claims on labels: runs that share a label cache never compute the same label at once.

A run has a file `claims/ID` in the cache, which the kernel locks as long as it lives. A
line `+LEVEL/FRAME` claims a label, `-LEVEL/FRAME` gives it back, done or not. The file
of a run that was killed is not locked, claims nothing, and is removed by whoever looks.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from alloop.core.errors import StoreError
from alloop.store.files import FileSystem, explain_errors, make_folders
from alloop.store.lock import close_handle, keep_handle

LabelKey: TypeAlias = tuple[str, str]  # level and frame
_FOLDER, _DOOR = "claims", "door"
_SAFE = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_PATIENCE, _PAUSE = 5.0, 0.005  # s: whoever holds the door only reads and appends


class LabelClaims:
    """The claims of one run in a label cache's folder; a context manager.

    warn: called once if claims do not work there, such as on a file system without
    locks; every label may be computed from then on.
    """

    def __init__(self, cache: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = cache / _FOLDER, warn
        self._path = self._folder / uuid.uuid4().hex
        self._handle: int | None = None
        self._keys: set[LabelKey] = set()
        self._works = True

    def take(self, keys: Collection[LabelKey]) -> set[LabelKey]:
        """Return those of these labels that no other run computes; they are claimed."""
        if not (self._works and keys):
            return set(keys)
        with self._tolerance():
            self._open()
            with _door(self._folder):
                free = set(keys) - self._others()
                self._write("+", free - self._keys)
            self._keys |= free
            keys = free
        return set(keys)

    def release(self, key: LabelKey) -> None:
        """Give a label back, whose answer the cache has, or which has none."""
        if key in self._keys:
            self._keys.discard(key)
            with self._tolerance():
                self._write("-", {key})

    def close(self) -> None:
        """Give all labels back."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            close_handle(self._handle)
            self._handle = None

    def __enter__(self) -> "LabelClaims":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _tolerance(self) -> Iterator[None]:
        try:
            with explain_errors(self._folder):
                yield
        except StoreError as error:
            self._works = False
            if self._folder.is_dir():  # otherwise the cache tells
                self._warn(
                    "labels that another campaign computes now may be made twice: "
                    f"{error}"
                )

    def _open(self) -> None:
        if self._handle is None:
            make_folders(FileSystem(), self._folder)
            with _door(self._folder):
                handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | _SAFE, 0o666)
                keep_handle(handle)
                self._handle = handle
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _write(self, sign: str, keys: set[LabelKey]) -> None:
        if keys and self._handle is not None:
            lines = "".join(f"{sign}{level}/{frame}\n" for level, frame in sorted(keys))
            os.write(self._handle, lines.encode())

    def _others(self) -> set[LabelKey]:
        """Return what the other runs claim; remove the files of dead ones."""
        claims: set[LabelKey] = set()
        for path in self._folder.iterdir():
            if path.name not in (_DOOR, self._path.name):
                claims |= _live_claims(path)
        return claims


@contextlib.contextmanager
def _door(folder: Path) -> Iterator[None]:
    """Let one run at a time look at the claims and add its own."""
    handle = os.open(folder / _DOOR, os.O_RDWR | _SAFE, 0o666)
    keep_handle(handle)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
            else:
                break
        yield
    finally:
        close_handle(handle)


def _live_claims(path: Path) -> set[LabelKey]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return set()
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse_claims(path.read_text(errors="replace"))
    finally:
        os.close(handle)
    path.unlink(missing_ok=True)
    return set()


def _parse_claims(text: str) -> set[LabelKey]:
    claims: set[LabelKey] = set()
    for line in text.splitlines():
        level, _, frame = line[1:].partition("/")
        if line.startswith("+"):
            claims.add((level, frame))
        else:
            claims.discard((level, frame))
    return claims
