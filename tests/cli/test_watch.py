"""The live page and the metrics: for this machine with the key, and true."""

import json
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alloop.campaign import Campaign
from alloop.cli.watch_command import WatchServer, watch_server
from alloop.core.errors import InputError
from alloop.driver.run import RunObserver
from alloop.history.reader import CODEC, read_history
from alloop.loop import events as e
from alloop.report.status import campaign_status
from alloop.store.archive import Archive
from tests.conftest import write_toy

LEVELS = ("cheap", "expensive")
GOLDEN = Path(__file__).parent.parent / "store" / "golden" / "format3.tar.xz"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "format3.zarr"


@pytest.fixture
def server(store: Path) -> Iterator[WatchServer]:
    yield from served(store)


def served(store: Path) -> Iterator[WatchServer]:
    with watch_server(store) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield server
        server.shutdown()


def got(server: WatchServer, path: str, method: str = "GET") -> tuple[int, dict, str]:
    line = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    line.request(method, path)
    answer = line.getresponse()
    body = answer.read().decode()
    line.close()
    return answer.status, dict(answer.headers), body


SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)\{(?P<labels>[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*)\} '
    r"(?P<value>\S+)"
)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Parse the text format; every line must be one of its three kinds."""
    out = {}
    for line in text.splitlines():
        if line.startswith(("# HELP alloop_", "# TYPE alloop_")):
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        out[match["name"], match["labels"]] = float(match["value"])
    return out


def test_page_metrics_and_status_have_the_values_of_the_store(
    server: WatchServer, store: Path
) -> None:
    values = campaign_status(read_history(store))
    assert json.loads(got(server, f"/{server.key}/status.json")[2]) == values
    code, head, text = got(server, f"/{server.key}/metrics")
    assert (code, head["Content-Type"].partition(";")[0]) == (200, "text/plain")
    found = samples(text)
    name = f'campaign="{values["name"]}"'
    assert found["alloop_cpu_seconds", name] == values["cpu_seconds"]
    assert found["alloop_force_mae", name] == values["errors"][values["best"] - 1]
    for level, counts in values["labels"].items():
        labels = f'{name},level="{level}"'
        assert found["alloop_labels_good", labels] == counts["good"]
        assert found["alloop_labels_used", labels] == counts["used"]
    states = {x for x, on in found.items() if x[0] == "alloop_state" and on}
    assert states == {("alloop_state", f'{name},state="finished"')}
    _, head, page = got(server, f"/{server.key}/")
    assert head["Refresh"] == "30"
    assert "finished after" in page
    assert f"{values['labels']['cheap']['good']}</td>" in page
    assert "Content-Security-Policy" in page
    code, _, report = got(server, f"/{server.key}/report")
    assert (code, "campaign report" in report) == (200, True)


def test_figures_are_those_of_arrays_and_records_to_one_percent(
    server: WatchServer, store: Path
) -> None:
    """Counted from the columns by zarr, and from the timings in the journal."""
    root: Any = zarr.open_group(store, mode="r")
    with Archive.open(store, CODEC) as archive:
        events = [turn.event for _, _, turn in archive.records()]
    timed = [x for x in events if getattr(x, "timing", None) is not None]
    timings = [x.timing for x in timed if x.timing.ended > x.timing.started]
    hours = (max(x.ended for x in timings) - min(x.started for x in timings)) / 3600
    busy = sum(x.cpu_seconds for x in timings)
    others = [x for x in timed if not isinstance(x, (e.Labelled, e.NotLabelled))]
    elsewhere = sum(x.timing.cpu_seconds for x in others)
    tables = [root[f"labels/{level}/cpu_seconds"][:] for level in LEVELS]
    workers = {x.worker for x in timings}
    shown = samples(got(server, f"/{server.key}/metrics")[2])
    name = f'campaign="{Campaign.from_store(store).setup.name}"'

    def close(metric: str, value: float, labels: str = name) -> None:
        assert shown[metric, labels] == pytest.approx(value, rel=0.01), metric

    close("alloop_cpu_seconds", elsewhere + sum(x.sum() for x in tables))
    close("alloop_utilisation", busy / (3600 * hours * len(workers)))
    close("alloop_force_mae", float(np.nanmin(root["generations/force_mae"][:])))
    for level in LEVELS:
        good = int(np.isfinite(root[f"labels/{level}/energy"][:]).sum())
        kinds = ["cheap"] if level == "cheap" else ["expensive", "validation"]
        names = [("alloop_labels_good", f'{name},level="{kind}"') for kind in kinds]
        assert sum(shown[key] for key in names) == good
        labels = f'{name},level="{level}"'
        assert hours < 1.0  # so that the last hour of work is all of it
        close("alloop_labels_per_hour", good / hours, labels)


@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_shows_the_page_and_its_scripts_run(
    server: WatchServer, store: Path, tmp_path: Path, width: int
) -> None:
    """chromium's own text of the page after its scripts, on both kinds of screen."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed")
    address = f"http://127.0.0.1:{server.server_port}/{server.key}/"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking", "--enable-logging=stderr", "--v=0"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run(
        [browser, *flags, "--dump-dom", address],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    values = campaign_status(read_history(store))
    shown = re.sub(r"<[^>]+>", " ", done.stdout)
    assert "finished after" in shown
    assert f"{1000 * values['errors'][values['best'] - 1]:.3g}"[:4] in shown
    assert str(values["labels"]["cheap"]["good"]) in shown
    assert "CONSOLE" not in done.stderr, done.stderr  # no error, no refused script


@pytest.mark.parametrize("path", ["/", "/wrong/", "/{key}x/", "/{key}/../x"])
def test_without_the_key_there_is_nothing(server: WatchServer, path: str) -> None:
    code, _, body = got(server, path.format(key=server.key))
    assert (code, body) == (404, "not found\n")


def test_it_listens_here_alone_and_takes_no_orders(server: WatchServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert got(server, f"/{server.key}/", "POST")[0] == 501
    assert got(server, f"/{server.key}/", "HEAD")[2] == ""


def test_a_store_that_is_damaged_meanwhile_is_a_sentence(
    server: WatchServer, store: Path
) -> None:
    (store / "zarr.json").write_text("{")
    code, _, body = got(server, f"/{server.key}/")
    assert code == 503
    assert "alloop doctor" in body


def test_a_campaign_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    pages = []

    def observe(*_: object) -> None:
        pages.append(1)
        if len(pages) not in (1, 5):
            return
        for server in served(campaign.store):
            code, _, page = got(server, f"/{server.key}/")
            assert code == 200, page
            assert "running" in page
            assert samples(got(server, f"/{server.key}/metrics")[2])

    campaign.run(observer=RunObserver(observe=observe, stop=lambda: len(pages) > 5))
    for server in served(campaign.store):
        assert "paused" in got(server, f"/{server.key}/")[2]
        assert "stopped as asked" in got(server, f"/{server.key}/")[2]


def test_a_key_of_ones_own_must_be_long(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOOP_WATCH_KEY", "short")
    with pytest.raises(InputError, match="16 or more"):
        watch_server(store)
