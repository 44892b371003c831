"""Saved folds: states computed from the journal, so that a reader need not begin at 0.

`journal/folds/<name>` holds bytes, and the number of the last record that they cover.
It may be deleted at any time: a fold that is damaged, of another version of the code,
or from a journal that went on differently counts as absent.

Nothing in a store proves that a fold is what its journal gives, so a fold is believed
only by the user who saved it: it is sealed with a key that lies in a private folder of
that user, outside the store. One that came with a store from elsewhere is made anew.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

import numpy as np

from alloop.core.errors import StoreError
from alloop.models.private_folder import own_folder
from alloop.store.files import FileSystem, make_folders, replace_file
from alloop.store.journal import FOLDER, Journal
from alloop.store.record import pack_record, unpack_record
from alloop.store.root import staging_folder

FOLDS = "folds"
_NAME = re.compile(r"[0-9A-Za-z_-]+")
_KEY, _KEY_BYTES = "fold-key", 32


def write_fold(
    store: Path, name: str, origin: tuple[str, int, str], blob: bytes, files: FileSystem
) -> None:
    """Save bytes durably, replacing older ones; nothing without a private folder.

    origin: the version, the number of the last record covered, and the journal's
    fingerprint up to there.
    """
    path, seal = _path(store, name), _fold_seal(origin, blob)
    if not seal:
        return
    version, seq, digest = origin
    header = {"version": version, "seq": seq, "digest": digest, "seal": seal}
    make_folders(files, path.parent)
    data = pack_record(header, [np.frombuffer(blob, np.uint8)])
    replace_file(files, path, data, staging_folder(store))


def read_fold(
    store: Path, name: str, version: str, journal: Journal, *, foreign: bool = False
) -> tuple[int, bytes] | None:
    """Return the last record that a fold covers, and its bytes; None without one.

    foreign: whoever saved it; its bytes may then be anything.
    """
    path = _path(store, name)
    try:
        header, (array,) = unpack_record(path.read_bytes(), str(path))
        seq, digest, blob = int(header["seq"]), header["digest"], array.tobytes()
        if header["version"] != version or seq > journal.last():
            return None
        seal = _fold_seal((version, seq, digest), blob)
        trusted = bool(seal) and hmac.compare_digest(str(header["seal"]), seal)
        if not (trusted or foreign) or journal.fingerprint(seq) != digest:
            return None
    except (OSError, StoreError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return seq, blob


def _fold_seal(origin: tuple[str, int, str], blob: bytes) -> str:
    """Return the seal that the user's key puts on a fold, "" without a key."""
    key = _private_key()
    if key is None:
        return ""
    text = "\n".join(map(str, (*origin, hashlib.sha256(blob).hexdigest())))
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _private_key() -> bytes | None:
    """Return the user's key, made where there is none; None where that is impossible.

    It lies in `$XDG_STATE_HOME/alloop`, by default `~/.local/state/alloop`.
    """
    try:
        place = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(place) / "alloop"
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = own_folder(folder) / _KEY
        if not path.exists():
            _write_key(path)
        return _read_key(path)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None


def _write_key(path: Path) -> None:
    """Make a key that appears whole; another process may be faster."""
    temporary = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink()


def _read_key(path: Path) -> bytes | None:
    """Return the key unless somebody else could have read or written it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        status = os.fstat(handle)
        private = (
            status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o77
        )
        key = os.read(handle, _KEY_BYTES + 1)
    finally:
        os.close(handle)
    return key if private and len(key) == _KEY_BYTES else None


def _path(store: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a fold's name is letters and digits, got {name!r}")
    return store / FOLDER / FOLDS / name
