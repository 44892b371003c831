"""Campaigns with one label cache: no label of a frame and level is made twice."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.core.records import Label
from alloop.history.reader import read_history
from alloop.store import claims
from alloop.store.claims import LabelClaims
from tests.conftest import wait_for, write_toy


def caching_toy(folder: Path, burn: float = 0.0) -> Path:
    """A toy campaign with a label cache beside its folder."""
    slow = {"kind": "toy", "burn": burn}
    cheap = {**slow, "stiffness": 0.9, "stretch": 0.02}
    return write_toy(
        folder,
        levels={"cheap": cheap, "expensive": slow},
        budget={"cheap": 20, "expensive": 8},
        cache="../labels",
    )


def process(file: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "alloop", "run", str(file), "--quiet"],
        text=True,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def computed(store: Path) -> set[tuple[str, str]]:
    """The labels that a campaign made itself."""
    return set(read_history(store).label_index.computed)


def test_campaigns_side_by_side_make_each_label_once(tmp_path: Path) -> None:
    """The same campaign alone, and twice at once."""
    Campaign.from_yaml(caching_toy(tmp_path / "apart" / "a")).run()
    whole = tmp_path / "apart" / "a" / "toy.zarr"
    campaigns = [Campaign.from_yaml(caching_toy(tmp_path / x)) for x in "ab"]
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(campaign.run) for campaign in campaigns]
        assert all(run.result(60).finished for run in runs)
    shares = [computed(campaign.store) for campaign in campaigns]
    assert sum(map(len, shares)) == len(set.union(*shares)) == len(computed(whole))
    assert all(shares)
    assert [labels(campaign.store) for campaign in campaigns] == [labels(whole)] * 2


@pytest.mark.slow
def test_a_campaign_takes_over_what_a_killed_one_had_claimed(
    tmp_path: Path,
) -> None:
    """The same campaign four times: alone, two at once, and one afterwards.

    Of the two, the first is halted amid its labels; the second waits for those that the
    first has claimed, and takes them over when the first is killed.
    """
    Campaign.from_yaml(caching_toy(tmp_path / "apart" / "a")).run()
    whole = tmp_path / "apart" / "a" / "toy.zarr"
    stores = {name: tmp_path / name / "toy.zarr" for name in "abc"}
    files = {name: caching_toy(tmp_path / name, burn=0.02) for name in "abc"}
    first = process(files["a"])
    wait_for(lambda: stores["a"].exists() and len(computed(stores["a"])) > 2)
    first.send_signal(signal.SIGSTOP)
    (claimed,) = (
        claims._live_claims(x)
        for x in (tmp_path / "labels" / "claims").iterdir()
        if x.name != "door"
    )
    assert claimed
    second = process(files["b"])
    wait_for(lambda: stores["b"].exists() and read_history(stores["b"]).state.open)
    time.sleep(1.5)  # it looks at what the first computes once a second
    assert computed(stores["b"]).isdisjoint(claimed)
    first.kill()
    first.communicate()
    again = process(files["a"])
    for run in (second, again):
        assert run.wait(60) == 0, run.communicate()[1]
        run.communicate()
    Campaign.from_yaml(files["c"]).run()
    shares = [computed(store) for store in stores.values()]
    assert sum(map(len, shares)) == len(set.union(*shares)) == len(computed(whole))
    assert (bool(shares[0]), bool(shares[1]), shares[2]) == (True, True, set())
    for store in stores.values():
        assert labels(store) == labels(whole)


def labels(store: Path) -> set[tuple[str, float]]:
    """Frames and energies at all levels, whose ids know the time that they burn."""
    index = read_history(store).label_index.labels
    return {(x.frame, x.energy) for x in index.values() if isinstance(x, Label)}


def test_claims_hold_while_their_run_lives(tmp_path: Path) -> None:
    problems: list[str] = []
    keys = {("level", "a"), ("level", "b")}
    one = LabelClaims(tmp_path, problems.append)
    two = LabelClaims(tmp_path, problems.append)
    assert one.take([("level", "a")]) == {("level", "a")}
    assert one.take([("level", "a")]) == {("level", "a")}
    assert two.take(keys) == {("level", "b")}
    one.release(("level", "a"))
    one.release(("level", "b"))  # another's: nothing happens
    assert one.take(keys) == {("level", "a")}
    one.release(("level", "a"))
    assert two.take(keys) == keys
    two.close()
    assert one.take(keys) == keys
    left = LabelClaims(tmp_path, problems.append)
    left.take([("level", "c")])
    assert one.take([("level", "c")]) == set()
    assert left._handle is not None
    os.close(left._handle)  # as the kernel does for a process that is killed
    assert one.take([("level", "c")]) == {("level", "c")}
    assert problems == []


def test_where_claims_do_not_work_labels_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(45, "no locks available")

    monkeypatch.setattr("alloop.store.claims.fcntl.flock", flock)
    problems: list[str] = []
    run = LabelClaims(tmp_path, problems.append)
    for frame in "ab":
        assert run.take([("level", frame)]) == {("level", frame)}
    run.close()
    assert len(problems) == 1
    assert "made twice" in problems[0]
