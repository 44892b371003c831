"""Stores at an address, `https://` or `s3://`, for reading.

A web server lists no folders. So `journal/packs` names the packs of the journal, and
the files that come after them have names that follow from the number of the next
record. The journal is brought into a temporary folder, which then reads as the store
does: every record is needed to fold it, and all checks are those of any store from
elsewhere. Models follow when they are asked for; columns are left out, since they hold
nothing that the journal lacks.

Credentials come from the environment alone, by the names of the AWS command line.
"""

import atexit
import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from alloop.core.errors import DamagedError, InputError, StoreError
from alloop.store import root
from alloop.store.addresses import note_address
from alloop.store.chunks import array_fault, chunk_name
from alloop.store.journal import FOLDER, PACKS
from alloop.store.packs import DIGITS, RecordSpan, tail_layout
from alloop.store.root import COPY, MODELS, NODE_FILE, Node, dump_node

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PACK = re.compile(rf"\d{{{DIGITS}}}-\d{{{DIGITS}}}")
_MODEL = re.compile(rf"{MODELS}/[0-9A-Za-z_-]+")
_CLIENT: dict[str, Any] = {
    "allow_http": True,
    "connect_timeout": "10s",
    "timeout": "300s",
}
_RETRY: dict[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
_LISTINGS = 3  # a live store may seal its journal between two reads


class _RemoteFolder:
    """The files beneath an address, read whole."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._store = _open_store(address)

    def read(self, key: str) -> bytes:
        """Return the bytes of a file; raise FileNotFoundError if there is none."""
        import obstore

        with _explain_refusal(self.address):
            return bytes(obstore.get(self._store, key).bytes())

    def read_if_there(self, key: str) -> bytes | None:
        """Return the bytes of a file, None if there is none."""
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; [] where that cannot be listed."""
        import obstore
        from obstore.exceptions import BaseError

        with contextlib.suppress(BaseError):
            objects = obstore.list_with_delimiter(self._store, folder)["objects"]
            return [item["path"].rpartition("/")[2] for item in objects]
        return []


_fetched: dict[Path, _RemoteFolder] = {}


def fetch_store(address: str) -> Path:
    """Return a temporary folder with the journal of a store; it is gone with Python.

    Raises:
    ------
    InputError
        The address has a user, a key or a query, or obstore is not installed.
    StoreError
        There is no store that this alloop reads, or it cannot be reached.
    """
    name = address.rpartition("/")[2]
    if re.search(r"[@?#]", address) or name in (".", ".."):
        raise InputError(
            "expected an address such as https://HOST/FOLDER or s3://BUCKET/FOLDER, "
            "without user, password, query or key; credentials come from the "
            "environment"
        )
    remote = _RemoteFolder(address)
    folder = Path(mkdtemp(prefix="alloop-store-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = folder / name
    try:
        models = _fetch_root(remote, store)
        _fetch_journal(remote, store / FOLDER)
        for model, node in models.items():
            _write_file(store / model / NODE_FILE, dump_node(node))
    except StoreError as error:
        raise type(error)(str(error).replace(str(store), address)) from error
    _fetched[store] = remote
    note_address(store, address)
    return store


def fetch_model(store: Path, model_id: str) -> None:
    """Fetch a model of a remote store; of other stores, and if it is there, nothing."""
    folder = store / MODELS / model_id
    if store not in _fetched or not (folder / NODE_FILE).is_file():
        return
    node = json.loads((folder / NODE_FILE).read_bytes())
    if array_fault(node) or len(node["shape"]) != 1:
        return  # told when it is opened
    (rows,), (chunk,) = (
        node["shape"],
        node["chunk_grid"]["configuration"]["chunk_shape"],
    )
    for index in range(math.ceil(rows / chunk)):
        name = chunk_name(index, 1)
        if not (folder / name).exists():
            data = _fetched[store].read_if_there(f"{MODELS}/{model_id}/{name}")
            if data is None:
                return
            _write_file(folder / name, data)


def _open_store(address: str) -> "ObjectStore":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise InputError(
            f"expected obstore, which reads {address}, it is not installed: "
            "pip install 'alloop[remote]'"
        ) from None
    try:
        store: ObjectStore = from_url(
            address, client_options=_CLIENT, retry_config=_RETRY
        )
    except (BaseError, ValueError) as error:
        raise InputError(
            f"{address} is no address of a store ({_reason(error)}); expected "
            "https://HOST/FOLDER or s3://BUCKET/FOLDER"
        ) from error
    return store


@contextlib.contextmanager
def _explain_refusal(address: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        hint = "the address and the network"
        if address.startswith("s3:"):
            hint += ", and the credentials in the environment (AWS_ACCESS_KEY_ID ...)"
        raise StoreError(
            f"{address} cannot be read ({_reason(error)}); check {hint}"
        ) from error


def _reason(error: Exception) -> str:
    """Return the end of an error's first line, which says what went wrong."""
    line = str(error).partition("\n")[0].strip()
    reason = line.rpartition(" - ")[2].partition(": <")[0]
    return reason.removesuffix(":").strip() or type(error).__name__


def _fetch_root(remote: _RemoteFolder, store: Path) -> dict[str, Node]:
    """Fetch the root node without its columns, and return its models."""
    data = remote.read_if_there(NODE_FILE)
    try:
        node: Any = json.loads(data or b"null")
    except ValueError:
        node = None
    if not isinstance(node, dict):
        raise StoreError(
            f"{remote.address} is not an alloop store; give the address of the folder "
            f"with its {NODE_FILE}"
        )
    _write_file(store / NODE_FILE, dump_node(node))
    try:
        members = root.node_members(root.read_root(store))
    except (AttributeError, TypeError) as error:
        raise DamagedError(f"{store / NODE_FILE} lists no members") from error
    models = {name: x for name, x in members.items() if _MODEL.fullmatch(name)}
    attributes = root.node_attributes(node)
    _write_file(store / NODE_FILE, dump_node(root.root_node(attributes, models)))
    (store / MODELS).mkdir()
    copy = remote.read_if_there(f"{FOLDER}/{COPY}")
    if copy is not None:
        _write_file(store / FOLDER / COPY, copy)
    return models


def _fetch_journal(remote: _RemoteFolder, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for _ in range(_LISTINGS):
        names = _pack_names(remote)
        with contextlib.suppress(FileNotFoundError):  # it was merged meanwhile
            for name in names:
                if not (folder / name).exists():
                    _write_file(folder / name, remote.read(f"{FOLDER}/{name}"))
            _fetch_rest(remote, folder, _first_loose(names))
            return
    raise DamagedError(
        f"{remote.address} lacks a pack that its journal lists; run `alloop doctor` on "
        "the store"
    )


def _pack_names(remote: _RemoteFolder) -> list[str]:
    """Return the packs of the journal, by its list or, in older stores, by listing."""
    data = remote.read_if_there(f"{FOLDER}/{PACKS}")
    try:
        names = remote.names(FOLDER) if data is None else json.loads(data)
        return sorted(name for name in names if _PACK.fullmatch(name))
    except (ValueError, TypeError):
        raise DamagedError(
            f"{remote.address}/{FOLDER}/{PACKS} is not a list of names; run `alloop "
            "resume` on the store, which writes it"
        ) from None


def _first_loose(names: list[str]) -> int:
    """Return the number of the first record that no pack holds."""
    return max((int(name.partition("-")[2]) + 1 for name in names), default=0)


def _fetch_rest(remote: _RemoteFolder, folder: Path, seq: int) -> None:
    """Fetch the tails and loose records from number `seq` on."""
    while True:
        tail = RecordSpan(seq, seq, True).name
        data = remote.read_if_there(f"{FOLDER}/{tail}")
        if data is not None:
            _write_file(folder / tail, data)
            seq += len(tail_layout(data, seq).cuts)
            continue
        loose = f"{seq:0{DIGITS}d}"
        data = remote.read_if_there(f"{FOLDER}/{loose}")
        if data is None:
            break
        _write_file(folder / loose, data)
        seq += 1
    if not seq:
        raise StoreError(
            f"{remote.address} has no list of its records, as alloop writes it now; "
            "run `alloop resume` or `alloop copy` on the store where it lies, and "
            "publish it again"
        )


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
