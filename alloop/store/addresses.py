"""Addresses of stores, and the folders that hold what was fetched from them.

Commands import it where a path may be an address, so it imports nothing that is slow.
"""

import re
from pathlib import Path

from alloop.core.errors import InputError

# pathlib makes one slash of two.
_ADDRESS = re.compile(r"(https?|s3):/+([^/].*?)/*")
_addresses: dict[Path, str] = {}


def store_address(place: Path | str) -> str | None:
    """Return the address that a place is; None for a path."""
    match = _ADDRESS.fullmatch(str(place))
    return None if match is None else f"{match[1]}://{match[2]}"


def note_address(store: Path, address: str) -> None:
    """Note that a folder holds the store at an address."""
    _addresses[store] = address


def is_remote(store: Path) -> bool:
    """Return True if a store was fetched from an address."""
    return store in _addresses


def place_name(store: Path) -> str:
    """Return the address that a store was fetched from, otherwise its path."""
    return _addresses.get(store, str(store))


def named_places(text: str) -> str:
    """Return a text with addresses in place of the folders that hold their stores."""
    for store, address in _addresses.items():
        text = text.replace(str(store), address)
    return text


def refuse_remote(store: Path) -> None:
    """Raise InputError if a store, which is to be written to, is at an address."""
    if is_remote(store):
        raise InputError(
            f"{place_name(store)} is read only; bring the store here with `alloop copy "
            f"{place_name(store)} {store.name}` and use that"
        )
