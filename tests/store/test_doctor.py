"""Every kind of damage is found and named."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.core.errors import StoreError
from alloop.store import columns, schema
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.doctor import verify_store
from alloop.store.journal import FOLDER
from alloop.store.root import COPY, NODE_FILE, attributes_copy


@pytest.fixture
def store(archive: Archive, turn: Callable[[int], Any]) -> Path:
    """A store with five records, a model and two tables."""
    for i in range(5):
        archive.append(turn(i))
    archive.put_model("m", b"weights")
    archive.put_model("n", b"others")
    rows = 3
    labels = {
        key: np.zeros((rows, *column.tail))
        for key, column in schema.table_columns("labels/cheap").items()
    }
    labels |= {"offsets": np.array([0, 2, 2, 3]), "forces": np.ones((3, 3))}
    scores = {key: np.arange(rows) for key in schema.table_columns("scores")}
    made = {"labels/cheap": labels, "scores": scores}
    columns.fill_columns(archive, lambda _: made, 4)
    archive.close()
    return archive.path


def said(store: Path) -> list[str]:
    return [str(finding) for finding in verify_store(store, Codec([]))]


def test_a_whole_store_has_no_findings(store: Path) -> None:
    assert said(store) == []


def test_damaged_and_missing_records_are_named(store: Path, loosened: Any) -> None:
    loosened(store / "journal")
    (store / "journal" / "00000001").unlink()
    (store / "journal" / "00000003").write_bytes(b"")
    first, second = said(store)
    assert first.startswith("record 1: it is missing; `--repair OUT` makes")
    assert second.startswith("record 3: ")
    assert "does not match its checksum" in second


def test_damage_in_a_pack_is_named_to_the_record(store: Path) -> None:
    with Archive.open(store, Codec([]), "w") as archive:
        archive.seal()
    (pack,) = (store / "journal").glob("0*-0*")
    whole = pack.read_bytes()
    third = whole.index(b'{"seq":3')
    pack.write_bytes(whole[:third] + b"x" + whole[third + 1 :])
    (line,) = said(store)
    assert line.startswith("record 3: record 3 in")
    pack.write_bytes(whole[:20] + b"x" + whole[21:])
    (line,) = said(store)
    assert line.startswith("pack 00000000-00000004: its index does not match")
    assert "nothing is lost" in line
    pack.write_bytes(b"")
    assert [line.split(":")[0] for line in said(store)] == [
        "records 0 to 4",
        "pack 00000000-00000004",
    ]


def test_an_unknown_kind_of_record_is_named(archive: Archive, codec: Codec) -> None:
    from alloop.loop.commands import Stop

    archive.append(Stop("done"))
    assert verify_store(archive.path, codec) == []
    (finding,) = verify_store(archive.path, Codec([]))
    assert (finding.where, "upgrade alloop" in finding.what) == ("record 0", True)


def test_damaged_and_missing_models_are_named(store: Path) -> None:
    chunk = store / "models" / "m" / "c.0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    (store / "models" / "n").rename(store / "models" / "elsewhere")
    found = said(store)
    assert [line.split(":")[0] for line in found] == ["model m", "model n"]
    assert "trained again" in found[0]


@pytest.mark.parametrize("name", ["labels/cheap/forces", "scores/structure"])
def test_damaged_and_missing_chunks_are_named(store: Path, name: str) -> None:
    (chunk,) = (store / name).glob("c.0*")
    whole = chunk.read_bytes()
    chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert [line for line in said(store) if f"{name} cannot be read" in line]
    chunk.unlink()
    assert [line for line in said(store) if f"{name} lacks its chunk c.0" in line]


def edit(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = store / "zarr.json"
    node = json.loads(file.read_text())
    change(node["consolidated_metadata"]["metadata"])
    file.write_text(json.dumps(node))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.pop("scores/walker"), "it lacks walker"),
        (lambda m: m["scores/walker"].update(shape=[2]), "expected (3,)"),
        (
            lambda m: m["labels/cheap/forces"].update(shape=[2, 3]),
            "not fit the 2 atoms",
        ),
        (lambda m: m["scores"]["attributes"].update(mark=9), "journal ends at 4"),
    ],
    ids=["missing", "short", "offsets", "mark"],
)
def test_inconsistent_columns_are_named(store: Path, change: Any, what: str) -> None:
    edit(store, change)
    if what == "journal ends at 4":
        edit(store, lambda m: m["labels/cheap"]["attributes"].update(mark=9))
    (line,) = said(store)
    assert what in line
    assert "rebuilt from the journal" in line or "sets them aside" in line


def longer(whole: bytes, damaged: bytes) -> bool:
    """An array's own metadata may be ahead of what the root shows: a killed writer."""
    return json.loads(damaged)["shape"][0] > json.loads(whole)["shape"][0]


def test_any_flipped_bit_in_any_data_file_is_found(store: Path) -> None:
    rng = random.Random(0)
    files = [p for p in store.rglob("*") if p.is_file() and p.stat().st_size]
    data = [p for p in files if p.name != "lock"]
    for path in data:
        whole = path.read_bytes()
        bit = rng.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        assert said(store) or longer(whole, bytes(damaged)), f"bit {bit} of {path}"
        path.write_bytes(whole)


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not an alloop store"):
        verify_store(tmp_path, Codec([]))


def test_a_store_without_its_root_file_is_damaged_not_none(store: Path) -> None:
    assert attributes_copy(store) is not None
    (store / NODE_FILE).unlink()
    (found,) = verify_store(store, Codec([]))
    assert found.where == NODE_FILE
    assert "is missing" in found.what
    (store / FOLDER / COPY).unlink()  # nothing left that says what it was
    with pytest.raises(StoreError, match="is not an alloop store"):
        verify_store(store, Codec([]))
