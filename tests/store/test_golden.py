"""Stores of the past stay readable: each was made by the alloop of its time.

`golden/formatN.tar.xz` holds the store of a small toy campaign.
"""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from ase.io import read as read_atoms

from alloop.campaign import Campaign
from alloop.config import Setup, changes_since
from alloop.config.load import parse_campaign
from alloop.core.records import Label
from alloop.export import Choice, write_export
from alloop.history.reader import CODEC, read_history
from alloop.history.saved_fold import campaign_beginning
from alloop.loop import events as e
from alloop.report.sections.page import render_report
from alloop.report.status import campaign_status
from alloop.store.archive import Archive
from alloop.store.doctor import verify_store
from alloop.store.root import FORMAT
from alloop.store_copies.live_copy import copy_store
from benchmarks.durability.comparison import store_contents
from tests.conftest import TOY, replay

GOLDEN = Path(__file__).parent / "golden"
RECORDS = {"format1": 28, "format2": 28, "format3": 30}
ALL = sorted(path.name.removesuffix(".tar.xz") for path in GOLDEN.glob("*.tar.xz"))


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(GOLDEN / f"{request.param}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / f"{request.param}.zarr"


def test_there_are_stores_of_every_format() -> None:
    assert list(RECORDS) == ALL


def test_an_old_store_opens_and_replays(store: Path) -> None:
    history = read_history(store)
    labels = list(history.label_index.labels.values())
    assert (len(history.entries), len(labels)) == (RECORDS[store.stem], 21)
    assert all(isinstance(label, Label) for label in labels)
    assert history.state.finished == "the budget of expensive labels is spent"
    assert replay(x.turn for x in history.entries).generations.count == 2
    assert [x.generation for x in history.trained()] == [1, 2]
    requests = history.record_index.explorations
    explored = [x for _, x in history.of_kind(e.Explored)]
    assert [x.name for x in explored] == list(requests)
    assert [x.round for x in explored] == [x.round for x in requests.values()]


def test_an_old_campaign_has_not_changed_by_the_upgrade(store: Path) -> None:
    """Settings that came later are none; the examination that it lacks is work."""
    campaign = Campaign.from_store(store)
    changed = changes_since(read_history(store).config, campaign.setup.text)
    assert set(changed) <= {"validation.examination"}


def test_an_old_store_is_whole_and_shows_its_columns(store: Path) -> None:
    assert verify_store(store, CODEC) == []
    root = zarr.open_group(store, mode="r")
    assert root["labels/cheap/energy"].shape == (14,)
    assert root["structures"].attrs["mark"] == RECORDS[store.stem] - 1
    with Archive.open(store, CODEC) as archive:
        assert all(archive.model(each) for each in archive.model_ids())
        assert len(archive.model_ids()) == 2


def test_an_old_store_exports(store: Path, tmp_path: Path) -> None:
    (file,) = write_export(
        read_history(store), tmp_path / "out.xyz", Choice("expensive", "all")
    )
    frames = read_atoms(file.path, ":")
    energies = sorted(frame.info["REF_energy"] for frame in frames)
    column = zarr.open_group(store, mode="r")["labels/expensive/energy"]
    assert np.allclose(energies, np.sort(column[:]), rtol=0, atol=1e-8)


def test_an_old_store_is_written_on_and_refused_by_older_alloops(store: Path) -> None:
    before = [entry.time for entry in read_history(store).entries]
    with Archive.open(store, CODEC, "w") as archive:
        archive.seal()
        archive.append(read_history(store).entries[-1].turn)
    after = [entry.time for entry in read_history(store).entries]
    assert after[:-1] == before
    with Archive.open(store, CODEC) as archive:
        assert archive.attrs["alloop_format"] == FORMAT
    assert verify_store(store, CODEC) == []


def test_a_store_may_move(store: Path, tmp_path: Path) -> None:
    before = read_history(store)
    times = [x.time for x in before.entries]
    moved = tmp_path / "elsewhere" / "renamed.zarr"
    moved.parent.mkdir()
    shutil.move(store, moved)
    after = read_history(moved)
    assert [x.time for x in after.entries] == times
    assert after.label_index.labels.keys() == before.label_index.labels.keys()
    Archive.open(moved, CODEC, "w").close()


def test_a_campaign_that_began_without_shapes_goes_on_without(store: Path) -> None:
    setup = Campaign.from_store(store).setup
    assert not setup.rules.explorers
    assert not setup.worker_settings.explorers
    assert parse_campaign(TOY, store.parent).rules.explorers == {}
    usual = TOY.replace(",\n  shapes: null", "")
    assert parse_campaign(usual, store.parent).rules.explorers


def test_an_old_store_has_a_report_a_status_and_a_copy(
    store: Path, tmp_path: Path
) -> None:
    history = read_history(store)
    page = render_report(history)
    assert "campaign report" in page
    assert campaign_status(history)["labels"]["cheap"]["good"] == 14
    copied = copy_store(store, tmp_path / "copy.zarr")
    assert copied.total == RECORDS[store.stem]
    assert store_contents(tmp_path / "copy.zarr") == store_contents(store)


@pytest.mark.slow
def test_an_old_store_goes_on_with_a_larger_budget(store: Path) -> None:
    text, opened = campaign_beginning(store)
    tree = yaml.safe_load(text)
    tree["budget"]["expensive"] += 2
    before = store_contents(store)
    setup = Setup.from_store(yaml.safe_dump(tree), opened, store)
    assert Campaign(setup).run().finished == "the budget of expensive labels is spent"
    after = store_contents(store)
    assert before.items() <= after.items()
    assert read_history(store).state.generations.count > 2
    assert verify_store(store, CODEC) == []
