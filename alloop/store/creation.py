"""Creation of a new store, which appears whole or not at all."""

import contextlib
import shutil
import uuid
from pathlib import Path
from typing import Any

from alloop.store import root
from alloop.store.files import FileSystem, make_folders, remove_folders
from alloop.store.journal import FOLDER, NODE, STAGING


def build_store(path: Path, attrs: dict[str, Any], files: FileSystem) -> None:
    """Build a store beside the path and move it there; on failure, leave nothing."""
    members = {FOLDER: NODE, root.MODELS: root.group_node()}
    with contextlib.ExitStack() as undo:
        undo.callback(remove_folders, make_folders(files, path.parent))
        growing = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        undo.callback(shutil.rmtree, growing, ignore_errors=True)
        files.make(growing)
        files.make(growing / FOLDER)
        files.make(growing / FOLDER / STAGING)
        files.make(growing / root.MODELS)
        for name, node in members.items():
            files.write(growing / name / root.NODE_FILE, root.dump_node(node))
        node = root.fresh_root(attrs, members)
        files.write(growing / FOLDER / root.COPY, root.copy_of(node))
        files.write(growing / root.NODE_FILE, root.dump_node(node))
        for folder in (FOLDER, root.MODELS, "."):
            files.sync(growing / folder)
        files.replace(growing, path)
        undo.callback(shutil.rmtree, path, ignore_errors=True)
        files.sync(path.parent)
        undo.pop_all()
