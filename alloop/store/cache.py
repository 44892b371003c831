"""A cache of labels by content, shared by campaigns: one file a label.

Many processes may read and write it at once. The key is the level and the frame's id,
so a label is found wherever the same frame was labelled at the same level before. A
file whose checksum fails counts as absent and is replaced.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from alloop.core.errors import DamagedError, StoreError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Unlabelled
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.files import (
    FileSystem,
    create_file,
    explain_errors,
    make_folders,
    refuse_link,
    replace_file,
)
from alloop.store.record import pack_record, unpack_record

Outcome: TypeAlias = Label | Unlabelled
_STAGING = "staging"
_ID = re.compile(r"[0-9A-Za-z_]+")  # of a level or a frame: no `/` or `..`


class LabelCache:
    """The labels in a folder, which is made when the first one is stored.

    Failures are stored as labels are; the caller decides which failures to store (a
    time limit's, for example, should not be). Every method raises StoreError if the
    folder cannot be used.
    """

    def __init__(self, folder: Path | str, files: FileSystem | None = None) -> None:
        self._folder = Path(folder)
        self._files = files or FileSystem()
        self._codec = Codec(())

    def get(self, level: LevelId, frame: FrameId) -> Outcome | None:
        """Return the label or the failure of a frame at a level; None if unknown."""
        path = self._path(level, frame)
        with explain_errors(path), contextlib.suppress(FileNotFoundError, DamagedError):
            outcome = self._decoded(path)
            if (outcome.level, outcome.frame) == (level, frame):
                return outcome
        return None

    def put(self, record: Outcome) -> None:
        """Store a label; one that is already there and undamaged stays as it is."""
        path = self._path(record.level, record.frame)
        staging = self._folder / _STAGING
        data = self._encoded(record)
        with explain_errors(path):
            make_folders(self._files, staging)
            make_folders(self._files, path.parent)
            try:
                create_file(self._files, path, data, staging)
            except FileExistsError:
                if self.get(record.level, record.frame) is None:
                    replace_file(self._files, path, data, staging)

    def discard(self, level: LevelId, frame: FrameId) -> None:
        """Remove a label, if it is there."""
        path = self._path(level, frame)
        with explain_errors(path):
            path.unlink(missing_ok=True)

    def _path(self, level: LevelId, frame: FrameId) -> Path:
        """Return the path of a label; raise StoreError if a link is on the way."""
        if not (_ID.fullmatch(level) and _ID.fullmatch(frame)):
            raise StoreError(f"expected ids of hexadecimal digits, got {level}/{frame}")
        path = self._folder / level / frame[:2] / frame
        for folder in (path.parents[1], path.parent, path, self._folder / _STAGING):
            refuse_link(folder)
        return path

    def _encoded(self, record: Outcome) -> bytes:
        encoded = self._codec.encode(record)
        header = {"versions": encoded.versions, "record": encoded.tree}
        return pack_record(header, encoded.arrays)

    def _decoded(self, path: Path) -> Outcome:
        header, arrays = unpack_record(path.read_bytes(), str(path))
        if not {"record", "versions"} <= header.keys():
            raise DamagedError(f"{path} holds no label")
        encoded = EncodedRecord(header["record"], tuple(arrays), (), header["versions"])
        outcome: Outcome = self._codec.decode(encoded)
        if not (isinstance(outcome, Unlabelled) or _is_label(outcome)):
            raise DamagedError(f"{path} holds no label")
        return outcome


def _is_label(record: object) -> bool:
    """Return True for a label of finite numbers, three forces an atom or none."""
    if not isinstance(record, Label) or record.forces.shape[1:] != (3,):
        return False
    return record.is_numeric


@dataclass(slots=True)
class TolerantCache:
    """A label cache that is used as long as it works; `warn` is called once on failure.

    After a failed write nothing more is written, after a failed read nothing more is
    read: the labels are computed again, with the same results.
    """

    cache: LabelCache
    warn: Callable[[str], None]
    _reads: bool = True
    _writes: bool = True
    _warned: bool = False

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record of a frame at a level, or None."""
        if not self._reads:
            return None
        try:
            return self.cache.get(level, frame)
        except StoreError as error:
            self._reads = False
            self._warn_once(error)
            return None

    def put(self, record: Label | Unlabelled) -> None:
        """Store a record, if that is possible."""
        if not self._writes:
            return
        try:
            self.cache.put(record)
        except StoreError as error:
            self._writes = False
            self._warn_once(error)

    def _warn_once(self, error: StoreError) -> None:
        if not self._warned:
            self.warn(f"the label cache is left aside until the next run: {error}")
        self._warned = True
