"""A model that a benchmark trains once and keeps in a file."""

from collections.abc import Callable
from pathlib import Path

from alloop.files.targets import replace_atomically
from alloop.models.checkpoint import (
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.potentials.restore import restore_potential
from benchmarks.common import show


def stored_model(file: Path, train: Callable[[], Storable]) -> Storable:
    """Return the model of a file, trained and written now where it is missing."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        found = train()
        with replace_atomically(file) as partial:
            partial.write_bytes(checkpoint_to_bytes(found.checkpoint()))
        show(f"trained {file.name}")
    return restore_potential(checkpoint_from_bytes(file.read_bytes()))
