"""Signals at random instants: the campaign ends as one that was left alone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from alloop.history.column_check import check_columns
from benchmarks.durability.comparison import Reference, Trial, store_contents
from benchmarks.durability.process_trials import (
    TARGETS,
    copied_store_trial,
    driver_kill_trials,
    driver_server,
    halted_driver_trial,
    run_reference,
    signal_trials,
)
from benchmarks.durability.processes import (
    ForkServer,
    count_records,
    finish_campaign,
    start_driver,
    wait_until,
)
from tests.conftest import write_toy

pytestmark = pytest.mark.usefixtures("uncovered")
IN_FLIGHT = 4  # labels: at work on two workers, and done but not committed


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return run_reference(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with contextlib.closing(driver_server()) as server:
        yield server


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(4, 3), *(pytest.param(seed, 10, marks=pytest.mark.slow) for seed in (4, 5))],
)
def test_kills_of_a_driver_change_nothing(
    tmp_path: Path, reference: Reference, seed: int, kills: int, server: ForkServer
) -> None:
    """Forked drivers, which begin at once: a kill costs no start of Python."""
    found = list(driver_kill_trials(server, tmp_path, seed, kills, reference))
    first: Trial = found[0]
    assert (len(found), first.problem, first.duplicates) == (kills, "", 0)
    assert first.relabelled <= kills  # the one in hand, at each kill


@pytest.mark.parametrize(
    ("target", "kills"),
    [
        pytest.param("external all", 1, marks=pytest.mark.slow),
        *(pytest.param(each, 3, marks=pytest.mark.slow) for each in TARGETS),
    ],
)
def test_signals_on_a_real_cluster_change_nothing(
    tmp_path: Path, target: str, kills: int, reference: Reference
) -> None:
    found = list(signal_trials(tmp_path, target, 11, kills, reference))
    first: Trial = found[0]
    assert (len(found), first.problem, first.duplicates) == (kills, "", 0)
    assert first.relabelled <= IN_FLIGHT * kills


@pytest.mark.parametrize(
    ("record", "unlocked"),
    [
        (30, True),
        *(pytest.param(x, True, marks=pytest.mark.slow) for x in (3, 12, 38)),
        *(pytest.param(x, False, marks=pytest.mark.slow) for x in (3, 30)),
    ],
)
def test_a_halted_driver_keeps_its_store_or_finds_that_it_has_lost_it(
    tmp_path: Path,
    reference: Reference,
    server: ForkServer,
    record: int,
    unlocked: bool,
) -> None:
    """SIGSTOP, another driver, SIGCONT: never do two write to one store."""
    assert halted_driver_trial(server, tmp_path, record, unlocked=unlocked) == ""
    assert store_contents(tmp_path / "toy.zarr") == reference.contents
    assert check_columns(tmp_path / "toy.zarr") == []


@pytest.mark.parametrize(
    "record", [12, *(pytest.param(x, marks=pytest.mark.slow) for x in (0, 3, 30, 38))]
)
def test_a_copy_of_a_live_store_goes_on_by_itself(
    tmp_path: Path, reference: Reference, server: ForkServer, record: int
) -> None:
    assert copied_store_trial(server, tmp_path, record) == ""
    for name in ("toy.zarr", "copy.zarr"):
        assert store_contents(tmp_path / name) == reference.contents
        assert check_columns(tmp_path / name) == []


NETWORK = {
    "potential": {"kind": "painn", "channels": 8, "layers": 1},
    "training": {
        "kind": "asteroid",
        "every": 4,
        "teacher": 30,
        "pretrain": 30,
        "finetune": 30,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, NETWORK], ids=["pairwise", "painn"])
def test_a_kill_on_real_chemistry_changes_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    levels = {
        "cheap": {"kind": "pyscf", "method": "hf", "basis": "sto-3g"},
        "expensive": {"kind": "pyscf", "method": "mp2", "basis": "6-31g"},
    }
    cluster = {"kind": "local", "workers": 2}
    real = {"levels": levels, "limits": {}, "cluster": cluster, **changes}
    quiet = write_toy(tmp_path / "alone", **real)
    assert finish_campaign(quiet) == ""
    campaign = write_toy(tmp_path / "hit", **real)
    process = start_driver(campaign)
    assert wait_until(lambda: count_records(campaign) > 30, 200)
    process.kill()
    process.communicate()
    assert finish_campaign(campaign) == ""
    expected = store_contents(quiet.with_name("toy.zarr"))
    assert store_contents(campaign.with_name("toy.zarr")) == expected
