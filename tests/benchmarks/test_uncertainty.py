"""The benchmark of scorers: its figures by brute force, and what models learn from."""

import numpy as np
import pytest

from alloop.core.frame import Frame
from benchmarks.accuracy.labelled_pool import LabelledPool, LabelTable
from benchmarks.accuracy.uncertainty.models import draw_frames
from benchmarks.accuracy.uncertainty.scorers import error_figures


def test_figures_are_those_of_pairs_of_frames() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random(60)
    surprise = errors + 0.3 * rng.random(60)
    worst, others = np.argsort(-errors)[:6], np.argsort(-errors)[6:]
    pairs = surprise[worst][:, None] > surprise[others]
    found = error_figures(surprise, errors)
    assert found["auroc"] == pytest.approx(pairs.mean())
    taken = np.argsort(-surprise)[:6]
    assert found["caught"] == pytest.approx(errors[taken].sum() / errors[worst].sum())
    assert error_figures(errors**3, errors) == pytest.approx(
        {"spearman": 1.0, "auroc": 1.0, "caught": 1.0}
    )


@pytest.mark.parametrize("draw", ["random", "low"])
def test_models_learn_from_the_pool_alone_and_low_ones_from_its_cold_half(
    draw: str,
) -> None:
    rng = np.random.default_rng(1)
    energies, forces = rng.random(400), tuple(np.zeros((400, 1, 3)))
    table = LabelTable(energies, forces)
    pool = LabelledPool(
        name="atoms",
        start=(),
        frames=(Frame(np.ones(1, dtype=np.int64), np.zeros((1, 3))),) * 400,
        molecules=np.zeros(400, dtype=np.int64),
        tables={"cheap": table, "expensive": table},
        levels={},
        chosen=np.arange(300),
        tests={"all": np.arange(300, 400)},
    )
    drawn = draw_frames(pool, draw, seed=2, cheap=40, expensive=10)
    assert (len(drawn.cheap), len(drawn.expensive)) == (40, 10)
    assert set(drawn.expensive) <= set(drawn.cheap)
    assert not set(drawn.heldout) & set(drawn.cheap)
    used = np.concatenate([drawn.cheap, drawn.heldout])
    assert used.max() < 300
    middle = np.median(energies[:300])
    assert (energies[used].max() < middle) == (draw == "low")
