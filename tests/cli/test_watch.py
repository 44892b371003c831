"""The live page and the metrics: for this machine with the key, and true."""

import json
import re
import tarfile
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.cli.watch_command import WatchServer, watch_server
from alloop.core.errors import InputError
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from alloop.report.status import campaign_status
from tests.conftest import write_toy

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
