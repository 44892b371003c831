"""A check of every byte of a store: its records, its models and its columns."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from alloop.core.errors import DamagedError, NewerStoreError, StoreError
from alloop.store import root
from alloop.store.chunks import chunk_name, open_array
from alloop.store.codec import Codec
from alloop.store.column_changes import MARK, RECORD
from alloop.store.columns import table_names
from alloop.store.files import find_links
from alloop.store.fold_file import FOLDS
from alloop.store.journal import FOLDER, Journal
from alloop.store.models import model_ids, read_model
from alloop.store.packs import read_pack
from alloop.store.record import unpack_record
from alloop.store.schema import (
    ATOM,
    TABLES,
    VERSION,
    offsets_fit,
    shape_mismatch,
    table_columns,
)
from alloop.store.set_aside import foreign_record, set_aside_folders

_CHUNKS = 32  # of an array, read at once
_LINK = "put the file itself in its place, or remove it"
_INDEX = "nothing is lost, records are found without it"
_FOLD = "nothing is lost, it is made anew"
_MODEL = "it can be trained again from the labels"
_BEYOND = "the next run sets them aside; `--repair OUT` makes a store with their labels"
_PART = "`--repair OUT` makes a store with their labels, else remove it"
_NEWER = "it is whole, and a repair would lose it"
_REPAIR = "`--repair OUT` makes a new store of all that is whole"
_GROWING = {MARK, RECORD, "rows"}
_COLUMNS = "nothing is lost, columns are rebuilt from the journal"


@dataclass(frozen=True, slots=True)
class DamageReport:
    """One finding of damage: where, what, and what can be saved, all for people."""

    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.advice}"


def verify_store(path: Path | str, codec: Codec) -> list[DamageReport]:
    """Check every byte of a store; return an empty list if it is undamaged.

    Raises:
    ------
    StoreError
        There is no store, or a newer alloop made it.
    """
    store = Path(path)
    if not (store / root.NODE_FILE).is_symlink():
        try:
            root.read_root(store)
        except DamagedError as error:
            return [DamageReport(root.NODE_FILE, str(error), _REPAIR)]
    led_out = [
        DamageReport(str(x), f"it is {kind}", _LINK) for x, kind in find_links(store)
    ]
    if led_out:  # nothing is read through links
        return led_out
    members = root.node_members(root.read_root(store))
    models, arrays = (
        list(_model_damage(store, members)),
        list(_column_damage(store, members)),
    )
    others = {  # each path is reported once
        path: node
        for path, node in members.items()
        if not (arrays if _is_column(path) else models)
    }
    return [
        *_journal_damage(store, codec),
        *_pack_damage(store),
        *_fold_damage(store),
        *models,
        *_attribute_damage(store),
        *_metadata_damage(store, others),
        *arrays,
    ]


def _journal_damage(store: Path, codec: Codec) -> Iterator[DamageReport]:
    unread = list(_unread_records(Journal(store / FOLDER), codec))
    for newer, advice in ((True, _NEWER), (False, _REPAIR)):
        texts = [
            (seq, str(error))
            for seq, error in unread
            if isinstance(error, NewerStoreError) == newer
        ]
        for run in consecutive_runs(texts):
            (first, what), (last, _) = run[0], run[-1]
            where = f"record {first}" if first == last else f"records {first} to {last}"
            yield DamageReport(where, what, advice)


def consecutive_runs(
    damaged: Sequence[tuple[int, str]],
) -> Iterator[list[tuple[int, str]]]:
    """Group damaged records with consecutive numbers."""
    numbered = groupby(enumerate(damaged), lambda item: item[1][0] - item[0])
    return ([damage for _, damage in group] for _, group in numbered)


def _unread_records(journal: Journal, codec: Codec) -> Iterator[tuple[int, StoreError]]:
    for seq, entry in journal.survey():
        try:
            if isinstance(entry, StoreError):
                raise entry
            codec.decode(entry.record)
        except StoreError as error:
            yield seq, error


def _pack_damage(store: Path) -> Iterator[DamageReport]:
    folder = store / FOLDER
    listing = Journal(folder).listing()
    for span in (*listing.packs, *listing.tails):
        if read_pack(folder, span).spoilt:
            what = "its index does not match its checksum"
            yield DamageReport(f"pack {span.name}", what, _INDEX)


def _fold_damage(store: Path) -> Iterator[DamageReport]:
    for path in sorted((store / FOLDER / FOLDS).glob("*")):
        fault = _error_text(unpack_record, path.read_bytes(), str(path))
        if fault:
            yield DamageReport(f"fold {path.name}", fault, _FOLD)


def _model_damage(store: Path, members: dict[str, root.Node]) -> Iterator[DamageReport]:
    listed = {p.rpartition("/")[2] for p in members if p.startswith(f"{root.MODELS}/")}
    for model_id in sorted(listed | set(model_ids(store))):
        fault = _error_text(read_model, store, model_id)
        if fault:
            yield DamageReport(f"model {model_id}", fault, _MODEL)


def _attribute_damage(store: Path) -> Iterator[DamageReport]:
    """Check the store's attributes and their second copy, which older stores lack."""
    node, copy = root.read_root(store), root.attributes_copy(store)
    there = (store / FOLDER / root.COPY).exists()
    if there and copy is None:
        yield DamageReport(
            "attributes", "their copy does not match its checksum", _FOLD
        )
    elif altered := _error_text(root.refuse_altered, store, node):
        yield DamageReport("attributes", altered, _REPAIR)
    if node != root.root_node(node["attributes"], root.node_members(node)):
        yield DamageReport(root.NODE_FILE, "it is not as alloop writes it", _REPAIR)


def _metadata_damage(
    store: Path, members: dict[str, root.Node]
) -> Iterator[DamageReport]:
    """Compare the metadata of every array and group with what the root has of them."""
    for path, node in members.items():
        try:
            metadata = json.loads((store / path / root.NODE_FILE).read_bytes())
            same = _comparable_node(metadata) == _comparable_node(
                node
            ) and _node_length(metadata) >= _node_length(node)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            same = False
        if not same:
            what = "its metadata are not what the store shows of it"
            yield DamageReport(path, what, _COLUMNS if _is_column(path) else _REPAIR)


def _is_column(path: str) -> bool:
    return path.split("/")[0] in TABLES


def _comparable_node(node: root.Node) -> root.Node:
    """Return metadata without the parts that a writer that died may have advanced."""
    attributes = {k: v for k, v in node["attributes"].items() if k not in _GROWING}
    shape = node.get("shape", [])[1:]
    return {**node, "attributes": attributes, "shape": shape}


def _node_length(node: root.Node) -> int:
    """Return the length of an array, or the last record of a table."""
    return int(node["shape"][0] if "shape" in node else node["attributes"].get(MARK, 0))


def _column_damage(
    store: Path, members: dict[str, root.Node]
) -> Iterator[DamageReport]:
    journal = Journal(store / FOLDER)
    beyond = foreign_record(members, journal)
    if beyond >= 0:
        what = f"they hold record {beyond}, the journal ends at {journal.last()}"
        if beyond <= journal.last():
            what = f"they hold another record {beyond} than the journal does"
        yield DamageReport("columns", what, _BEYOND)
    for part in set_aside_folders(store):
        what = "columns of a journal that lost its end were set aside there"
        yield DamageReport(part.name, what, _PART)
    for name in table_names(members):
        if members[name]["attributes"].get("schema") != VERSION:
            continue  # of another version: the next run rebuilds them
        for what in _table_faults(store, members, name):
            yield DamageReport(name, what, _COLUMNS)


def _table_faults(
    store: Path, members: dict[str, root.Node], name: str
) -> Iterator[str]:
    columns = table_columns(name)
    absent = [key for key in columns if f"{name}/{key}" not in members]
    if absent:
        yield f"it lacks {', '.join(absent)}"
        return
    nodes = {key: members[f"{name}/{key}"] for key in columns}
    fault = shape_mismatch(
        name, {key: tuple(node["shape"]) for key, node in nodes.items()}
    )
    if fault:
        yield fault
        return
    atoms = {nodes[key]["shape"][0] for key, c in columns.items() if c.along == ATOM}
    for key in columns:
        yield from _array_faults(
            store, f"{name}/{key}", nodes[key], max(atoms, default=0)
        )


def _array_faults(store: Path, path: str, node: root.Node, atoms: int) -> Iterator[str]:
    """Check an array, with few of its rows in memory at a time.

    Offsets are read whole.
    """
    folder = store / path
    try:
        array = open_array(folder, node)
        lost = (x for x in _chunk_names(node) if not (folder / x).is_file())
        if first_lost := next(lost, ""):
            yield f"{path} lacks its chunk {first_lost}"
            return
        if path.endswith("/offsets"):
            if not offsets_fit(np.asarray(array[:]), atoms):
                yield f"{path} does not fit the {atoms} atoms"
            return
        step = _CHUNKS * array.chunks[0]
        for first in range(0, array.shape[0], step):
            array[first : first + step]
    except (OSError, ValueError, RuntimeError) as error:
        yield f"{path} cannot be read ({error})"


def _chunk_names(node: root.Node) -> Iterator[str]:
    rows = node["chunk_grid"]["configuration"]["chunk_shape"][0]
    length, *tail = node["shape"]
    return (chunk_name(index, 1 + len(tail)) for index in range(-(-length // rows)))


def _error_text(attempt: Callable[..., object], *args: object) -> str:
    try:
        attempt(*args)
    except (StoreError, ValueError) as error:  # ValueError: an invalid id
        return str(error)
    return ""
