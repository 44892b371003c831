"""Selection: what is chosen, what is not, and that order never counts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.core.frame import Frame
from alloop.core.records import Candidate
from alloop.core.roles import Selector
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.selection import (
    LargestCluster,
    MostSurprising,
    PerMolecule,
    RandomChoice,
)

NOTHING = np.zeros((0, 0))
SEEDS = st.integers(0, 10_000)


def candidate(
    number: int,
    surprise: float,
    descriptor: list[float] | Floats,
    molecule: int = 0,
    origin: str = "surprise",
) -> Candidate:
    return Candidate(
        frame=Frame(np.array([18]), np.array([[float(number), 0.0, 0.0]])),
        molecule=molecule,
        walker=0,
        step=number,
        surprise=surprise,
        energy=0.0,
        forces=np.zeros((1, 3)),
        descriptor=np.asarray(descriptor, dtype=float),
        origin=origin,
    )


def some(seed: int, count: int = 25, molecules: int = 1) -> list[Candidate]:
    rng = random_stream(seed, "candidates")
    return [
        candidate(
            i,
            float(rng.gamma(1.0)),
            rng.standard_normal(3),
            int(rng.integers(molecules)),
        )
        for i in range(count)
    ]


def rng() -> np.random.Generator:
    return random_stream(0, "selection")


def ids(candidates: list[Candidate], chosen: tuple[int, ...]) -> list[str]:
    return [candidates[index].frame.id for index in chosen]


SELECTORS = pytest.mark.parametrize(
    ("selector", "threshold"),
    [
        (MostSurprising(), 1.0),
        (MostSurprising(), None),
        (MostSurprising(fill=False), 2.0),
        (LargestCluster(), 1.0),
        (LargestCluster(fill=False), 2.0),
        (RandomChoice(), None),
    ],
)


@SELECTORS
@given(seed=SEEDS, quota=st.integers(0, 30), order=st.permutations(range(25)))
def test_the_order_of_candidates_never_counts(
    selector: Selector,
    threshold: float | None,
    seed: int,
    quota: int,
    order: list[int],
) -> None:
    pool = some(seed)
    shuffled = [pool[index] for index in order]
    known = np.array([candidate.descriptor for candidate in some(seed + 1, 4)])
    one = ids(pool, selector.select(pool, known, quota, rng(), threshold))
    other = ids(shuffled, selector.select(shuffled, known, quota, rng(), threshold))
    assert one == other
    assert len(one) == len(set(one)) <= quota


@SELECTORS
@given(seed=SEEDS)
def test_a_smaller_quota_takes_the_first_of_a_larger_one(
    selector: Selector, threshold: float | None, seed: int
) -> None:
    pool = some(seed)
    many = selector.select(pool, NOTHING, 12, rng(), threshold)
    assert selector.select(pool, NOTHING, 5, rng(), threshold) == many[:5]


@SELECTORS
def test_no_frame_is_chosen_twice(selector: Selector, threshold: float | None) -> None:
    pool = [candidate(i % 5, 3.0 + i, [float(i), 0.0]) for i in range(15)]
    chosen = ids(pool, selector.select(pool, NOTHING, 15, rng(), threshold))
    assert len(chosen) == len(set(chosen)) == 5


@given(SEEDS)
def test_what_is_above_the_threshold_comes_first(seed: int) -> None:
    pool = some(seed)
    above = sum(c.surprise > 1.0 for c in pool)
    chosen = MostSurprising(duplicate=0.0).select(pool, NOTHING, 25, rng(), 1.0)
    assert len(chosen) == 25
    assert all(pool[i].surprise > 1.0 for i in chosen[:above])
    assert all(pool[i].surprise <= 1.0 for i in chosen[above:])
    strict = MostSurprising(fill=False, duplicate=0.0)
    assert strict.select(pool, NOTHING, 25, rng(), 1.0) == chosen[:above]


def test_frames_that_guard_rails_picked_count_as_above() -> None:
    pool = [*some(1), candidate(99, 0.0, [0.0, 0.0, 0.0], origin="force")]
    assert MostSurprising(fill=False).select(pool, NOTHING, 9, rng()) == (25,)
    assert MostSurprising(fill=True).select(pool, NOTHING, 9, rng())[0] == 25


def test_balance_goes_from_surprise_alone_to_distance_alone() -> None:
    pool = [
        candidate(0, 9.0, [0.0, 0.0]),
        candidate(1, 8.0, [0.5, 0.0]),
        candidate(2, 1.0, [5.0, 0.0]),
        candidate(3, 2.0, [2.5, 0.0]),
    ]
    greedy = MostSurprising(balance=0.0)
    assert greedy.select(pool, NOTHING, 4, rng(), 0.0) == (0, 1, 3, 2)
    known = np.array([[0.0, 0.0]])
    farthest = MostSurprising(balance=1.0)
    assert farthest.select(pool, known, 3, rng(), 0.0) == (2, 3, 1)


def test_the_most_surprising_comes_first_where_nothing_is_known() -> None:
    pool = some(3)
    first = MostSurprising().select(pool, NOTHING, 1, rng())[0]
    assert pool[first].surprise == max(c.surprise for c in pool)


def test_near_duplicates_of_known_or_chosen_frames_are_left_out() -> None:
    pool = [
        candidate(0, 9.0, [0.0, 0.0]),
        candidate(1, 8.0, [0.001, 0.0]),
        candidate(2, 7.0, [1.0, 0.0]),
        candidate(3, 6.0, [0.0, 1.0]),
    ]
    assert set(MostSurprising().select(pool, NOTHING, 4, rng(), 0.0)) == {0, 2, 3}
    landmarks = np.array([[0.001, 1.0]])
    assert set(MostSurprising().select(pool, landmarks, 4, rng(), 0.0)) == {0, 2}


def test_candidates_without_descriptors_are_ranked_by_surprise() -> None:
    pool = [candidate(i, float(i), np.zeros(0)) for i in range(4)]
    assert MostSurprising().select(pool, NOTHING, 3, rng()) == (3, 2, 1)


def test_a_surprise_that_is_no_number_stands_last() -> None:
    pool = [candidate(0, float("nan"), [0.0]), candidate(1, -3.0, [1.0])]
    assert MostSurprising(balance=0.0).select(pool, NOTHING, 2, rng()) == (1, 0)


def test_random_choice_is_uniform() -> None:
    pool, counts = some(4, 10), np.zeros(10)
    for number in range(1500):
        chosen = RandomChoice().select(pool, NOTHING, 3, random_stream(number, "draw"))
        counts[list(chosen)] += 1
    assert ((counts - 450) ** 2 / 450).sum() < 27.9  # 9 degrees of freedom, p = 0.001


@given(SEEDS, st.integers(0, 30))
def test_every_molecule_gets_its_share(seed: int, quota: int) -> None:
    pool = some(seed, molecules=3)
    selector = MostSurprising(duplicate=0.0)
    chosen = PerMolecule(selector).select(pool, NOTHING, quota, rng())
    assert len(chosen) == len(set(chosen)) == min(quota, len(pool))
    shares = [sum(pool[i].molecule == m for i in chosen) for m in range(3)]
    have = [sum(c.molecule == m for c in pool) for m in range(3)]
    hungry = [s for s, h in zip(shares, have, strict=True) if s < h]
    assert max(hungry, default=0) - min(hungry, default=0) <= 1
    assert all(s <= max(hungry, default=25) + 1 for s in shares)


@given(SEEDS, st.permutations(range(25)))
def test_shares_do_not_depend_on_the_order_of_candidates(
    seed: int, order: list[int]
) -> None:
    pool = some(seed, molecules=3)
    shuffled = [pool[index] for index in order]
    for selector in (MostSurprising(), RandomChoice()):
        one = PerMolecule(selector).select(pool, NOTHING, 7, rng(), 1.0)
        other = PerMolecule(selector).select(shuffled, NOTHING, 7, rng(), 1.0)
        assert ids(pool, one) == ids(shuffled, other)


def test_nothing_is_chosen_from_nothing() -> None:
    for selector in (MostSurprising(), RandomChoice()):
        assert selector.select([], NOTHING, 3, rng()) == ()
        assert PerMolecule(selector).select([], NOTHING, 3, rng(), 1.0) == ()


def test_all_are_selectors() -> None:
    assert isinstance(MostSurprising(), Selector)
    assert isinstance(RandomChoice(), Selector)
    assert isinstance(PerMolecule(RandomChoice()), Selector)


def test_a_candidates_molecule_does_not_change_its_rank_within_it() -> None:
    pool = some(5)
    moved = [replace(c, molecule=4) for c in pool]
    selector = MostSurprising()
    plain = selector.select(pool, NOTHING, 8, rng(), 1.0)
    assert PerMolecule(selector).select(moved, NOTHING, 8, rng(), 1.0) == plain


def test_clusters_are_chosen_from_by_their_size_not_by_the_farthest_point() -> None:
    # One far point alone, and a crowd nearer to its own centre: the crowd comes first.
    crowd = [candidate(i, 1.0, [10.0 + 0.5 * i, 0.0]) for i in range(1, 9)]
    lonely = candidate(20, 1.0, [-5.0, 0.0])
    centres = np.array([[10.0, 0.0], [0.0, 0.0]])
    pool = [lonely, *crowd]
    chosen = LargestCluster().select(pool, centres, 3, rng())
    assert [pool[i].step for i in chosen] == [8, 20, 4]


def test_surprise_weighs_within_a_cluster() -> None:
    pool = [candidate(1, 5.0, [1.0, 0.0]), candidate(2, 0.1, [1.2, 0.0])]
    pool += [candidate(i, 1.0, [0.1 * i, 0.0]) for i in range(3, 6)]
    chosen = LargestCluster().select(pool, np.zeros((1, 2)), 1, rng())
    assert pool[chosen[0]].step == 1


def test_clusters_work_without_known_frames_or_descriptors() -> None:
    pool = some(3)
    first = LargestCluster().select(pool, NOTHING, 1, rng())
    assert pool[first[0]].surprise == max(x.surprise for x in pool)
    plain = [replace(x, descriptor=np.zeros(0)) for x in pool]
    chosen = LargestCluster().select(plain, NOTHING, 5, rng())
    assert len(set(chosen)) == 5
