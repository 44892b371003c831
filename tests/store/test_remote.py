"""Stores at an address: a real web server, and one that speaks S3's dialect.

Both are the standard library's. The second lists folders and answers only requests
that are signed with the right key.
"""

import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import zarr

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.core.errors import DamagedError, InputError, StoreError
from alloop.driver.run import RunObserver
from alloop.export import Choice
from alloop.history.reader import CODEC, read_history
from alloop.store import packs, remote
from alloop.store.addresses import store_address
from alloop.store.archive import Archive
from alloop.store_copies.live_copy import copy_store
from tests.conftest import skip_without, write_toy

pytestmark = pytest.mark.usefixtures("_obstore")
GOLDEN = Path(__file__).parent / "golden"
KEY = "AKIATESTS"


@pytest.fixture(scope="module")
def _obstore() -> None:
    skip_without("obstore")


class Server(ThreadingHTTPServer):
    """A web server of a folder; `asked`: the paths that it was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, signed: bool = False) -> None:
        handler = partial(Handler, directory=str(folder))
        super().__init__(("127.0.0.1", 0), handler)
        self.folder, self.signed = folder, signed
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    """Serves files as they are, and lists folders where requests are signed."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(parts.path)
        signature = self.headers.get("Authorization", "")
        if self.server.signed and f"Credential={KEY}/" not in signature:
            self.send_error(403)
        elif "list-type" in parts.query:
            self.send_listing(parts.path, parse_qs(parts.query)["prefix"][0])
        elif Path(self.translate_path(parts.path)).is_dir():
            self.send_error(404)
        else:
            super().do_GET()

    def send_listing(self, bucket: str, prefix: str) -> None:
        folder = self.server.folder / bucket.strip("/")
        items = "".join(
            f"<Contents><Key>{prefix}{x.name}</Key><Size>{x.stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for x in sorted((folder / prefix).iterdir())
            if x.is_file()
        )
        body = f"<ListBucketResult>{items}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished campaign of several packs, and a copy amid it."""
    folder = tmp_path_factory.mktemp("published")
    turns: list[int] = []

    def observe(*_: object) -> None:
        turns.append(1)
        if len(turns) == 60:  # three packs, and twelve records after them
            shutil.copytree(folder / "toy.zarr", folder / "running.zarr")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "RECORDS", 16)
        campaign = Campaign.from_yaml(write_toy(folder))
        campaign.run(observer=RunObserver(observe=observe))
    return folder


@pytest.fixture
def web(folder: Path) -> Iterator[Server]:
    with running(Server(folder)) as server:
        yield server


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def digests(store: Path) -> list[bytes]:
    with Archive.open(store, CODEC) as archive:
        return [entry.digest for entry in archive.entries()]


def test_an_address_is_told_from_a_path() -> None:
    assert store_address("https://host/a/b.zarr/") == "https://host/a/b.zarr"
    assert store_address(Path("https://host/a.zarr")) == "https://host/a.zarr"
    assert store_address("s3://bucket/a.zarr") == "s3://bucket/a.zarr"
    for path in ("a.zarr", "/a.zarr", "https", "file:///a", "C:/a", "s3:"):
        assert store_address(path) is None


def test_python_reads_a_store_at_an_address(folder: Path, web: Server) -> None:
    here = Campaign.from_store(folder / "toy.zarr")
    there = Campaign.from_store(f"{web.address}/toy.zarr")
    assert there.history().config == here.history().config
    assert digests(there.store) == digests(here.store)
    assert len(list((there.store / "journal").glob("*-*"))) > 3
    rows = list(zip(here.dataset(), there.dataset(), strict=True))
    assert rows
    assert all(
        np.array_equal(a.arrays["REF_forces"], b.arrays["REF_forces"]) for a, b in rows
    )
    assert [x for x in web.asked if "/c." in x] == []  # no model and no column yet
    frame = here.dataset()[0]
    energies = []
    for campaign in (here, there):
        frame.calc = campaign.calculator()
        energies.append(frame.get_potential_energy())
    assert energies[0] == energies[1] != 0
    models = {x.split("/")[3] for x in web.asked if "/c." in x}
    assert models == {there.history().best[0].event.model}
    with pytest.raises(InputError, match=f"{web.address}/toy.zarr is read only"):
        there.run()
    with pytest.raises(InputError, match="is read only"):
        Archive.open(there.store, CODEC, "w")


def test_a_running_campaign_is_read_up_to_a_record(folder: Path, web: Server) -> None:
    store = remote.fetch_store(f"{web.address}/running.zarr")
    assert digests(store) == digests(folder / "toy.zarr")[:60]
    assert not (store / "structures").exists()


def test_packs_that_are_merged_meanwhile_are_listed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is read before, the packs after the journal was sealed."""
    shutil.copytree(folder / "running.zarr", tmp_path / "toy.zarr")
    names = remote._pack_names

    def listed(*arguments: object) -> list[str]:
        found = names(*arguments)
        if len(found) == 3:
            shutil.rmtree(tmp_path / "toy.zarr")
            shutil.copytree(folder / "toy.zarr", tmp_path / "toy.zarr")
            (tmp_path / "toy.zarr" / "journal" / found[2]).unlink()
            whole = tmp_path / "toy.zarr" / "journal"
            (whole / "packs").write_text('["00000000-00000015", "00000016-00000031"]')
        return found

    monkeypatch.setattr(remote, "_pack_names", listed)
    with running(Server(tmp_path)) as server:
        store = remote.fetch_store(f"{server.address}/toy.zarr")
    assert digests(store) == digests(folder / "toy.zarr")[:32]


def test_commands_take_addresses(
    folder: Path,
    web: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    address, store = f"{web.address}/toy.zarr", str(folder / "toy.zarr")
    for place, name in ((store, "here"), (address, "there")):
        assert main(["export", place, f"{name}.extxyz"]) == 0
        assert main(["report", place, "--out", f"{name}.html"]) == 0
        capsys.readouterr()
        assert main(["why", place, "2"]) == 0
        Path(name).write_text(capsys.readouterr().out)
    for suffix in ("", ".extxyz"):
        assert Path(f"here{suffix}").read_bytes() == Path(f"there{suffix}").read_bytes()
    page = Path("there.html").read_text()
    assert address in page
    assert page.replace(address, store) == Path("here.html").read_text()
    assert main(["report", address]) == 0
    assert (tmp_path / "toy.html").read_text() == page
    assert main(["status", address]) == 0
    assert "not known of a store at an address" in (out := capsys.readouterr().out)
    assert f"store       {address}" in out
    assert main(["copy", address, "copy.zarr"]) == 0
    assert digests(tmp_path / "copy.zarr") == digests(folder / "toy.zarr")
    assert copy_store(folder / "toy.zarr", tmp_path / "copy.zarr").records == 0
    for words in (["resume", address], ["exclude", address, "a", "--reason", "b"]):
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"{address} is read only; bring")


def test_columns_are_read_by_zarr_itself(folder: Path, web: Server) -> None:
    from obstore.store import HTTPStore
    from zarr.storage import ObjectStore

    place = HTTPStore.from_url(
        f"{web.address}/toy.zarr", client_options={"allow_http": True}
    )
    group = zarr.open_group(ObjectStore(place, read_only=True), mode="r")
    local = zarr.open_group(folder / "toy.zarr", mode="r")
    for name in ("labels/expensive/energy", "structures/positions"):
        assert np.array_equal(group[name][:], local[name][:])
        assert group[name].shape[0] > 0


@pytest.mark.parametrize("name", ["format1", "format2", "format3"])
def test_stores_of_older_formats_are_read_from_s3(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
        tar.extractall(tmp_path / "bucket", filter="data")
    local = digests(tmp_path / "bucket" / f"{name}.zarr")
    with running(Server(tmp_path, signed=True)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        store = remote.fetch_store(f"s3://bucket/{name}.zarr")
        assert digests(store) == local
        assert Campaign.from_store(store).dataset(Choice().level)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        with pytest.raises(StoreError, match=r"403.*; check .*credentials in the env"):
            remote.fetch_store(f"s3://bucket/{name}.zarr")
    with running(Server(tmp_path / "bucket")) as server:
        if name == "format2":  # sealed, by an alloop that listed no packs
            with pytest.raises(StoreError, match="no list of its records"):
                remote.fetch_store(f"{server.address}/{name}.zarr")
        else:
            store = remote.fetch_store(f"{server.address}/{name}.zarr")
            assert digests(store) == local


def test_what_is_no_store_is_told_in_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(address: str) -> str:
        assert main(["status", address]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("expected") or address in text
        assert "\n" not in text
        assert "/tmp" not in text
        return text

    shutil.copytree(folder / "toy.zarr", tmp_path / "toy.zarr")
    root = tmp_path / "toy.zarr" / "zarr.json"
    whole = root.read_text()
    with running(Server(tmp_path)) as server:
        address = f"{server.address}/toy.zarr"
        assert "is not an alloop store; give" in message(f"{server.address}/none.zarr")
        root.write_text("<html>")
        assert "is not an alloop store; give" in message(address)
        root.write_text(whole.replace('"alloop_format": 3', '"alloop_format": 99'))
        assert "holds format 99" in message(address)
        root.write_text(whole)
        pack = next((tmp_path / "toy.zarr" / "journal").glob("00000016-*"))
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
        assert "run `alloop doctor` on the store" in message(address)
        pack.unlink()
        assert "lacks a pack" in message(address)
        (tmp_path / "toy.zarr" / "journal" / "packs").write_text("17")
        assert "is not a list of names" in message(address)
    assert "cannot be read" in message(address)  # nobody listens any more
    for wrong in ("https://me:key@host/a", "https://host/a?key=1", "https://host/.."):
        text = message(wrong)
        assert "credentials come from the environment" in text
        assert "key@" not in text


def test_a_damaged_model_is_not_used(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "toy.zarr", tmp_path / "toy.zarr")
    model = read_history(tmp_path / "toy.zarr").best[0].event.model
    chunk = tmp_path / "toy.zarr" / "models" / model / "c.0"
    with running(Server(tmp_path)) as server:
        chunk.rename(chunk.with_name("away"))
        campaign = Campaign.from_store(f"{server.address}/toy.zarr")
        with pytest.raises(DamagedError, match="does not match its checksum"):
            campaign.model()
        chunk.with_name("away").rename(chunk)
        assert campaign.model()
