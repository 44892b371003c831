"""What the store's tests share: a codec of all events, small records, faults, kills."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.records import Label, Walker
from alloop.history.journal_codec import CLASSES, UPCASTERS
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.codec import Codec
from alloop.store.packs import list_journal, read_pack
from benchmarks.durability.file_systems import UnsyncedFileSystem
from benchmarks.durability.processes import ForkServer


@pytest.fixture
def fork_server() -> Iterator[Callable[[str], ForkServer]]:
    servers: list[ForkServer] = []

    def start(script: str) -> ForkServer:
        servers.append(ForkServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def unsynced() -> UnsyncedFileSystem:
    return UnsyncedFileSystem()


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Packs of so many records."""
    monkeypatch.setattr(packs, "RECORDS", 4)
    return 4


def _loosened(folder: Path) -> None:
    for tail in list_journal(folder).tails:
        pack = read_pack(folder, tail)
        for seq in range(tail.first, tail.last + 1):
            (folder / f"{seq:08d}").write_bytes(pack.record_bytes(seq))
        (folder / tail.name).unlink()


@pytest.fixture
def loosened() -> Callable[[Path], None]:
    """Gives the records of a journal's tails a file each, as format 2 had them."""
    return _loosened


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec(CLASSES, UPCASTERS)


def _water(shift: float = 0.0) -> Frame:
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    return Frame(np.array([8, 1, 1]), positions + np.array([shift, 0, 0]))


@pytest.fixture(scope="session")
def water() -> Callable[[float], Frame]:
    return _water


@pytest.fixture(scope="session")
def turn() -> Callable[[int], tuple[Walker, Label]]:
    """A small record with frames and arrays, different for each number."""

    def make(index: int) -> tuple[Walker, Label]:
        frame = _water(index / 7)
        label = Label(frame.id, "0" * 16, -75.0 - index, frame.positions * index)
        return Walker(index, 0, frame, frame.positions), label

    return make


@pytest.fixture
def archive(tmp_path: Path, codec: Codec) -> Iterator[Archive]:
    attrs = {"name": "water", "seed": 7, "config": "name: water\n"}
    with Archive.create(tmp_path / "s.zarr", attrs=attrs, codec=codec) as made:
        yield made
