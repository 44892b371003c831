"""Models as write-once bytes: `models/<id>`, a Zarr array that appears whole."""

import contextlib
import hashlib
import json
import re
import uuid
from pathlib import Path

import numpy as np

from alloop.core.errors import AlloopError, DamagedError, StoreError
from alloop.models.checkpoint import content_identity
from alloop.store.chunks import ArrayLayout, encode_chunks, read_array
from alloop.store.files import FileSystem
from alloop.store.root import MODELS, NODE_FILE, Node, dump_node, staging_folder

_CHUNK = 4 * 2**20  # bytes
_ID = re.compile(r"[0-9A-Za-z_-]+")
_HASH = re.compile(r"[0-9a-f]{32}")  # of `alloop.models.checkpoint.content_id`


def write_model(store: Path, model_id: str, blob: bytes, files: FileSystem) -> Node:
    """Store a model durably, unless the id exists; return the metadata of its array."""
    target = _model_folder(store, model_id)
    if not target.exists():
        _write_blob(store, target, blob, files)
    node: Node = json.loads((target / NODE_FILE).read_bytes())
    return node


def _write_blob(store: Path, target: Path, blob: bytes, files: FileSystem) -> None:
    digest = hashlib.sha256(blob).hexdigest()
    rows = min(_CHUNK, max(1, len(blob)))  # chunks are padded to full size
    layout = ArrayLayout(rows, ("byte",), False, {"sha256": digest})
    node, chunks = encode_chunks(np.frombuffer(blob, np.uint8), layout)
    folder = staging_folder(store) / uuid.uuid4().hex
    files.make(folder)
    for key, data in chunks.items():
        files.write(folder / key, data)
    files.write(folder / NODE_FILE, dump_node(node))
    files.sync(folder)
    files.replace(folder, target)
    files.sync(target.parent)


def read_model(store: Path, model_id: str) -> bytes:
    """Return the bytes of a model.

    Raises:
    ------
    StoreError
        There is no such model.
    DamagedError
        Its bytes are not those that were written, or they are another model's.
    """
    folder = _model_folder(store, model_id)
    if not folder.exists():
        raise StoreError(
            f"{store} holds no model {model_id}; it holds "
            f"{', '.join(model_ids(store)) or 'none'}"
        )
    try:
        node = json.loads((folder / NODE_FILE).read_bytes())
        blob = read_array(folder, node).astype(np.uint8).tobytes()
        intact = hashlib.sha256(blob).hexdigest() == node["attributes"]["sha256"]
    except (ValueError, KeyError, TypeError, RuntimeError, OSError):
        intact = False
    if not intact:
        raise DamagedError(
            f"model {model_id} in {folder} does not match its checksum; "
            "run `alloop doctor` on the store"
        )
    if _HASH.fullmatch(model_id):
        _refuse_another(folder, model_id, blob)
    return blob


def _refuse_another(folder: Path, model_id: str, blob: bytes) -> None:
    """Raise DamagedError if an id that is a content hash does not match the content."""
    content = "a file that is no model"
    with contextlib.suppress(AlloopError):
        content = f"model {content_identity(blob)}"
    if content != f"model {model_id}":
        raise DamagedError(
            f"expected model {model_id} in {folder}, got {content}; bring the right "
            "one back from a copy of the store, or go on from an earlier generation "
            "with `alloop fork STORE OUT --at GENERATION`"
        )


def model_ids(store: Path) -> tuple[str, ...]:
    """Return the ids of all models, sorted."""
    folder = store / MODELS
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))


def _model_folder(store: Path, model_id: str) -> Path:
    if not _ID.fullmatch(model_id):
        raise ValueError(f"a model's id is letters and digits, got {model_id!r}")
    return store / MODELS / model_id
