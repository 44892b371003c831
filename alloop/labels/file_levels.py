"""Files that are levels: named by their content, so that they may move."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError


def file_content(path: Path) -> str:
    """`sha256:` and 32 hexadecimal digits of a file's bytes; InputError without one."""
    try:
        with path.open("rb") as file:
            # The prefix also keeps YAML from reading 12e34 as a number.
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def unchanged_file(settings: Mapping[str, Any]) -> Path:
    """The file of a level; InputError where it is gone, or not the one it was."""
    path = Path(settings["path"])
    if file_content(path) != settings["content"]:
        raise InputError(
            f"{path} has changed since this level was described; bring the old file "
            "back, or begin another campaign with the new one"
        )
    return path
