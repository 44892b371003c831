"""The benchmark of selection: campaigns on a frozen pool whose labels are known."""

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from benchmarks.accuracy.active import bootstrap_ratio, labels_to_error
from benchmarks.accuracy.labelled_pool import LabelledPool, LabelTable
from benchmarks.accuracy.table_campaign import (
    Arm,
    TableCampaign,
    pool_setup,
    true_error,
)

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
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
        tables[fidelity] = LabelTable(energies, tuple(x.forces for x in labels))
    return LabelledPool(
        name="water",
        start=(frames[0],),
        frames=frames,
        molecules=np.zeros(len(frames), dtype=np.int64),
        tables=tables,
        levels={"cheap": "hf/sto-3g", "expensive": "ccsd(t)/cc-pvdz"},
        chosen=np.arange(70),
        tests={"all": np.arange(70, 90)},
    )


@pytest.mark.parametrize("selection", ["surprise", "random"])
def test_a_campaign_on_a_pool_spends_its_budget_and_sees_no_test_frame(
    pool: LabelledPool, selection: str
) -> None:
    setup = pool_setup(pool, SETTINGS, {"flag": {"selection": selection}})
    prices = {"cheap": 1.0, "expensive": 50.0}
    campaign = TableCampaign(pool, setup, Arm(worth=true_error), prices)
    rows = campaign.run()
    assert [row["generation"] for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[-1]["cheap"], rows[-1]["expensive"]) == (30, 10)
    assert rows[-1]["price"] == 530.0
    seen = {pool.indices[frame] for frame in campaign.labelled_frames()}
    assert seen <= set(pool.chosen.tolist())


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
