"""All campaigns beneath a folder, in one table, also those that cannot be read."""

import json
import tarfile
from pathlib import Path

import pytest

from alloop.cli import main
from alloop.history.reader import CODEC, read_history
from alloop.report.campaign_list import campaign_rows, find_stores
from alloop.report.status import campaign_status
from alloop.store.archive import Archive

GOLDEN = Path(__file__).parent.parent / "store" / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign, a running one, a damaged one, and what is none."""
    place = tmp_path_factory.mktemp("many")
    for name, where in (("format1", "a"), ("format2", "b/c"), ("format3", "d")):
        (place / where).mkdir(parents=True)
        with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
            tar.extractall(place / where, filter="data")
    (place / "d" / "format3.zarr" / "zarr.json").write_text("{")
    (place / "e" / "half.zarr.partial" / "journal").mkdir(parents=True)
    (place / "f").symlink_to(place / "a")
    return place


def test_each_campaign_has_a_row_with_the_values_of_its_status(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [folder / x for x in ("a/format1.zarr", "b/c/format2.zarr")]
    with Archive.open(stores[1], CODEC, "w"):
        assert main(["list", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["store"]) for row in rows] == [*stores, folder / "d/format3.zarr"]
    assert [row["state"] for row in rows] == ["finished", "running", "unreadable"]
    for row, store in zip(rows, stores, strict=False):
        values = campaign_status(read_history(store))
        assert row["cpu_seconds"] == values["cpu_seconds"]
        assert row["force_mae"] == values["errors"][values["best"] - 1]
        assert row["expensive"] == values["labels"]["expensive"]["used"]
    assert "doctor" in rows[2]["note"]


def test_the_table_has_them_too_and_an_empty_folder_is_no_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("finished") >= 2
    assert "unreadable" in shown
    assert main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no campaign lies there\n"


def test_a_store_is_found_by_its_own_path_and_not_looked_into(folder: Path) -> None:
    store = folder / "a" / "format1.zarr"
    assert list(find_stores(store)) == [store]
    assert [row["name"] for row in campaign_rows(folder / "a")] == ["toy"]
