"""Signals at random instants: the campaign ends as one that was left alone."""

import contextlib
from pathlib import Path

import pytest

from benchmarks.forks import forked, nursery
from benchmarks.kills import (
    THEIRS,
    VICTIMS,
    alone,
    finish,
    hunted,
    records,
    start,
    wait_for,
)
from benchmarks.ruins import Trial
from benchmarks.toys import Noted, Print
from tests.conftest import fingerprint_of, write_toy

pytestmark = pytest.mark.usefixtures("uncovered")
ALL = [*VICTIMS, *(f"their {victim}" for victim in THEIRS)]
IN_FLIGHT = 4  # labels: at work on two workers, and done but not committed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Print, Noted]:
    return alone(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(4, 3), *(pytest.param(seed, 10, marks=pytest.mark.slow) for seed in (4, 5))],
)
def test_kills_of_a_driver_change_nothing(
    tmp_path: Path, undisturbed: tuple[Print, Noted], seed: int, kills: int
) -> None:
    """Forked drivers, which begin at once: a kill costs no start of Python."""
    with contextlib.closing(nursery()) as drivers:
        found = list(forked(drivers, tmp_path, seed, kills, undisturbed))
    first: Trial = found[0]
    assert (len(found), first.wrong, first.twice) == (kills, "", 0)
    assert first.redone <= kills  # the one in hand, at each kill


@pytest.mark.parametrize(
    ("victim", "kills"),
    [
        ("their all", 1),
        *(pytest.param(each, 3, marks=pytest.mark.slow) for each in ALL),
    ],
)
def test_signals_on_a_real_cluster_change_nothing(
    tmp_path: Path, victim: str, kills: int, undisturbed: tuple[Print, Noted]
) -> None:
    found = list(hunted(tmp_path, victim, 11, kills, undisturbed))
    first: Trial = found[0]
    assert (len(found), first.wrong, first.twice) == (kills, "", 0)
    assert first.redone <= IN_FLIGHT * kills


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
    assert finish(quiet) == ""
    campaign = write_toy(tmp_path / "hit", **real)
    process = start(campaign)
    assert wait_for(lambda: records(campaign) > 30, 200)
    process.kill()
    process.communicate()
    assert finish(campaign) == ""
    expected = fingerprint_of(quiet.with_name("toy.zarr"))
    assert fingerprint_of(campaign.with_name("toy.zarr")) == expected
