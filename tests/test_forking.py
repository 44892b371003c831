"""Forks: another store with a campaign's past, and rules of its own from there on."""

import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.cli.app import run_command
from alloop.core.errors import InputError
from alloop.history.reader import CODEC, read_history
from alloop.loop import events as e
from alloop.report.status import campaign_status
from alloop.report.text.event_log import log_lines
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.doctor import verify_store
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

BUDGET = {"cheap": 26, "expensive": 10}
MORE = {"cheap": 36, "expensive": 14}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished toy campaign of two generations."""
    path = write_toy(tmp_path_factory.mktemp("parent"), budget=BUDGET)
    assert Campaign.from_yaml(path).run().exit_code == 0
    return path.with_name("toy.zarr")


def contents(store: Path) -> dict[str, str]:
    """Every file of a store and the hash of its bytes."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(store)): sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_a_fork_with_a_larger_budget_runs_to_its_own_end(
    parent: Path, tmp_path: Path
) -> None:
    before = contents(parent)
    rules = write_toy(tmp_path, budget=MORE, explore={"steps": 60, "walkers": 4})
    out = tmp_path / "deeper" / "fork.zarr"
    command = ["fork", str(parent), str(out), "--at", "1", "--config", str(rules)]
    assert run_command(command) == 0
    assert [x.generation for x in read_history(out).trained()] == [1]
    rules.unlink()
    assert Campaign.from_store(out).run().exit_code == 0
    state = read_history(out).state
    assert state.finished == "the budget of expensive labels is spent"
    assert (state.labels.used("cheap"), state.labels.used("expensive")) == (36, 14)
    old, new = store_contents(parent), store_contents(out)
    first = {k for k in old if k.startswith("seed ") or k == "model 1"}
    assert {k: old[k] for k in first} == {k: new[k] for k in first}
    assert old["model 2"] != new["model 2"]
    assert contents(parent) == before
    assert verify_store(out, CODEC) == []


def test_a_fork_of_the_last_generation_is_the_parent_gone_on(
    parent: Path, tmp_path: Path
) -> None:
    rules = write_toy(tmp_path, budget=MORE)
    fork = Campaign.from_store(parent).fork(tmp_path / "fork.zarr", rules=rules)
    assert fork.run().exit_code == 0
    shutil.copytree(parent, tmp_path / "toy.zarr")
    assert Campaign.from_yaml(rules).run().exit_code == 0
    assert store_contents(fork.store) == store_contents(tmp_path / "toy.zarr")


def test_a_fork_has_the_records_and_models_of_its_past_alone(
    parent: Path, tmp_path: Path
) -> None:
    fork = Campaign.from_store(parent).fork(tmp_path / "fork.zarr", at=1).history()
    old = read_history(parent)
    cut = next(x.seq for x, event in old.events() if isinstance(event, e.Trained))
    assert len(fork.entries) == cut + 2
    times = [entry.time for entry in fork.entries[: cut + 1]]
    assert times == [entry.time for entry in old.entries[: cut + 1]]
    assert [x.turn.commands for x in fork.entries[cut:]] == [(), ()]
    last = fork.entries[-1].turn.event
    assert isinstance(last, e.Forked)
    assert (last.parent, last.seq, last.generation) == (str(parent), cut, 1)
    assert fork.state.finished is None
    with Archive.open(tmp_path / "fork.zarr", CODEC) as archive:
        assert archive.model_ids() == (old.trained()[0].model,)


def test_long_journals_are_copied_pack_by_pack(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "RECORDS", 8)
    many = tmp_path / "many.zarr"
    with (
        Archive.open(parent, CODEC) as old,
        Archive.create(many, attrs=old.attrs, codec=CODEC) as new,
    ):
        for model in old.model_ids():
            new.put_model(model, old.model(model))
        for stored in old.records():
            new.append(stored.record)
    fork = Campaign.from_store(many).fork(tmp_path / "fork.zarr", at=2)
    names = {path.name for path in (fork.store / "journal").iterdir()}
    assert "00000000-00000007" in names
    assert verify_store(fork.store, CODEC) == []
    direct = Campaign.from_store(parent).fork(tmp_path / "direct.zarr", at=2)
    assert store_contents(fork.store) == store_contents(direct.store)


def test_a_fork_says_where_it_came_from(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fork.zarr"
    Campaign.from_store(parent).fork(out, at=1)
    history = read_history(out)
    (line,) = [x for x in log_lines(history) if "forked from" in x]
    assert str(parent) in line
    assert "generation 1" in line
    assert campaign_status(history)["parent"]["generation"] == 1
    assert campaign_status(read_history(parent))["parent"] is None
    assert run_command(["status", str(out)]) == 0
    assert f"from {parent}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 8}, "seed"),
        ({"start": [{"molecule": "NH3"}]}, "start"),
        ({"levels": {"cheap": {"kind": "toy"}, "expensive": {"kind": "toy"}}}, "level"),
    ],
)
def test_rules_of_another_campaign_are_refused(
    parent: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    rules = write_toy(tmp_path, budget=BUDGET, **changes)
    with pytest.raises(InputError, match=said):
        Campaign.from_store(parent).fork(tmp_path / "fork.zarr", rules=rules)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]


def test_a_generation_that_is_not_there_and_a_place_that_is_taken_are_refused(
    parent: Path, tmp_path: Path
) -> None:
    campaign = Campaign.from_store(parent)
    with pytest.raises(InputError, match="there are: 1, 2"):
        campaign.fork(tmp_path / "fork.zarr", at=3)
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="exists already"):
        campaign.fork(tmp_path / "taken")
    with pytest.raises(InputError, match="lies in it"):
        campaign.fork(parent / "fork.zarr")


KILLED = """
import sys
from pathlib import Path
from alloop.store_copies.fork import fork_store
print("ready", flush=True)
fork_store(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_fork_leaves_nothing_half_made(parent: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "fork.zarr", contents(parent)
    command = [sys.executable, "-c", KILLED, str(parent), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        journal = tmp_path / "fork.zarr.partial" / "journal"
        deadline = time.monotonic() + 60
        while not (journal / "00000000-").exists():
            assert time.monotonic() < deadline
        process.kill()
    assert not out.exists()
    fork = Campaign.from_store(parent).fork(out)
    assert verify_store(fork.store, CODEC) == []
    assert [path.name for path in tmp_path.iterdir()] == ["fork.zarr"]
    assert contents(parent) == before
