"""A store that lost something says so, mixes nothing, and is repaired as far as it is
whole."""

import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.cli.exits import DAMAGED
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.history.column_check import check_columns
from alloop.history.journal_codec import CLASSES, UPCASTERS
from alloop.history.reader import CODEC, read_history
from alloop.loop import events as e
from alloop.store import columns, packs
from alloop.store.archive import Archive
from alloop.store.codec import Codec, EncodedRecord
from alloop.store.doctor import verify_store
from alloop.store.journal import FOLDER, Journal
from alloop.store.packs import frame_record
from alloop.store.set_aside import set_aside_folders
from alloop.store_copies.repair import repair_store
from benchmarks.durability.comparison import store_contents
from tests.cli.test_commands import refused
from tests.conftest import write_toy
from tests.driver.test_faults import harmed

GOLDEN = Path(__file__).parent / "store" / "golden"
SLOW = pytest.mark.slow
SMALL = {
    "validation": {"frames": 2, "temperature": 400, "each": 1, "spacing": 5},
    "seeds": {"cheap": 8, "expensive": 3, "temperature": 400},
    "budget": {"cheap": 14, "expensive": 7},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a campaign that came to its end; copy it before you harm it."""
    folder = tmp_path_factory.mktemp("ended")
    Campaign.from_yaml(write_toy(folder, **SMALL)).run()
    return folder / "toy.zarr"


@pytest.fixture
def store(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "toy.zarr"))


def rolled_back(store: Path, length: int) -> None:
    """Leave the first so many records in the journal, as an older copy of it has."""
    journal = store / FOLDER
    found = packs.list_journal(journal)
    raw = {}
    for span in (*found.packs, *found.tails):
        pack = packs.read_pack(journal, span)
        raw |= {seq: pack.record_bytes(seq) for seq in range(span.first, span.last + 1)}
        (journal / span.name).unlink()
    shutil.rmtree(journal / "folds", ignore_errors=True)
    kept = b"".join(frame_record(seq, raw[seq]) for seq in range(length))
    (journal / "00000000-").write_bytes(kept)


def labels_of(store: Path) -> dict[tuple[str, str], tuple[float, bytes]]:
    labels = read_history(store).label_index.labels
    return {
        key: (x.energy, x.forces.tobytes())
        for key, x in labels.items()
        if isinstance(x, Label)
    }


# --- a journal that is shorter than the columns --------------------------------------


def test_readers_and_doctor_say_how_many_labels_the_journal_has_lost(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = len(labels_of(store))
    rolled_back(store, 12)
    lost = whole - len(labels_of(store))
    assert lost > 5
    out = tmp_path / "out.xyz"
    for command in (["status", str(store)], ["log", str(store)]):
        assert main(command) == 0
        said = capsys.readouterr().err
        assert f"{lost} labels" in said
        assert said.count("\n") == 1
    main(["export", str(store), str(out)])
    assert f"{lost} labels" in capsys.readouterr().err
    assert main(["doctor", str(store)]) == DAMAGED
    assert "the journal ends at 11" in capsys.readouterr().err


def test_a_writer_sets_aside_what_the_columns_hold_and_goes_on_without_a_mixture(
    ended: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rolled_back(store, 12)
    energies = zarr.open_group(store, mode="r")["labels/cheap/energy"][:]
    frame = next(iter(read_history(store).label_index.frames))
    command = ["exclude", str(store), frame, "--reason", "odd", "--level", "cheap"]
    assert main(command) == 0
    (part,) = set_aside_folders(store)
    kept = zarr.open_group(part, mode="r")["labels/cheap/energy"][:]
    np.testing.assert_array_equal(kept, energies)
    assert columns.appendable_record(store) == -1
    assert "to" not in {finding.where for finding in check_columns(store)}
    capsys.readouterr()
    assert main(["resume", str(store), "--quiet"]) == 0
    assert part.name in capsys.readouterr().err
    assert [finding.where for finding in check_columns(store)] == [part.name]
    made = labels_of(store)
    assert {k: made[k] for k in labels_of(ended) if k in made}.items() <= made.items()
    history = read_history(store)
    rows = zarr.open_group(store, mode="r")["labels/cheap/energy"].shape[0]
    entries = [x for x in history.state.labels.entries() if x.fidelity == "cheap"]
    assert rows == len(entries)


def test_another_history_of_the_same_length_is_noticed(store: Path) -> None:
    length = len(read_history(store).entries)
    rolled_back(store, length - 3)
    frames = list(read_history(store).label_index.frames)
    journal = Journal(store / FOLDER, writable=True)
    for seq, frame in zip(range(length - 3, length), frames, strict=False):
        turn = e.Turn(e.Excluded(frame, None, "another history"))
        journal.append(seq, CODEC.encode(turn), 0.0)
    assert "columns" in {finding.where for finding in check_columns(store)}
    Archive.open(store, CODEC, "w").release()
    assert len(set_aside_folders(store)) == 1
    assert columns.appendable_record(store) == -1
    Archive.open(store, CODEC, "w").release()
    assert len(set_aside_folders(store)) == 1


def test_a_repair_takes_what_was_set_aside_back(
    ended: Path, store: Path, tmp_path: Path
) -> None:
    rolled_back(store, 12)
    Archive.open(store, CODEC, "w").release()
    done = repair_store(store, tmp_path / "new.zarr")
    assert done.labels == len(labels_of(ended))
    assert labels_of(tmp_path / "new.zarr") == labels_of(ended)


def test_without_any_journal_the_columns_give_their_labels_back(
    ended: Path, store: Path, tmp_path: Path
) -> None:
    for file in (store / FOLDER).glob("0*-*"):
        file.unlink()
    out = tmp_path / "new.zarr"
    repair_store(store, out)
    assert labels_of(out) == labels_of(ended)
    Campaign.from_store(out).run()
    assert store_contents(out) == store_contents(ended)


def test_energies_that_the_journal_does_not_have_are_told(store: Path) -> None:
    assert check_columns(store) == []
    array = zarr.open_group(store, mode="r+")["labels/expensive/energy"]
    array[1:3] = array[1:3] + 0.5
    assert verify_store(store, CODEC) == []
    (finding,) = check_columns(store)
    assert finding.where == "labels/expensive/energy"


# --- a way back from damage ----------------------------------------------------------


def first_of(store: Path, kind: str) -> int:
    """The first record of a kind of event."""
    kinds = [type(x.turn.event).__name__ for x in read_history(store).entries]
    return kinds.index(kind)


def mended(ended: Path, folder: Path, number: int) -> None:
    """Harm a record, repair, go on: the campaign is the one that was left alone."""
    store = Path(shutil.copytree(ended, folder / f"{number}" / "toy.zarr"))
    shutil.rmtree(store / FOLDER / "folds", ignore_errors=True)
    harmed(store / FOLDER, number, "flipped bit")
    before = contents(store)
    out = store.with_name("new.zarr")
    repair_store(store, out)
    assert contents(store) == before
    assert labels_of(out) == labels_of(ended)
    assert check_columns(out) == []
    Campaign.from_store(out).run()
    assert store_contents(out) == store_contents(ended), number
    assert check_columns(out) == []


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "kind",
    [
        "Opened",
        "Labelled",
        *(pytest.param(x, marks=SLOW) for x in ("Prepared", "Explored", "Trained")),
    ],
)
def test_whatever_record_is_lost_the_campaign_ends_as_if_it_were_not(
    ended: Path, tmp_path: Path, kind: str
) -> None:
    mended(ended, tmp_path, first_of(ended, kind))


@pytest.mark.slow
def test_each_record_lost_in_turn(ended: Path, tmp_path: Path) -> None:
    for number in range(len(read_history(ended).entries)):
        mended(ended, tmp_path, number)


def test_many_lost_records_are_one_line_and_all_that_is_whole_is_kept(
    ended: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Archive.open(store, CODEC, "w") as archive:
        archive.seal()
    (pack,) = (store / FOLDER).glob("0*-*")
    data = pack.read_bytes()
    pack.write_bytes(data[: len(data) // 3] + bytes(len(data) - len(data) // 3))
    assert main(["doctor", str(store)]) == DAMAGED
    said = capsys.readouterr().err
    assert sum(line.startswith("records") for line in said.splitlines()) == 1
    assert len(said.splitlines()) < 4
    out = store.with_name("new.zarr")
    assert main(["doctor", str(store), "--repair", str(out)]) == 0
    assert "records" in out.with_name("new.zarr.lost.txt").read_text()
    assert labels_of(out) == labels_of(ended)
    assert main(["doctor", str(store), "--repair", str(out)]) == 2
    assert main(["resume", str(out), "--quiet"]) == 0
    assert store_contents(out) == store_contents(ended)


def flipped(path: Path, rng: random.Random) -> bytes:
    """Flip a bit of a file; what it was."""
    whole = path.read_bytes()
    bit, damaged = rng.randrange(len(whole) * 8), bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(damaged))
    return whole


def repaired_after_a_flip(
    store: Path, choose: Callable[[list[Path]], list[Path]], seed: int
) -> int:
    """Flip a bit in a file at a time: what a repair keeps is what was written."""
    rng, count = random.Random(seed), 0
    before = labels_of(store)
    files = sorted(p for p in store.rglob("*") if p.is_file() and p.stat().st_size)
    for path in choose(files):
        whole, out = flipped(path, rng), store.with_name("new.zarr")
        repair_store(store, out)
        after = labels_of(out)
        assert after == before, path
        assert check_columns(out) == []
        Campaign.from_store(out)
        shutil.rmtree(out)
        path.write_bytes(whole)
        count += 1
    return count


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return folder / f"{name}.zarr"


@pytest.mark.parametrize(
    "name", [pytest.param("format1", marks=pytest.mark.slow), "format3"]
)
def test_old_stores_are_repaired_and_go_on(name: str, tmp_path: Path) -> None:
    store = unpacked(name, tmp_path)
    shutil.rmtree(store / FOLDER / "folds", ignore_errors=True)

    def some(files: list[Path]) -> list[Path]:
        records = [path for path in files if path.parent.name == FOLDER]
        return records[len(records) // 2 :][:1]

    assert repaired_after_a_flip(store, some, seed=5) == 1
    flipped(next(store.glob("models/*/c.0")), random.Random(1))
    repair_store(store, tmp_path / "new.zarr")
    Campaign.from_store(tmp_path / "new.zarr").run()
    assert labels_of(store).items() <= labels_of(tmp_path / "new.zarr").items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["format1", "format2", "format3"])
def test_a_bit_in_any_file_of_an_old_store(name: str, tmp_path: Path) -> None:
    store = unpacked(name, tmp_path)
    assert repaired_after_a_flip(store, lambda files: files, seed=7) > 100


def test_an_altered_configuration_is_noticed_and_put_back(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store / "zarr.json"
    file.write_text(file.read_text().replace("temperature: 400", "temperature: 500", 1))
    for command in (["status", str(store)], ["resume", str(store), "--quiet"]):
        assert main(command) == 2
        assert "not those that were written" in capsys.readouterr().err
    assert main(["doctor", str(store)]) == DAMAGED
    out = store.with_name("new.zarr")
    repair_store(store, out)
    with Archive.open(out, Codec([])) as archive:
        assert "temperature: 500" not in archive.attrs["config"]
    file.write_text(file.read_text()[:-99])
    shutil.rmtree(out)
    repair_store(store, out)
    assert Campaign.from_store(out).run().finished


def test_a_repair_needs_a_place_of_its_own(store: Path, tmp_path: Path) -> None:
    for out in (store, store / "inner", tmp_path):
        with pytest.raises(InputError, match="expected a place"):
            repair_store(store, out)
    assert main(["doctor", "--repair", str(tmp_path / "x")]) == 2


class NewerCodec(Codec):
    """Adds a field to each record that it writes, as a newer alloop does."""

    def encode(self, record: object) -> EncodedRecord:
        encoded = super().encode(record)
        return replace(encoded, tree={**encoded.tree, "colour": "red"})


def test_a_store_of_a_newer_program_is_refused_and_not_repaired(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Archive.open(store, NewerCodec(CLASSES, UPCASTERS), mode="w") as archive:
        archive.append(e.Turn(e.Amended("later")))

    def unlocked() -> dict[Path, bytes]:
        return {x: data for x, data in contents(store).items() if x.name != "lock"}

    before, out = unlocked(), tmp_path / "out.zarr"
    verbs = (["run", store], ["status", store], ["report", store])
    for words in (*verbs, ["doctor", store, "--repair", out]):
        err = refused(capsys, *words)
        assert len(err.strip().splitlines()) == 1
        assert "has `colour`, which this alloop does not know; upgrade alloop" in err
    assert "a repair would lose it" in refused(capsys, "doctor", store, code=DAMAGED)
    assert unlocked() == before
    assert not out.exists()
