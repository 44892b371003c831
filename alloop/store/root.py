"""The root `zarr.json`: the attributes of a store, and the list of its visible arrays.

Its consolidated metadata lists the arrays and their lengths. It is replaced atomically,
so a reader that opens the store sees all arrays in the same state.
"""

import contextlib
import json
import shutil
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from alloop.core.errors import DamagedError, NewerStoreError, StoreError
from alloop.store.files import FileSystem, make_folders, remove_folders, replace_file
from alloop.store.journal import FOLDER, NODE, STAGING
from alloop.store.record import pack_record, unpack_record

FORMAT = 3  # 1 had no packs in its journal, 2 no tails
MODELS = "models"
COPY = "attributes"  # in the journal's folder
NODE_FILE = "zarr.json"
_FORMAT_KEY = "alloop_format"
_VERSION_KEY = "alloop_version"

Node: TypeAlias = dict[str, Any]


def group_node(attributes: Mapping[str, Any] | None = None) -> Node:
    """Return the metadata of a group."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes or {}),
    }


def dump_node(node: Node) -> bytes:
    """Return the bytes of a `zarr.json`."""
    return json.dumps(node, allow_nan=False, indent=1).encode()


def root_node(attributes: Mapping[str, Any], members: Mapping[str, Node]) -> Node:
    """Return the root node with the metadata of all its members, by path."""
    return {
        **group_node(attributes),
        "consolidated_metadata": _consolidated_metadata(members),
    }


def fresh_root(attributes: Mapping[str, Any], members: Mapping[str, Node]) -> Node:
    """Return the root node of a new store."""
    origin = {_FORMAT_KEY: FORMAT, _VERSION_KEY: version("alloop")}
    return root_node({**attributes, **origin}, members)


def read_root(store: Path) -> Node:
    """Return the root node of a store that this alloop can read.

    Raises:
    ------
    StoreError
        There is no store, or a newer alloop made it.
    DamagedError
        The file is lost, is not JSON, or lacks its attributes.
    """
    try:
        node: Node = json.loads((store / NODE_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if attributes_copy(store) is not None:
            raise DamagedError(
                f"{store / NODE_FILE} is missing; run `alloop doctor` on the store"
            ) from None
        there = "is not an alloop store" if store.exists() else "does not exist"
        raise StoreError(f"{store} {there}; give the path of a store") from None
    except ValueError as error:
        raise DamagedError(
            f"{store / NODE_FILE} is not JSON ({error}); "
            "run `alloop doctor` on the store"
        ) from error
    return _checked_root(node, store)


def _checked_root(node: Any, store: Path) -> Node:
    attributes = node.get("attributes") if isinstance(node, dict) else None
    number = attributes.get(_FORMAT_KEY) if isinstance(attributes, dict) else None
    if not isinstance(number, int) and attributes_copy(store) is not None:
        raise DamagedError(
            f"{store / NODE_FILE} does not say what it is; "
            "run `alloop doctor` on the store"
        )
    if not isinstance(number, int):
        raise StoreError(f"{store} is not an alloop store; give the path of a store")
    if number > FORMAT:
        raise NewerStoreError(
            f"{store} holds format {number}, this alloop reads up to {FORMAT}; "
            "upgrade alloop"
        )
    checked: Node = node
    return checked


def node_attributes(node: Node) -> dict[str, Any]:
    """Return the attributes of a root node."""
    return dict(node["attributes"])


def copy_bytes(node: Node) -> bytes:
    """Return the second copy of a root node's attributes, as bytes with a checksum."""
    return pack_record({"attributes": _own_attributes(node)}, ())


def write_copy(store: Path, files: FileSystem) -> None:
    """Write the second copy of the attributes, unless there is one."""
    if attributes_copy(store) is None:
        replace_file(
            files,
            store / FOLDER / COPY,
            copy_bytes(read_root(store)),
            staging_folder(store),
        )


def attributes_copy(store: Path) -> dict[str, Any] | None:
    """Return the attributes from their second copy; None if missing or damaged."""
    try:
        header, _ = unpack_record((store / FOLDER / COPY).read_bytes(), COPY)
    except (OSError, StoreError):
        return None
    return dict(header["attributes"])


def refuse_altered(store: Path, node: Node) -> None:
    """Raise DamagedError if the attributes differ from their second copy."""
    if attributes_copy(store) not in (None, _own_attributes(node)):
        raise DamagedError(
            f"the attributes in {store / NODE_FILE} are not those that were written; "
            "run `alloop doctor` on the store"
        )


def _own_attributes(node: Node) -> dict[str, Any]:
    return {k: v for k, v in node["attributes"].items() if k != _FORMAT_KEY}


def rescued_attributes(store: Path) -> dict[str, Any] | None:
    """Return the attributes of a store with a damaged root node, if they are readable.

    They precede the metadata of all arrays, which are most of the file.
    """
    try:
        text = (store / NODE_FILE).read_bytes().decode(errors="replace")
        _, _, rest = text.partition('"attributes":')
        attributes, _ = json.JSONDecoder().raw_decode(rest.strip())
    except (OSError, ValueError):
        attributes = None
    return attributes_copy(store) or (
        attributes if isinstance(attributes, dict) else None
    )


def node_members(node: Node) -> dict[str, Node]:
    """Return the metadata of all members of a root node, by path."""
    members = dict((node.get("consolidated_metadata") or {}).get("metadata", {}))
    return {path: _plain_node(member) for path, member in members.items()}


def publish_members(
    store: Path, present: Mapping[str, Node], files: FileSystem
) -> None:
    """Show exactly these members to readers from now on."""
    node = root_node(node_attributes(read_root(store)), present)
    replace_file(files, store / NODE_FILE, dump_node(node), staging_folder(store))


def upgrade_format(store: Path, files: FileSystem) -> None:
    """Mark a store of an older format as one that older alloops cannot read."""
    node = read_root(store)
    if node_attributes(node)[_FORMAT_KEY] < FORMAT:
        node["attributes"][_FORMAT_KEY] = FORMAT
        replace_file(files, store / NODE_FILE, dump_node(node), staging_folder(store))


def staging_folder(store: Path) -> Path:
    """Return the folder in which files are written before they get their names."""
    return store / FOLDER / STAGING


def _consolidated_metadata(members: Mapping[str, Node]) -> Node:
    nested = {"kind": "inline", "must_understand": False}
    empty = {**nested, "metadata": {}}
    inner = {
        path: {**node, "consolidated_metadata": empty}
        if node["node_type"] == "group"
        else node
        for path, node in sorted(members.items())
    }
    return {**nested, "metadata": inner}


def _plain_node(node: Node) -> Node:
    return {key: value for key, value in node.items() if key != "consolidated_metadata"}


def build_store(path: Path, attrs: dict[str, Any], files: FileSystem) -> None:
    """Build a store beside the path and move it there; on failure, leave nothing."""
    members = {FOLDER: NODE, MODELS: group_node()}
    with contextlib.ExitStack() as undo:
        undo.callback(remove_folders, make_folders(files, path.parent))
        growing = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        undo.callback(shutil.rmtree, growing, ignore_errors=True)
        files.make(growing)
        files.make(growing / FOLDER)
        files.make(growing / FOLDER / STAGING)
        files.make(growing / MODELS)
        for name, node in members.items():
            files.write(growing / name / NODE_FILE, dump_node(node))
        node = fresh_root(attrs, members)
        files.write(growing / FOLDER / COPY, copy_bytes(node))
        files.write(growing / NODE_FILE, dump_node(node))
        for folder in (FOLDER, MODELS, "."):
            files.sync(growing / folder)
        files.replace(growing, path)
        undo.callback(shutil.rmtree, path, ignore_errors=True)
        files.sync(path.parent)
        undo.pop_all()
