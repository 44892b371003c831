"""Files that define a level, identified by a hash of their content, not their path."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError


def file_content(path: Path) -> str:
    """Return `sha256:` and 32 hexadecimal digits of the hash of a file's bytes.

    Raises InputError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # The prefix also keeps YAML from reading 12e34 as a number.
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def unchanged_file(settings: Mapping[str, Any]) -> Path:
    """Return the file of a level; InputError if it is missing or has changed."""
    path = Path(settings["path"])
    if file_content(path) != settings["content"]:
        raise InputError(
            f"{path} has changed since this level was described; bring the old file "
            "back, or begin another campaign with the new one"
        )
    return path
