"""Saved folds: states computed from the journal, so that a reader need not begin at 0.

`journal/folds/<name>` holds bytes, and the number of the last record that they cover.
It may be deleted at any time: a fold that is damaged, of another version of the code,
or from a journal that went on differently counts as absent.
"""

import re
from pathlib import Path

import numpy as np

from alloop.core.errors import StoreError
from alloop.store.files import FileSystem, make_folders, replace_file
from alloop.store.journal import FOLDER, Journal
from alloop.store.record import pack_record, unpack_record
from alloop.store.root import staging_folder

FOLDS = "folds"
_NAME = re.compile(r"[0-9A-Za-z_-]+")


def write_fold(
    store: Path, name: str, origin: tuple[str, int, str], blob: bytes, files: FileSystem
) -> None:
    """Save bytes durably, replacing older ones.

    origin: the version, the number of the last record covered, and its checksum.
    """
    path = _path(store, name)
    version, seq, digest = origin
    header = {"version": version, "seq": seq, "digest": digest}
    make_folders(files, path.parent)
    data = pack_record(header, [np.frombuffer(blob, np.uint8)])
    replace_file(files, path, data, staging_folder(store))


def read_fold(
    store: Path, name: str, version: str, journal: Journal
) -> tuple[int, bytes] | None:
    """Return the last record that a fold covers, and its bytes; None without one."""
    path = _path(store, name)
    try:
        header, (blob,) = unpack_record(path.read_bytes(), str(path))
        seq = int(header["seq"])
        if header["version"] != version or seq > journal.last():
            return None
        known = journal.read(seq).digest.hex()
    except (OSError, StoreError, KeyError, ValueError):
        return None
    return (seq, blob.tobytes()) if known == header["digest"] else None


def _path(store: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a fold's name is letters and digits, got {name!r}")
    return store / FOLDER / FOLDS / name
