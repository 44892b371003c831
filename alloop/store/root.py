"""The root `zarr.json`: what the store is, and the one switch that shows its columns.

Its consolidated metadata says which arrays there are and how long they are. It is
replaced atomically, so whoever opens the store sees all arrays of one moment.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from alloop.core.errors import DamagedError, StoreError
from alloop.store.files import Files, put
from alloop.store.journal import FOLDER, STAGING
from alloop.store.record import pack, unpack

FORMAT = 3  # 1 had no packs in its journal, 2 no tails
MODELS = "models"
COPY = "attributes"  # in the journal's folder
NODE_FILE = "zarr.json"
_FORMAT_KEY = "alloop_format"
_VERSION_KEY = "alloop_version"

Node: TypeAlias = dict[str, Any]


def group(attributes: Mapping[str, Any] | None = None) -> Node:
    """The metadata of a group."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes or {}),
    }


def dump(node: Node) -> bytes:
    """The bytes of a `zarr.json`."""
    return json.dumps(node, allow_nan=False, indent=1).encode()


def root(attributes: Mapping[str, Any], members: Mapping[str, Node]) -> Node:
    """The root node with the metadata of all its members, by path."""
    return {**group(attributes), "consolidated_metadata": _consolidated(members)}


def fresh(attributes: Mapping[str, Any], members: Mapping[str, Node]) -> Node:
    """The root node of a new store."""
    own = {_FORMAT_KEY: FORMAT, _VERSION_KEY: version("alloop")}
    return root({**attributes, **own}, members)


def read(store: Path) -> Node:
    """The root node of a store that this alloop can read.

    Raises
    ------
    StoreError
        There is no store, or a newer alloop made it.
    """
    try:
        node: Node = json.loads((store / NODE_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        there = "is not an alloop store" if store.exists() else "does not exist"
        raise StoreError(f"{store} {there}; give the path of a store") from None
    except ValueError as error:
        raise DamagedError(
            f"{store / NODE_FILE} is not JSON ({error}); "
            "run `alloop doctor` on the store"
        ) from error
    return _checked(node, store)


def _checked(node: Any, store: Path) -> Node:
    said = node.get("attributes") if isinstance(node, dict) else None
    found = said.get(_FORMAT_KEY) if isinstance(said, dict) else None
    if not isinstance(found, int) and copied(store) is not None:
        raise DamagedError(
            f"{store / NODE_FILE} does not say what it is; "
            "run `alloop doctor` on the store"
        )
    if not isinstance(found, int):
        raise StoreError(f"{store} is not an alloop store; give the path of a store")
    if found > FORMAT:
        raise StoreError(
            f"{store} holds format {found}, this alloop reads up to {FORMAT}; "
            "upgrade alloop"
        )
    checked: Node = node
    return checked


def attributes(node: Node) -> dict[str, Any]:
    """The attributes of a root node."""
    return dict(node["attributes"])


def copy_of(node: Node) -> bytes:
    """The attributes of a root node as the bytes of their copy, with a checksum."""
    return pack({"attributes": _own(node)}, ())


def keep_copy(store: Path, files: Files) -> None:
    """Keep the attributes a second time, where that is not done."""
    if copied(store) is None:
        put(files, store / FOLDER / COPY, copy_of(read(store)), staging(store))


def copied(store: Path) -> dict[str, Any] | None:
    """The attributes from their copy; None where there is none, or none whole."""
    try:
        header, _ = unpack((store / FOLDER / COPY).read_bytes(), COPY)
    except (OSError, StoreError):
        return None
    return dict(header["attributes"])


def refuse_altered(store: Path, node: Node) -> None:
    """DamagedError where the attributes are not those of their copy."""
    if copied(store) not in (None, _own(node)):
        raise DamagedError(
            f"the attributes in {store / NODE_FILE} are not those that were written; "
            "run `alloop doctor` on the store"
        )


def _own(node: Node) -> dict[str, Any]:
    return {k: v for k, v in node["attributes"].items() if k != _FORMAT_KEY}


def rescued(store: Path) -> dict[str, Any] | None:
    """The attributes of a store whose root node is damaged, as far as they are whole.

    They stand before the metadata of all arrays, which are most of the file.
    """
    try:
        text = (store / NODE_FILE).read_bytes().decode(errors="replace")
        _, _, rest = text.partition('"attributes":')
        said, _ = json.JSONDecoder().raw_decode(rest.strip())
    except (OSError, ValueError):
        said = None
    return copied(store) or (said if isinstance(said, dict) else None)


def members(node: Node) -> dict[str, Node]:
    """The metadata of all members of a root node, by path."""
    found = dict((node.get("consolidated_metadata") or {}).get("metadata", {}))
    return {path: _plain(member) for path, member in found.items()}


def publish(store: Path, present: Mapping[str, Node], files: Files) -> None:
    """Show exactly these members from now on."""
    node = root(attributes(read(store)), present)
    put(files, store / NODE_FILE, dump(node), staging(store))


def upgrade(store: Path, files: Files) -> None:
    """Mark a store of an older format as one that older alloops cannot read."""
    node = read(store)
    if attributes(node)[_FORMAT_KEY] < FORMAT:
        node["attributes"][_FORMAT_KEY] = FORMAT
        put(files, store / NODE_FILE, dump(node), staging(store))


def staging(store: Path) -> Path:
    """Where files grow up before they get their names."""
    return store / FOLDER / STAGING


def _consolidated(members: Mapping[str, Node]) -> Node:
    nested = {"kind": "inline", "must_understand": False}
    empty = {**nested, "metadata": {}}
    inner = {
        path: {**node, "consolidated_metadata": empty}
        if node["node_type"] == "group"
        else node
        for path, node in sorted(members.items())
    }
    return {**nested, "metadata": inner}


def _plain(node: Node) -> Node:
    return {key: value for key, value in node.items() if key != "consolidated_metadata"}
