"""Records with right checksums and wrong content: a sentence, never a traceback.

Every byte of a store may come from a stranger, who can compute a checksum.
"""

import copy
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alloop.cli.app import run_command
from alloop.cli.exits import DAMAGED, MISTAKE
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.packs import frame_record
from alloop.store.record import pack_record
from tests.store.test_golden import GOLDEN

SMALL = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**30, 1.5, float("nan"), 1e300, "", "x", "0" * 32),
    *([], {}, [1], {"a": 1}, {"#": "Label"}, {"#": "Nothing"}, {"#float": "x"}),
    *({"#array": 99}, {"#frame": 99}, {"#enum": ["Failure", "X"]}, {"#enum": 1}),
    *({"#map": {"a": 1}}, {"#map": [1]}, {"#list": [1]}, "\ud800"),
    {"#": "Stop", "reason": "x", "broken": False},
)
ARRAYS = (
    np.zeros(0),
    np.zeros((2, 2)),
    np.zeros(3, "i8"),
    np.full((3, 3), np.nan),
    np.full((1, 3, 3), 1e300),
)


class Forged:
    """A store whose records may be changed before they are written anew."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        self.entries = [
            entry
            for _, entry in Journal(whole / FOLDER).survey()
            if isinstance(entry, RawEntry)
        ]

    def record(self, seq: int) -> tuple[dict[str, Any], list[Any]]:
        """The header and the arrays of a record, to be changed."""
        entry = self.entries[seq]
        header = {
            "seq": seq,
            "time": entry.time,
            "versions": dict(entry.record.versions),
            "frames": list(entry.record.frames),
            "record": copy.deepcopy(entry.record.tree),
        }
        return header, list(entry.record.arrays)

    def write(self, store: Path, changed: int, header: Any, arrays: list[Any]) -> None:
        """Write the store with one record changed, and all checksums right."""
        shutil.copytree(
            self.whole, store, ignore=shutil.ignore_patterns("folds", "0*-*")
        )
        data = b""
        for seq in range(len(self.entries)):
            parts = (header, arrays) if seq == changed else self.record(seq)
            data += frame_record(seq, pack_record(*parts))
        (store / FOLDER / "00000000-").write_bytes(data)


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forged:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "format3.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return Forged(folder / "format3.zarr")


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else ()
    for key, value in items or (enumerate(tree) if isinstance(tree, list) else ()):
        yield from places(value, (*path, key))


def changed_tree(tree: Any, path: tuple[Any, ...], value: Any, drop: bool) -> Any:
    if not path:
        return value
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if drop:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


@st.composite
def changes(draw: st.DrawFn, forged: Forged) -> tuple[int, dict[str, Any], list[Any]]:
    """A record with one wrong value: in its content, its header or its arrays."""
    seq = draw(st.integers(0, len(forged.entries) - 1))
    header, arrays = forged.record(seq)
    kind = draw(st.sampled_from(["content"] * 7 + ["header", "array", "other"]))
    if kind == "header":
        header[draw(st.sampled_from(sorted(header)))] = draw(st.sampled_from(WRONG))
    elif kind == "array" and arrays:
        place = draw(st.integers(0, len(arrays) - 1))
        choices = (*ARRAYS, arrays[place][:1], -1 * arrays[place], 7 * arrays[place])
        arrays[place] = draw(st.sampled_from(choices))
    elif kind == "other":
        other, arrays = forged.record(draw(st.integers(0, len(forged.entries) - 1)))
        header = {**other, "seq": seq}
    else:
        path = draw(st.sampled_from(list(places(header["record"]))))
        value = copy.deepcopy(draw(st.sampled_from(WRONG)))
        drop = draw(st.booleans()) and draw(st.booleans())
        header["record"] = changed_tree(header["record"], path, value, drop)
    return seq, header, arrays


def survive(
    forged: Forged,
    folder: Path,
    change: tuple[int, dict[str, Any], list[Any]],
    commands: tuple[tuple[str, ...], ...],
) -> None:
    """Each command ends with an exit code; a traceback would be an exception here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        forged.write(folder / "s.zarr", *change)
    except (TypeError, ValueError, UnicodeError):
        return  # cannot be written as a record at all
    words = {"STORE": str(folder / "s.zarr"), "OUT": str(folder / "out.zarr")}
    for command in commands:
        code = run_command([words.get(word, word) for word in command])
        assert code in (0, MISTAKE, DAMAGED)


@SMALL
@given(data=st.data())
def test_doctor_and_status_survive_any_record(
    data: st.DataObject, forged: Forged, tmp_path: Path
) -> None:
    change = data.draw(changes(forged))
    survive(forged, tmp_path / "x", change, (("doctor", "STORE"), ("status", "STORE")))


@pytest.mark.slow
@settings(parent=SMALL, max_examples=600)
@given(data=st.data())
def test_all_that_reads_a_store_survives_any_record(
    data: st.DataObject, forged: Forged, tmp_path: Path
) -> None:
    commands = (
        ("doctor", "STORE"),
        ("doctor", "STORE", "--json"),
        ("doctor", "STORE", "--repair", "OUT"),
        ("status", "STORE"),
        ("log", "STORE"),
        ("export", "STORE", "--out", "x.xyz", "--force"),
    )
    survive(forged, tmp_path / "x", data.draw(changes(forged)), commands)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("event",), None),
        (("event", "#"), "Stop"),
        (("event", "name"), 7),
        (("commands",), {"#map": {}}),
        ((), {"#": "Stop", "reason": "x"}),
        ((), 3),
    ],
)
def test_doctor_names_the_record_and_says_that_it_is_damaged(
    forged: Forged,
    tmp_path: Path,
    path: tuple[Any, ...],
    value: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seq = next(
        i
        for i, entry in enumerate(forged.entries)
        if entry.record.tree["event"]["#"] == "Labelled"
    )
    header, arrays = forged.record(seq)
    header["record"] = changed_tree(header["record"], path, value, False)
    forged.write(tmp_path / "s.zarr", seq, header, arrays)
    assert run_command(["doctor", str(tmp_path / "s.zarr")]) == DAMAGED
    assert f"{seq}" in capsys.readouterr().err
