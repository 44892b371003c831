"""What is damaged in a store: its records, its models, its columns, to the byte."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from alloop.core.errors import StoreError
from alloop.store import root
from alloop.store.chunks import chunk_name
from alloop.store.codec import Codec
from alloop.store.columns import mark, names
from alloop.store.folds import FOLDS
from alloop.store.journal import FOLDER, Journal
from alloop.store.models import model_ids, read_model
from alloop.store.packs import read
from alloop.store.record import unpack
from alloop.store.schema import ATOM, VERSION, bounded, columns, mismatch

_CHUNKS = 32  # of an array, read at once
_JOURNAL = "restore it from a copy"
_INDEX = "nothing is lost, records are found without it"
_FOLD = "nothing is lost, it is made anew"
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
        *_packs(store),
        *_folds(store),
        *_models(store, shown),
        *_columns(store, shown),
    ]


def _journal(store: Path, codec: Codec) -> Iterator[Finding]:
    damaged = list(_records(Journal(store / FOLDER), codec))
    for seq, what in damaged:
        before = f"records 0 to {damaged[0][0] - 1} are whole and stay readable"
        saved = before if damaged[0][0] else "no record is before it"
        yield Finding(f"record {seq}", what, f"{_JOURNAL}; {saved}")


def _records(journal: Journal, codec: Codec) -> Iterator[tuple[int, str]]:
    found, seq = journal.listing(), 0
    gaps = set(found.missing())
    while seq <= found.last:
        try:
            for entry in journal.iterate(seq):
                codec.decode(entry.record)
                seq = entry.seq + 1
        except StoreError as error:
            yield seq, "it is missing" if seq in gaps else str(error)
            seq += 1


def _packs(store: Path) -> Iterator[Finding]:
    folder = store / FOLDER
    found = Journal(folder).listing()
    for span in (*found.packs, *found.tails):
        if read(folder, span).spoilt:
            what = "its index does not match its checksum"
            yield Finding(f"pack {span.name}", what, _INDEX)


def _folds(store: Path) -> Iterator[Finding]:
    for path in sorted((store / FOLDER / FOLDS).glob("*")):
        said = _trouble(unpack, path.read_bytes(), str(path))
        if said:
            yield Finding(f"fold {path.name}", said, _FOLD)


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
    group: Any = zarr.open_group(store, mode="r")
    for name in names(shown):
        if shown[name]["attributes"].get("schema") != VERSION:
            continue  # of another alloop: the next run makes them anew
        for what in _table(store, group, shown, name):
            yield Finding(name, what, _COLUMNS)


def _table(
    store: Path, group: Any, shown: dict[str, root.Node], name: str
) -> Iterator[str]:
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
        path = f"{name}/{key}"
        lost = [x for x in _chunks(nodes[key]) if not (store / path / x).is_file()]
        if lost:
            yield f"{path} lacks its chunk {lost[0]}"
        else:
            yield from _array(group[path], path, max(atoms, default=0))


def _array(array: Any, path: str, atoms: int) -> Iterator[str]:
    """What is wrong with an array; few of its rows are in memory at a time, but of
    offsets, which are read whole."""
    try:
        if path.endswith("/offsets"):
            if not bounded(np.asarray(array[:]), atoms):
                yield f"{path} does not fit the {atoms} atoms"
            return
        step = _CHUNKS * array.chunks[0]
        for first in range(0, array.shape[0], step):
            array[first : first + step]
    except (ValueError, RuntimeError) as error:
        yield f"{path} cannot be read ({error})"


def _chunks(node: root.Node) -> Iterator[str]:
    rows = node["chunk_grid"]["configuration"]["chunk_shape"][0]
    length, *tail = node["shape"]
    return (chunk_name(each, 1 + len(tail)) for each in range(-(-length // rows)))


def _trouble(attempt: Callable[..., object], *args: object) -> str:
    try:
        attempt(*args)
    except StoreError as error:
        return str(error)
    return ""
