"""The benchmark of protocols: what is learned, what is held out, and its sampling."""

from argparse import Namespace

import numpy as np

from alloop.core.atoms import hill_formula
from alloop.core.frame import Frame
from alloop.potentials.analytic import Morse
from benchmarks.accuracy.exploration.periodic import (
    _by_quarter,
    _pretraining_frames,
    fresh_walkers,
    move,
    table,
)
from benchmarks.accuracy.labelled_pool import DATA, read_pool

H2 = Frame([1, 1], [[0, 0, 0], [0, 0, 0.74]])


def test_the_universal_model_has_not_seen_the_molecule_nor_the_old_frames() -> None:
    pool = read_pool(DATA / "molecules.npz")
    own = pool.names.index("CH3OH")
    known, old = _pretraining_frames(pool, own, Namespace(known=200, test=50), 0)
    assert (len(known), len(old)) == (200, 50)
    learned, held = (x.batch.frames() for x in (known, old))
    assert not {f.id for f in learned} & {f.id for f in held}
    assert "CH4O" not in {hill_formula(f) for f in (*learned, *held)}


def test_frames_are_spread_over_the_later_part_of_a_run() -> None:
    begin = fresh_walkers(H2, 2, 0, "test")
    seen, moved = move(begin, Morse(4.7, 1.9, 0.74), 100, 0, "test")
    assert all(walker.step == 100 for walker in moved)
    assert sorted(seen.steps) == seen.steps
    some = seen.spread(4, after=50)
    assert len(some.frames) == 4
    assert min(some.steps) > 50
    assert len(seen.spread(1000).frames) == len(seen.frames)
    again, _ = move(begin, Morse(4.7, 1.9, 0.74), 100, 0, "test")
    assert [x.id for x in again.frames] == [x.id for x in seen.frames]


def test_quarters_of_a_run_that_ends_early_stay_empty() -> None:
    found = _by_quarter(np.array([1.0, 3.0, 5.0]), [10, 20, 40], 99)
    assert found == [2.0, 5.0, None, None]


def test_an_empty_folder_gives_no_table() -> None:
    sizes = dict.fromkeys(
        ("molecule", "truth", "channels", "known", "pretrain", "generations"), 1
    )
    sizes |= dict.fromkeys(("labels", "walkers", "steps", "tune", "lr", "share"), 1)
    sizes |= dict.fromkeys(("own", "own_steps", "true_steps", "long_steps", "test"), 1)
    given = Namespace(arms=["naive"], seed=[0], cluster=None, **sizes)
    assert table(given, {}, [0]) == []  # type: ignore[arg-type]
