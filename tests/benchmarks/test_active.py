"""The benchmark of selection: campaigns on a frozen pool whose labels are known."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from alloop.loop.commands import LabelFrame
from benchmarks.accuracy.labelled_pool import LabelledPool, LabelTable
from benchmarks.accuracy.selection.active import (
    bootstrap_ratio,
    campaign_settings,
    labels_to_error,
)
from benchmarks.accuracy.selection.arms import ARMS, Arm, true_error
from benchmarks.accuracy.selection.level_split import law_row
from benchmarks.accuracy.selection.table_campaign import TableCampaign, pool_setup

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
PRICES = {"cheap": 1.0, "expensive": 50.0}
SETTINGS = {
    "seed": 3,
    "potential": {"kind": "pairwise"},
    "budget": {"cheap": 30, "expensive": 10},
    "seeds": {"cheap": 10, "expensive": 4},
    "training": {"kind": "asteroid", "every": 3},
    "cluster": {"kind": "inline"},
}


@pytest.fixture(scope="module")
def pool() -> LabelledPool:
    rng = np.random.default_rng(0)
    frames = tuple(
        Frame(np.array([8, 1, 1]), WATER + rng.normal(0.0, 0.06, WATER.shape))
        for _ in range(90)
    )
    levels = {"cheap": toy_level(stiffness=0.9), "expensive": toy_level()}
    tables = {}
    for fidelity, level in levels.items():
        labels = [DirectLabeller(level).label(frame) for frame in frames]
        energies = np.array([label.energy for label in labels])
        forces = tuple(label.forces for label in labels)
        tables[fidelity] = LabelTable(energies, forces, np.full(90, PRICES[fidelity]))
    return LabelledPool(
        name="water",
        names=("H2O",),
        start=(frames[0],),
        frames=frames,
        molecules=np.zeros(len(frames), dtype=np.int64),
        tables=tables,
        levels={"cheap": "hf/sto-3g", "expensive": "ccsd(t)/cc-pvdz"},
        chosen=np.arange(70),
        tests={"all": np.arange(70, 90)},
        first=np.arange(10, 70),
        plain=np.arange(50),
    )


@pytest.mark.parametrize("selection", ["surprise", "random"])
def test_a_campaign_on_a_pool_spends_its_budget_and_sees_no_test_frame(
    pool: LabelledPool, selection: str
) -> None:
    setup = pool_setup(pool, SETTINGS, {"flag": {"selection": selection}})
    campaign = TableCampaign(pool, setup, Arm(worth=true_error), pool.prices(None))
    rows = campaign.run()
    assert [row["generation"] for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[-1]["cheap"], rows[-1]["expensive"]) == (30, 10)
    assert rows[-1]["price"] == 530.0
    seen = {pool.indices[frame] for frame in campaign.labelled_frames()}
    assert seen <= set(pool.chosen.tolist())


def run_arm(pool: LabelledPool, name: str) -> list[LabelFrame]:
    """Return all labels of a small campaign, in order, without its first ones."""
    few = {**SETTINGS, "budget": {"cheap": 20, "expensive": 7}}
    arm = ARMS[name]
    setup = pool_setup(pool, few, arm.changes)
    campaign = TableCampaign(pool, setup, arm, pool.prices(None))
    campaign.run()
    first = {pool.indices[x.frame.id] for x in campaign.asked if x.purpose == "seed"}
    assert first <= set(pool.first.tolist())
    return [x for x in campaign.asked if x.purpose != "seed"]


def test_an_arm_of_plain_md_labels_no_other_frames(pool: LabelledPool) -> None:
    labelled = {pool.indices[x.frame.id] for x in run_arm(pool, "plain-md")}
    assert len(labelled) == 10
    assert labelled <= set(pool.plain.tolist())


def test_control_frames_cost_labels_of_both_levels(pool: LabelledPool) -> None:
    controls = [x for x in run_arm(pool, "campaign") if x.purpose == "control"]
    assert {x.fidelity for x in controls} == {"cheap", "expensive"}


def test_farthest_points_come_from_the_whole_pool(pool: LabelledPool) -> None:
    odd = WATER * 1.25  # far from all others
    frames = (*pool.frames[:65], Frame(np.array([8, 1, 1]), odd), *pool.frames[66:])
    other = replace(pool, frames=frames, first=np.arange(60))
    assert frames[65].id in {x.frame.id for x in run_arm(other, "farthest")}


@pytest.mark.parametrize("arm", ["campaign", "half-cheap", "double-cheap", "expensive"])
def test_arms_have_the_same_price_to_spend(arm: str) -> None:
    given = Namespace(cheap=400, expensive=60, generations=4, steps=1000)
    spends = campaign_settings(given, ARMS[arm], {"cheap": 0.3, "expensive": 6.0})
    budget = spends["budget"]
    assert 0.3 * budget["cheap"] + 6.0 * budget["expensive"] == pytest.approx(480.0)
    assert budget["cheap"] == 400 * ARMS[arm].cheap


def test_a_pool_without_prices_needs_a_ratio(pool: LabelledPool) -> None:
    for ratio, expected in ((None, 50.0), (7.0, 7.0)):
        prices = pool.prices(ratio)
        assert prices["cheap"] == pytest.approx(np.ones(90))
        assert prices["expensive"] == pytest.approx(np.full(90, expected))
    bare = {key: replace(x, cpu_seconds=None) for key, x in pool.tables.items()}
    with pytest.raises(ValueError, match="--ratio"):
        replace(pool, tables=bare).prices(None)


def test_the_oracle_s_worth_is_the_largest_error_of_an_atom(pool: LabelledPool) -> None:
    indices = np.array([3, 5])
    labels = pool.label_set("expensive", indices)
    zero = Predictions(np.zeros(2), np.zeros_like(labels.forces))
    worth = true_error(None, pool, indices, zero, np.zeros(2))
    table = pool.tables["expensive"].forces
    assert worth == pytest.approx(
        [np.linalg.norm(table[i], axis=1).max() for i in indices]
    )


def test_labels_to_an_error_follow_a_power_law_between_generations() -> None:
    rows = [{"expensive": n, "all": {"force_mae": 8.0 / n**0.5}} for n in (4, 16, 64)]
    assert labels_to_error(rows, "all", 8.0 / 30**0.5) == pytest.approx(30.0)
    assert labels_to_error(rows, "all", 100.0) == 4.0
    assert np.isnan(labels_to_error(rows, "all", 0.1))


def test_a_ratio_that_all_seeds_share_has_no_spread() -> None:
    ratio, low, high = bootstrap_ratio([1.0, 4.0, 3.0], [2.0, 8.0, 6.0])
    assert (ratio, low, high) == pytest.approx((0.5, 0.5, 0.5))
    ratio, low, high = bootstrap_ratio([1.0, 8.0], [2.0, 4.0])
    assert low < ratio < high


def test_where_the_law_of_errors_is_known_the_measured_split_comes_close_to_the_best():
    row = law_row("ethanol", 100.0, 0.0, 1)
    assert row["best"] < 0.7
    assert row["measured"] == f"{row['best']:.2f} (0%)"
    assert law_row("useless", 3.0, 0.1, 3)["measured"].endswith("(100%)")


def test_a_campaign_gives_up_cheap_labels_that_are_of_no_use(
    pool: LabelledPool,
) -> None:
    table = pool.tables["cheap"]
    other = np.random.default_rng(1).permutation(len(pool.frames))
    forces = tuple(table.forces[i] for i in other)
    wrong = replace(table, energies=table.energies[other], forces=forces)
    useless = replace(pool, tables={**pool.tables, "cheap": wrong})
    settings = {
        **SETTINGS,
        "budget": {"cheap": 80, "expensive": 40},
        "seeds": {"cheap": 20, "expensive": 22},
        "training": {"kind": "asteroid", "every": 6},
    }
    setup = pool_setup(useless, settings, ARMS["measured"].changes)
    campaign = TableCampaign(useless, setup, ARMS["measured"], useless.prices(2.0))
    rows = campaign.run()
    assert len(campaign.parts) == 5 * len(rows)
    assert rows[-1]["price"] <= 80 + 2 * 40
    late = [
        x
        for x in campaign.asked
        if x.reason.endswith("no more cheap labels are bought")
    ]
    assert late
    assert {x.fidelity for x in late} == {"expensive"}
