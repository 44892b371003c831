"""What is damaged in a store: its records, its models, its columns, to the byte."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from alloop.core.errors import StoreError
from alloop.store import root
from alloop.store.codec import Codec
from alloop.store.columns import mark, names
from alloop.store.journal import FOLDER, Journal
from alloop.store.models import model_ids, read_model
from alloop.store.schema import ATOM, bounded, columns, mismatch

_JOURNAL = "restore it from a copy; what comes before it is whole"
_MODEL = "it can be trained again from the labels"
_COLUMNS = "nothing is lost, columns are rebuilt from the journal"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something damaged: where, what, and what can be saved, each for people."""

    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.advice}"


def verify(path: Path | str, codec: Codec) -> list[Finding]:
    """Check every byte of a store; an empty list if it is whole.

    Raises
    ------
    StoreError
        There is no store, or a newer alloop made it.
    """
    store = Path(path)
    shown = root.members(root.read(store))
    return [
        *_journal(store, codec),
        *_models(store, shown),
        *_columns(store, shown),
    ]


def _journal(store: Path, codec: Codec) -> Iterator[Finding]:
    journal = Journal(store / FOLDER)
    missing = set(journal.missing())
    for seq in range(journal.last() + 1):
        if seq in missing:
            yield Finding(f"record {seq}", "it is missing", _JOURNAL)
            continue
        said = _trouble(_decode, journal, codec, seq)
        if said:
            yield Finding(f"record {seq}", said, _JOURNAL)


def _decode(journal: Journal, codec: Codec, seq: int) -> None:
    codec.decode(journal.read(seq).record)


def _models(store: Path, shown: dict[str, root.Node]) -> Iterator[Finding]:
    listed = {p.rpartition("/")[2] for p in shown if p.startswith(f"{root.MODELS}/")}
    for each in sorted(listed | set(model_ids(store))):
        said = _trouble(read_model, store, each)
        if said:
            yield Finding(f"model {each}", said, _MODEL)


def _columns(store: Path, shown: dict[str, root.Node]) -> Iterator[Finding]:
    last = Journal(store / FOLDER).last()
    if mark(store) > last:
        what = f"they hold record {mark(store)}, the journal ends at {last}"
        yield Finding("columns", what, _COLUMNS)
    for name in names(shown):
        for what in _table(store, shown, name):
            yield Finding(name, what, _COLUMNS)


def _table(store: Path, shown: dict[str, root.Node], name: str) -> Iterator[str]:
    wanted = columns(name)
    absent = [key for key in wanted if f"{name}/{key}" not in shown]
    if absent:
        yield f"it lacks {', '.join(absent)}"
        return
    nodes = {key: shown[f"{name}/{key}"] for key in wanted}
    fault = mismatch(name, {key: tuple(node["shape"]) for key, node in nodes.items()})
    if fault:
        yield fault
        return
    atoms = {nodes[key]["shape"][0] for key, c in wanted.items() if c.along == ATOM}
    for key in wanted:
        yield from _array(store, f"{name}/{key}", nodes[key], max(atoms, default=0))


def _array(store: Path, path: str, node: root.Node, atoms: int) -> Iterator[str]:
    lost = [name for name in _chunks(node) if not (store / path / name).is_file()]
    if lost:
        yield f"{path} lacks its chunk {lost[0]}"
        return
    try:
        root_group: Any = zarr.open_group(store, mode="r")
        values = np.asarray(root_group[path][:])
    except (ValueError, RuntimeError) as error:
        yield f"{path} cannot be read ({error})"
        return
    if path.endswith("/offsets") and not bounded(values, atoms):
        yield f"{path} does not fit the {atoms} atoms"


def _chunks(node: root.Node) -> Iterator[str]:
    rows = node["chunk_grid"]["configuration"]["chunk_shape"][0]
    tail = ".0" * (len(node["shape"]) - 1)
    return (f"c.{index}{tail}" for index in range(-(-node["shape"][0] // rows)))


def _trouble(attempt: Callable[..., object], *args: object) -> str:
    try:
        attempt(*args)
    except StoreError as error:
        return str(error)
    return ""
