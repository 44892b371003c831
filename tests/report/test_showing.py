"""What the commands print of a store on disk."""

from dataclasses import replace

import pytest

from alloop.cli.app import run_command
from alloop.core.records import Failure
from alloop.history.reader import CODEC
from alloop.loop import events as e
from alloop.store.archive import Archive


@pytest.fixture(scope="module")
def store(troubled, tmp_path_factory):
    """The troubled campaign as a store, one of whose labels ran into its limit."""
    path = tmp_path_factory.mktemp("showing") / "springs.zarr"
    turns = [entry.turn for entry in troubled.entries]
    at = next(i for i, x in enumerate(turns) if isinstance(x.event, e.NotLabelled))
    lost = replace(turns[at].event.unlabelled, failure=Failure.TIMEOUT)
    turns[at] = replace(turns[at], event=replace(turns[at].event, unlabelled=lost))
    attrs = {key: troubled.attrs[key] for key in ("name", "seed", "config", "levels")}
    with Archive.create(path, attrs=attrs, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
    return path, lost


def test_status_counts_quarantined_labels_and_says_how_to_retry(store, capsys):
    path, _ = store
    assert run_command(["status", str(path), "--all"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "quarantine 5 labels failed; `alloop resume" in out
    assert "--retry` requests 1 again" in out
    assert "labels level good doubtful failed of budget CPU s" in out


def test_why_tells_of_a_lost_label_what_to_do(store, capsys):
    path, lost = store
    assert run_command(["why", str(path), lost.frame[:12]]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No cheap label, timeout: the label ran into its time limit; raise" in out
    assert "`alloop resume STORE --retry` tries it again." in out


def test_log_words_noise_and_prices(store, capsys):
    path, _ = store
    assert run_command(["log", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("was made again to know its noise: energy moved by") == 9
    assert "prices of labels fitted: cheap from 55 labels and expensive from" in out
