"""Copies of stores in use: whole at every instant, with the campaign's own end."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.core.errors import AlloopError, InputError
from alloop.driver.notices import read_notices
from alloop.driver.run import RunObserver
from alloop.history.column_check import check_columns
from alloop.history.reader import CODEC, read_history
from alloop.store import packs
from alloop.store.archive import Archive
from alloop.store.doctor import verify_store
from alloop.store_copies.live_copy import copy_store
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

pytestmark = pytest.mark.usefixtures("uncovered")


def digests(store: Path) -> list[bytes]:
    with Archive.open(store, CODEC) as archive:
        return [entry.digest for entry in archive.entries()]


def test_a_copy_taken_while_a_campaign_runs_is_whole_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old records are sealed beside it; one copy is left behind at record 30."""
    monkeypatch.setattr(packs, "RECORDS", 16)
    store, copy, left = (tmp_path / x for x in ("toy.zarr", "copy.zarr", "left.zarr"))
    turns: list[int] = []

    def observe(*_: object) -> None:
        turns.append(1)
        if len(turns) % 23 == 0:
            found = copy_store(store, copy)
            assert (found.total, found.records) == (len(turns), 23)
            assert verify_store(copy, CODEC) == []
        if len(turns) == 30:
            assert main(["copy", str(store), str(left)]) == 0

    Campaign.from_yaml(write_toy(tmp_path)).run(observer=RunObserver(observe=observe))
    copy_store(store, copy)
    assert digests(copy) == digests(store)
    assert check_columns(copy) == []
    assert read_notices(copy) == read_notices(store)
    assert read_history(copy).state.finished
    assert copy_store(store, copy).records == 0
    assert len(read_history(left).entries) == 30
    assert Campaign.from_store(left).run().finished
    assert store_contents(left) == store_contents(store)
    with pytest.raises(InputError, match="a copy that went on by itself"):
        copy_store(store, left)
    with pytest.raises(InputError, match="another place"):
        copy_store(store, store)


COPYING = """
import sys
from pathlib import Path
from alloop.core.errors import AlloopError
from alloop.store_copies.live_copy import copy_store
print("ready", flush=True)
while True:
    copy_store(Path(sys.argv[1]), Path(sys.argv[2]))
"""
RUNNING = """
import sys
from pathlib import Path
from alloop.campaign import Campaign
from alloop.store import packs
packs.RECORDS = 16
Campaign.from_yaml(Path(sys.argv[1])).run()
"""


@pytest.mark.slow
def test_kills_of_either_side_leave_a_copy_that_ends_the_same(tmp_path: Path) -> None:
    rng, path = random.Random(3), write_toy(tmp_path / "x")
    store, copy = path.with_name("toy.zarr"), tmp_path / "copy.zarr"
    alone = Campaign.from_yaml(write_toy(tmp_path / "alone"))
    alone.run()
    whole = 0
    for _ in range(6):
        driver = subprocess.Popen([sys.executable, "-c", RUNNING, str(path)])
        while not store.exists():
            time.sleep(0.05)
        copier = subprocess.Popen(
            [sys.executable, "-c", COPYING, str(store), str(copy)],
            stdout=subprocess.PIPE,
        )
        assert copier.stdout is not None
        copier.stdout.readline()
        time.sleep(rng.uniform(0.0, 1.5))
        for process in rng.sample([driver, copier], 2):
            process.send_signal(signal.SIGKILL)
            process.wait()
        copier.stdout.close()
        if copy.exists():
            assert verify_store(copy, CODEC) == []
            there = digests(copy)
            assert there == digests(store)[: len(there)]
            whole += len(there) > 0
    assert whole
    copy_store(store, copy)
    assert Campaign.from_store(copy).run().finished
    assert store_contents(copy) == store_contents(alone.store)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["cp -r", "rsync -a --delete"])
def test_plain_copies_of_a_running_store_open_or_say_in_one_sentence_why_not(
    tmp_path: Path, command: str
) -> None:
    """rsync goes on with its last copy, cp begins anew."""
    program, *options = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = write_toy(tmp_path / "x")
    store, opened, refused = path.with_name("toy.zarr"), 0, 0
    driver = subprocess.Popen([sys.executable, "-c", RUNNING, str(path)])
    while driver.poll() is None:
        copy = tmp_path / "copy.zarr"
        if program == "cp":
            shutil.rmtree(copy, ignore_errors=True)
        source = store if program == "cp" else f"{store}/"
        words = [program, *options, source, copy]
        done = subprocess.run(words, capture_output=True, check=False)
        if not copy.exists():
            continue
        try:
            there = digests(copy)
        except AlloopError:
            refused += 1
            continue
        opened += 1
        assert there == digests(store)[: len(there)], done.stderr
    print(f"{command}: {opened} opened, {refused} refused")  # noqa: T201
    assert opened > 10
