"""Selectors, which pick the few of many candidates that are worth a label.

Candidates are sorted by frame id before anything else, so that the order in which they
came has no effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alloop.core.records import Candidate
from alloop.core.roles import Selector
from alloop.core.settings import SHARE, setting
from alloop.core.species import bonded_species
from alloop.core.units import Booleans, Floats, Integers

_FARTHEST = 1e6  # of the spread: distance from nothing known, squared without overflow


def _duplicate() -> float:
    """Return the field of the distance between near-duplicates."""
    return setting(
        0.02,
        "distance, in multiples of the candidates' spread, below which a frame is a "
        "duplicate",
        ge=0,
    )


@dataclass(frozen=True, slots=True)
class MostSurprising:
    """A selector of differing candidates above the threshold or from a guard rail.

    Greedy: the next choice has the largest s^(1 - balance) d^balance, with s the rank
    of its surprise among the candidates (1 for the largest) and d its distance, in mean
    descriptors, from all that is known or chosen; balance 1 is farthest-point sampling.
    A near-duplicate is never chosen. `fill` spends the rest of the quota below the
    threshold by the same rule; without a threshold only candidates from guard rails
    count as above it.
    """

    fill: bool = True
    balance: float = setting(
        0.5, "weight of the distance from known frames against surprise", **SHARE
    )
    duplicate: float = _duplicate()

    def select(
        self,
        candidates: Sequence[Candidate],
        landmarks: Floats,
        quota: int,
        rng: np.random.Generator,  # noqa: ARG002
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, best first."""
        return _select_greedily(self, candidates, landmarks, quota, threshold)

    def worth(self, greedy: "_GreedySelection", open_: Booleans) -> Floats:
        """Return the worth (pool,) of each candidate; open_: those that may follow."""
        far = greedy.distance[open_].max()
        spread = 0.0 < far < np.inf
        d = greedy.distance / far if spread else np.ones_like(greedy.distance)
        out: Floats = greedy.standing ** (1.0 - self.balance) * d**self.balance
        return out


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
    duplicate: float = _duplicate()

    def select(
        self,
        candidates: Sequence[Candidate],
        landmarks: Floats,
        quota: int,
        rng: np.random.Generator,  # noqa: ARG002
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, in the order of the choice."""
        return _select_greedily(self, candidates, landmarks, quota, threshold)

    def worth(self, greedy: "_GreedySelection", open_: Booleans) -> Floats:
        """Return the worth (pool,) in the largest cluster, -1 outside it."""
        worths = greedy.standing * np.minimum(greedy.distance, _FARTHEST) ** 2
        sizes = np.bincount(greedy.nearest[open_], worths[open_])
        return np.where(greedy.nearest == np.argmax(sizes), worths, -1.0)


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """A selector that draws candidates uniformly, as a control."""

    def select(
        self,
        candidates: Sequence[Candidate],
        landmarks: Floats,  # noqa: ARG002
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
        landmarks: Floats,
        quota: int,
        rng: np.random.Generator,
        threshold: float | None = None,
    ) -> tuple[int, ...]:
        """Return indices of at most `quota` candidates, molecules in turn."""
        ranked = []
        groups = [self.group(candidate) for candidate in candidates]
        for group in sorted(set(groups)):
            indices = [i for i, x in enumerate(groups) if x == group]
            among = [candidates[i] for i in indices]
            chosen = self.selector.select(among, landmarks, quota, rng, threshold)
            ranked.append([indices[index] for index in chosen])
        turns = rng.permutation(len(ranked))
        longest = max(map(len, ranked), default=0)
        shared = [
            ranked[turn][place]
            for place in range(longest)
            for turn in turns
            if place < len(ranked[turn])
        ]
        return tuple(shared[: max(quota, 0)])

    def group(self, candidate: Candidate) -> tuple[int, str]:
        """Return what shares the quota: the molecule."""
        return candidate.molecule, ""


@dataclass(frozen=True, slots=True)
class PerSpecies(PerMolecule):
    """A selector that shares the quota among species: what bonds have made of each.

    For campaigns in which bonds break, so that a reaction's product has its share
    beside what it was made of.
    """

    def group(self, candidate: Candidate) -> tuple[int, str]:
        """Return what shares the quota: the molecule, and its present bonds."""
        return candidate.molecule, bonded_species(candidate.frame)


def _is_above(candidate: Candidate, threshold: float | None) -> bool:
    above = threshold is not None and candidate.surprise > threshold
    return above or candidate.guard is not None


class _GreedyRule(Protocol):
    """The settings of a greedy selector, and the worth of candidates by it."""

    @property
    def fill(self) -> bool: ...
    @property
    def duplicate(self) -> float: ...
    def worth(self, greedy: "_GreedySelection", open_: Booleans) -> Floats: ...


class _GreedySelection:
    """A pool of candidates and those chosen from it so far.

    standing (pool,): ranks of surprise. distance (pool,): from the nearest frame that
    is known or chosen, in units of the pool's spread; nearest (pool,): its number.
    """

    def __init__(
        self, rule: _GreedyRule, pool: Sequence[Candidate], landmarks: Floats
    ) -> None:
        self._rule = rule
        self._points = np.stack([candidate.descriptor for candidate in pool])
        self._scale = _point_spread(self._points)
        self._left = np.ones(len(pool), dtype=np.bool_)
        fits = landmarks.ndim == 2 and landmarks.shape[1:] == self._points.shape[1:]
        centres = landmarks if fits else self._points[:0]
        distance, self.nearest = _nearest_centres(self._points, centres)
        self._known = len(centres)
        self.distance = distance / self._scale
        self.standing = _surprise_ranks([candidate.surprise for candidate in pool])
        self.chosen: list[int] = []

    def choose(self, among: Booleans, quota: int) -> None:
        """Choose from `among` (pool,) up to `quota` in all, without near-duplicates."""
        while len(self.chosen) < quota:
            open_ = among & self._left & (self.distance >= self._rule.duplicate)
            if not open_.any():
                return
            worth = np.where(open_, self._rule.worth(self, open_), -1.0)
            self._take(int(np.argmax(worth)))

    def _take(self, index: int) -> None:
        number = self._known + len(self.chosen)
        self.chosen.append(index)
        self._left[index] = False
        if not self._points.shape[1]:
            return  # without descriptors all candidates differ
        away = np.linalg.norm(self._points - self._points[index], axis=1) / self._scale
        self.nearest[away < self.distance] = number
        self.distance = np.minimum(self.distance, away)


def _select_greedily(
    rule: _GreedyRule,
    candidates: Sequence[Candidate],
    landmarks: Floats,
    quota: int,
    threshold: float | None,
) -> tuple[int, ...]:
    """Choose above the threshold first, then, where the rule fills, below it."""
    order = _unique_candidates(candidates)
    if not order:
        return ()
    pool = [candidates[index] for index in order]
    alarmed = np.array([_is_above(candidate, threshold) for candidate in pool])
    greedy = _GreedySelection(rule, pool, landmarks)
    greedy.choose(alarmed, quota)
    if rule.fill:
        greedy.choose(~alarmed, quota)
    return tuple(order[index] for index in greedy.chosen)


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


def _nearest_centres(points: Floats, centres: Floats) -> tuple[Floats, Integers]:
    """Return the distance from the nearest centre (points,), and which one it is.

    Without centres all points share one, infinitely far.
    """
    if not len(centres):
        return np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
    x, y = points - points.mean(axis=0), centres - points.mean(axis=0)
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * x @ y.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0)), squares.argmin(axis=1)
