"""Selectors, which pick the few of many candidates that are worth a label.

Candidates are sorted by frame id before anything else, so that the order in which they
came has no effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.records import Candidate
from alloop.core.roles import Selector
from alloop.core.units import Floats, Integers

_ORDINARY = ("surprise", "control")  # other origins are guard rails


@dataclass(frozen=True, slots=True)
class MostSurprising:
    """A selector of differing candidates above the threshold or from a guard rail.

    Greedy: the next choice has the largest s^(1 - balance) d^balance, with s the rank
    of its surprise among the candidates (1 for the largest) and d its distance, in mean
    descriptors, from all that is known or chosen; balance 1 is farthest-point sampling.
    A candidate closer than `duplicate` times the candidates' spread is a near-duplicate
    and never chosen. `fill` spends the rest of the quota below the threshold by the
    same rule; without a threshold only candidates from guard rails count as above it.
    """

    fill: bool = True
    balance: float = 0.5
    duplicate: float = 0.02

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,
        quota: int,
        rng: np.random.Generator,  # noqa: ARG002
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, best first."""
        order = _unique_candidates(candidates)
        if not order:
            return ()
        pool = [candidates[index] for index in order]
        alarmed = np.array([_is_above(candidate, threshold) for candidate in pool])
        greedy = _GreedySelection(self, pool, known)
        greedy.choose(alarmed, quota)
        if self.fill:
            greedy.choose(~alarmed, quota)
        return tuple(order[index] for index in greedy.chosen)


@dataclass(frozen=True, slots=True)
class LargestCluster:
    """A selector of the farthest candidate of the largest cluster, again and again.

    LCMD (Holzmüller et al., J. Mach. Learn. Res. 2023, 24, 164, section 4.3.7): all
    frames that are known or chosen are centres, a candidate belongs to the nearest one
    in mean descriptors, at the distance d. The largest cluster is that with the largest
    Σ s d², s the rank of surprise (1 for the largest); its candidate with the largest
    s d² is chosen, becomes a centre, and so on. Without any centre the most surprising
    candidate is the first. `fill` and `duplicate` are those of `MostSurprising`.
    """

    fill: bool = True
    duplicate: float = 0.02

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,
        quota: int,
        rng: np.random.Generator,  # noqa: ARG002
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, in the order of the choice."""
        order = _unique_candidates(candidates)
        pool = [candidates[index] for index in order]
        alarmed = [i for i, x in enumerate(pool) if _is_above(x, threshold)]
        chosen = self._choose(pool, alarmed, known, quota, ())
        if self.fill:
            chosen = self._choose(pool, range(len(pool)), known, quota, chosen)
        return tuple(order[index] for index in chosen)

    def _choose(
        self,
        pool: Sequence[Candidate],
        among: Sequence[int],
        known: Floats,
        quota: int,
        before: tuple[int, ...],
    ) -> tuple[int, ...]:
        """Return `before` and choices from `among` (indices), up to `quota` in all."""
        if not among or len(before) >= quota:
            return before
        points = np.stack([candidate.descriptor for candidate in pool])
        weight = _surprise_ranks([candidate.surprise for candidate in pool])
        centres = known if known.shape[1:] == points.shape[1:] else points[:0]
        scale, own = _point_spread(points), np.array(among)
        distance, nearest = _nearest_centres(points, centres)
        chosen = list(before)
        for number, index in enumerate(before):
            _add_centre(points, index, distance, nearest, len(centres) + number)
        while len(chosen) < quota:
            left = own[distance[own] >= self.duplicate * scale]
            left = left[~np.isin(left, chosen)]
            if not len(left):
                break
            worth = weight[left] * np.minimum(distance[left], 1e6 * scale) ** 2
            sizes = np.bincount(nearest[left], worth)
            inside = np.where(nearest[left] == np.argmax(sizes), worth, -1.0)
            index = int(left[np.argmax(inside)])
            _add_centre(points, index, distance, nearest, len(centres) + len(chosen))
            chosen.append(index)
        return tuple(chosen)


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """A selector that draws candidates uniformly, as a control."""

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,  # noqa: ARG002
        quota: int,
        rng: np.random.Generator,
        threshold: float | None = None,  # noqa: ARG002
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, in the order of the draw."""
        order = _unique_candidates(candidates)
        drawn = rng.permutation(len(order))[: max(quota, 0)]
        return tuple(order[index] for index in drawn)


@dataclass(frozen=True, slots=True)
class PerMolecule:
    """A selector that shares the quota among the molecules in turn.

    Each molecule's best candidate by `selector` comes first, then each one's second
    best; what one molecule cannot fill goes to the others. The order of the molecules
    is drawn at random.
    """

    selector: Selector

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,
        quota: int,
        rng: np.random.Generator,
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, molecules in turn."""
        ranked = []
        for molecule in sorted({candidate.molecule for candidate in candidates}):
            own = [i for i, x in enumerate(candidates) if x.molecule == molecule]
            among = [candidates[i] for i in own]
            chosen = self.selector.select(among, known, quota, rng, threshold)
            ranked.append([own[index] for index in chosen])
        turns = rng.permutation(len(ranked))
        longest = max(map(len, ranked), default=0)
        shared = [
            ranked[turn][place]
            for place in range(longest)
            for turn in turns
            if place < len(ranked[turn])
        ]
        return tuple(shared[: max(quota, 0)])


def _is_above(candidate: Candidate, threshold: float | None) -> bool:
    above = threshold is not None and candidate.surprise > threshold
    return above or candidate.origin not in _ORDINARY


class _GreedySelection:
    """A pool of candidates and those chosen from it so far."""

    def __init__(
        self, rule: MostSurprising, pool: Sequence[Candidate], known: Floats
    ) -> None:
        self._rule = rule
        self._points = np.stack([candidate.descriptor for candidate in pool])
        self._standing = _surprise_ranks([candidate.surprise for candidate in pool])
        self._scale = _point_spread(self._points)
        self._distance = _nearest_distances(self._points, known) / self._scale
        self._left = np.ones(len(pool), dtype=np.bool_)
        self.chosen: list[int] = []

    def choose(self, among: Integers, quota: int) -> None:
        """Choose from `among` (pool,) up to `quota` in all, without near-duplicates."""
        while len(self.chosen) < quota:
            open_ = among & self._left & (self._distance >= self._rule.duplicate)
            if not open_.any():
                return
            self._take(
                int(np.argmax(np.where(open_, self._candidate_worth(open_), -1.0)))
            )

    def _candidate_worth(self, open_: Integers) -> Floats:
        far = self._distance[open_].max()
        b = self._rule.balance
        known = 0.0 < far < np.inf
        d = self._distance / far if known else np.ones_like(self._distance)
        out: Floats = self._standing ** (1.0 - b) * d**b
        return out

    def _take(self, index: int) -> None:
        self.chosen.append(index)
        self._left[index] = False
        if not self._points.shape[1]:
            return
        away = np.linalg.norm(self._points - self._points[index], axis=1) / self._scale
        self._distance = np.minimum(self._distance, away)


def _unique_candidates(candidates: Sequence[Candidate]) -> list[int]:
    """Return the candidates' indices sorted by frame id, each frame once."""
    seen: set[str] = set()
    order = []
    for index in sorted(
        range(len(candidates)), key=lambda i: _candidate_key(candidates[i])
    ):
        if candidates[index].frame.id not in seen:
            seen.add(candidates[index].frame.id)
            order.append(index)
    return order


def _candidate_key(candidate: Candidate) -> tuple[str, float, int, int]:
    return (
        candidate.frame.id,
        -candidate.surprise,
        candidate.walker,
        candidate.step,
    )


def _surprise_ranks(surprise: Sequence[float]) -> Floats:
    """Return ranks of surprise, scaled to (0, 1]; equal surprise has equal rank."""
    _, where = np.unique(np.nan_to_num(surprise, nan=-np.inf), return_inverse=True)
    out: Floats = (where + 1.0) / (where.max() + 1.0)
    return out


def _point_spread(points: Floats) -> float:
    """Return the root mean square distance from the mean, 1 if all points are equal."""
    away = points - points.mean(axis=0)
    spread = float(np.sqrt((away**2).sum(axis=1).mean()))
    return spread if spread > 0.0 else 1.0


def _nearest_distances(points: Floats, known: Floats) -> Floats:
    """Return the distance from the nearest known point (points,).

    inf where there are no known points with as many features.
    """
    fits = known.ndim == 2 and known.shape[1:] == points.shape[1:]
    return _nearest_centres(points, known if fits else points[:0])[0]


def _nearest_centres(points: Floats, centres: Floats) -> tuple[Floats, Integers]:
    """Return the distance from the nearest centre (points,), and which one it is.

    Without centres all points share one, infinitely far.
    """
    if not len(centres):
        return np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
    x, y = points - points.mean(axis=0), centres - points.mean(axis=0)
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * x @ y.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0)), squares.argmin(axis=1)


def _add_centre(
    points: Floats, index: int, distance: Floats, nearest: Integers, number: int
) -> None:
    """Make point `index` a centre of this number, in place."""
    if not points.shape[1]:
        return  # without descriptors all candidates differ
    away = np.linalg.norm(points - points[index], axis=1)
    closer = away < distance
    distance[closer], nearest[closer] = away[closer], number
