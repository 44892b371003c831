"""Notices: each once, never late for the run, no secret on the disk."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.config.sections.notify import Notify
from alloop.core.errors import Interrupted
from alloop.driver import oversight as oversight_module
from alloop.driver.disk import DiskSpace, disk_problem, folder_size
from alloop.driver.notices import Notice, NoticeFile, notices_file, read_notices
from alloop.driver.receivers import Heartbeat, Sender, make_receivers
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from benchmarks.durability.comparison import store_contents
from tests.conftest import wait_for, write_toy


class Hook:
    """A receiver on a port of this machine, with what it took."""

    def __init__(self, status: int = 200) -> None:
        taken, heads = self.taken, self.heads = [], []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                taken.append({"about": "heartbeat"})
                self.send_response(status)
                self.end_headers()

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                taken.append(json.loads(self.rfile.read(size)))
                heads.append(dict(self.headers))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.close()


def file(folder: Path) -> NoticeFile:
    return NoticeFile(folder / "x.zarr", "x", lambda: "identity")


def send(receivers: Any, notices: NoticeFile, *keys: str, seconds: float = 5.0) -> list:
    sender = Sender(receivers, notices, pauses=(0.01,))
    for key in keys:
        message = notices.add(Notice("budget", key, f"about {key}"), {})
        if message is not None:
            sender.send(message)
    sender.close(seconds)
    return sender.problems()


def test_a_campaign_tells_budget_and_end_once_and_hides_its_secrets(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_HOOK", f"{hook.url}?key=s3cret")
    monkeypatch.setenv("MY_TOKEN", "t0ken")
    notify = {"webhook": "$MY_HOOK", "token": "$MY_TOKEN"}
    path = write_toy(tmp_path, notify=notify)
    Campaign.from_yaml(path).run()
    Campaign.from_yaml(path).run()  # nothing is left to do or to tell
    told = Counter(x["about"] for x in hook.taken)
    assert told == {"budget": 4, "finished": 1}
    assert len({x["id"] for x in hook.taken}) == len(hook.taken)
    assert {x["labels"]["expensive"] for x in hook.taken} <= {*range(15)}
    assert {x["Authorization"] for x in hook.heads} == {"Bearer t0ken"}
    everything = b"".join(x.read_bytes() for x in tmp_path.rglob("*") if x.is_file())
    assert b"$MY_HOOK" in everything
    assert b"s3cret" not in everything
    assert b"t0ken" not in everything


def test_across_kills_at_every_line_each_notice_has_one_id_and_arrives(
    tmp_path: Path, hook: Hook
) -> None:
    """The file cut after each of its bytes is what a kill may leave."""
    receivers = make_receivers(Notify(webhook=hook.url), {}).sends
    send(receivers, file(tmp_path), "a", "b")
    whole = notices_file(tmp_path / "x.zarr").read_bytes()
    ids = {x["id"] for x in hook.taken}
    for end in range(0, len(whole) + 1, 23):
        hook.taken.clear()
        notices_file(tmp_path / "x.zarr").write_bytes(whole[:end])
        before = read_notices(tmp_path / "x.zarr")
        sent = {x["id"] for x in before if x["state"] == "sent"}
        send(receivers, file(tmp_path), "a", "b")
        assert {x["id"] for x in hook.taken} == ids - sent
        assert len(hook.taken) == len(ids - sent)


def test_a_dead_receiver_delays_the_end_by_a_second_at_most_and_is_told(
    tmp_path: Path,
) -> None:
    """Nobody listens, it answers 500, it is silent; the next run sends it again."""
    failing = Hook(500)
    silent = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # never answers
    places = (
        failing.url,
        f"http://127.0.0.1:{silent.server_port}/",
        "http://127.0.0.1:9",
    )
    began = time.monotonic()
    for number, url in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        receivers = make_receivers(Notify(webhook=url), {}).sends
        problems = send(receivers, file(folder), "a", seconds=0.3)
        assert len(problems) == 1, (url, problems)
        assert "next run" in problems[0]
        assert url not in problems[0]
    assert time.monotonic() - began < 0.3 * len(places) + 1.0
    failing.close()
    silent.server_close()
    again = Hook()
    send(make_receivers(Notify(webhook=again.url), {}).sends, file(tmp_path / "0"))
    assert [x["text"] for x in again.taken] == ["about a"]
    again.close()


def test_a_command_gets_the_notice_and_its_failure_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    notify = Notify(command=f'echo "$ALLOOP_ABOUT $ALLOOP_TEXT" > {out}; cat >> {out}')
    assert send(make_receivers(notify, {}).sends, file(tmp_path), "a") == []
    head, body = out.read_text().split("\n", 1)
    assert head == "budget about a"
    assert json.loads(body)["text"] == "about a"
    problems = send(
        make_receivers(Notify(command="exit 3"), {}).sends, file(tmp_path), "b"
    )
    assert "its exit code was 3" in problems[0]


def test_apprise_sends_to_a_service(tmp_path: Path, hook: Hook) -> None:
    pytest.importorskip("apprise")
    address = hook.url.replace("http://", "json://")
    notify = Notify(apprise="$MAIL")
    receivers = make_receivers(notify, {"MAIL": address})
    assert send(receivers.sends, file(tmp_path), "a", seconds=60) == []
    assert "about a" in hook.taken[0]["message"]
    assert make_receivers(notify, {}).problems == (
        "`notify: apprise` names the environment variable MAIL, which is not set",
    )


def test_a_store_may_not_send_secrets_unless_it_is_trusted(
    tmp_path: Path, hook: Hook
) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path, notify={"webhook": hook.url})).setup
    assert setup.named_code == [f"notify.webhook: {hook.url}"]


def test_a_test_notice_says_who_took_it(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    notify = {"webhook": hook.url, "command": "exit 4"}
    assert main(["notify", str(write_toy(tmp_path, notify=notify))]) == 2
    said = capsys.readouterr()
    assert "webhook: taken" in said.out
    assert "command: its exit code was 4" in said.err
    assert [x["about"] for x in hook.taken] == ["test"]
    assert main(["notify", str(write_toy(tmp_path))]) == 2
    assert not (tmp_path / "toy.zarr").exists()


def test_an_early_end_and_an_error_are_told_with_their_reason(
    tmp_path: Path, hook: Hook
) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path, notify={"webhook": hook.url}))
    seen: list[int] = []
    campaign.run(
        observer=RunObserver(
            observe=lambda *_: seen.append(1), stop=lambda: len(seen) > 3
        )
    )

    def fail(*_: object) -> None:
        raise RuntimeError("the sky fell")

    with pytest.raises(RuntimeError):
        campaign.run(observer=RunObserver(observe=fail))
    texts = [x["text"] for x in hook.taken]
    assert texts[0].startswith("stopped as asked, with ")
    assert texts[1] == "an error ended the run: RuntimeError: the sky fell"


def test_a_silence_longer_than_usual_is_told_once(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight_module, "_SHORTEST_STALL", 0.05)
    campaign = Campaign.from_yaml(write_toy(tmp_path, notify={"webhook": hook.url}))
    overseer = oversight_module.Oversight(campaign.setup, lambda: "x", 7, print)
    campaign.store.mkdir()
    state: Any = campaign_state({"label/a/b": object()})
    times: Any = SimpleNamespace(median=lambda _: 0.01)
    overseer.look(state, times)
    time.sleep(0.2)
    overseer.look(state, times)
    overseer.look(state, times)
    overseer._sender.close(5.0)
    assert [x["about"] for x in hook.taken] == ["stalled"]
    assert "label/a/b" in hook.taken[0]["text"]


def test_a_heartbeat_stays_away_where_the_loop_does(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHER", hook.url)
    notify = {"heartbeat": "$WATCHER", "beat": 0.1}
    campaign = Campaign.from_yaml(write_toy(tmp_path, notify=notify))
    overseer = oversight_module.Oversight(campaign.setup, lambda: "x", 7, print)
    campaign.store.mkdir()
    for _ in range(2):
        overseer.look(campaign_state({}), SimpleNamespace(median=lambda _: None))
    wait_for(lambda: hook.taken, 10.0)
    time.sleep(0.3)  # nobody looks
    assert len(hook.taken) == 1
    overseer.look(campaign_state({}), SimpleNamespace(median=lambda _: None))
    wait_for(lambda: len(hook.taken) == 2, 10.0)
    assert hook.url not in (tmp_path / "toy.yaml").read_text()


def test_a_watcher_that_is_not_there_is_told_once() -> None:
    heart = Heartbeat("http://127.0.0.1:9/secret", 0.0)
    problems: list[str] = []
    for _ in range(3):
        heart.beat()
        assert heart._thread is not None
        heart._thread.join(5.0)
        problems += heart.problems()
    assert len(problems) == 1
    assert "secret" not in problems[0]
    Heartbeat(None, 1.0).beat()


def test_a_run_beats_and_a_test_notice_too(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_toy(tmp_path, notify={"heartbeat": hook.url, "beat": 1000})
    assert main(["notify", str(path)]) == 0
    assert "heartbeat: taken" in capsys.readouterr().out
    assert Campaign.from_yaml(path).run().exit_code == 0
    wait_for(lambda: len(hook.taken) == 2, 10.0)
    assert {x["about"] for x in hook.taken} == {"heartbeat"}


def campaign_state(open_: dict[str, Any]) -> Any:
    from dataclasses import replace

    from alloop.loop.state import LoopState

    return replace(LoopState(), open=open_)


def test_a_disk_without_room_pauses_before_the_round(tmp_path: Path) -> None:
    small = write_toy(tmp_path, limits={"isolate": False, "disk": 0.01})
    with pytest.raises(Interrupted, match="limits: disk"):
        Campaign.from_yaml(small).run()
    told = [x for x in read_notices(tmp_path / "toy.zarr") if x["state"] == "due"]
    assert told[-1]["about"] == "disk"
    assert read_history(tmp_path / "toy.zarr").state.exploration.round <= 1


@pytest.mark.slow
def test_room_lets_a_paused_campaign_end_as_one_that_never_paused(
    tmp_path: Path,
) -> None:
    alone = Campaign.from_yaml(write_toy(tmp_path / "alone"))
    alone.run()
    small = write_toy(tmp_path / "x", limits={"isolate": False, "disk": 0.01})
    with pytest.raises(Interrupted, match="limits: disk"):
        Campaign.from_yaml(small).run()
    large = Campaign.from_yaml(write_toy(tmp_path / "x"))
    assert large.run().finished
    assert store_contents(large.store) == store_contents(alone.store)
    assert folder_size(large.store) > 1e4


def test_the_need_of_a_round_counts_against_budget_and_free_space() -> None:
    space = DiskSpace(used=50_000_000, free=300_000_000)
    assert disk_problem(space, 40e6, 100.0, 200.0) is None
    assert "limits: disk` is 80 MB" in str(disk_problem(space, 40e6, 80.0, 0.0))
    assert "limits: disk_free` is 270 MB" in str(disk_problem(space, 40e6, None, 270.0))


KILLED = """
import os, signal, sys
from pathlib import Path
from alloop.campaign import Campaign
from alloop.driver.run import RunObserver
seen = []
def observe(state, turn):
    seen.append(1)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Campaign.from_yaml(Path(sys.argv[1])).run(observer=RunObserver(observe=observe))
"""


@pytest.mark.slow
@pytest.mark.parametrize("record", [20, 40, 60, 75])
def test_a_killed_driver_tells_each_thing_once_in_all(
    tmp_path: Path, hook: Hook, record: int
) -> None:
    path = write_toy(tmp_path, notify={"webhook": hook.url})
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(record)],
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode < 0
    Campaign.from_yaml(path).run()
    ids = {x["id"]: x["about"] for x in hook.taken}
    assert Counter(ids.values()) == {"budget": 4, "finished": 1}
