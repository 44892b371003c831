"""A collector of the frames that MD scores: constant memory, whatever their order."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from alloop.core.arrays import to_numpy
from alloop.core.batch import Batch
from alloop.core.records import Candidate, Predictions, Walker
from alloop.core.units import Booleans, Floats

_Rank: TypeAlias = tuple[float, int, int]  # value, -walker, -step
_Heap: TypeAlias = list[tuple[_Rank, Candidate]]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrames:
    """The frames of one scoring step.

    batch: the frames, of stopped walkers too; predictions: the potential's, whose
    descriptors may lie on its device;
    surprise and eligible (walkers,); step: MD steps since `walkers`; velocities:
    (atoms, 3) in Å/fs for observers, None where there are none; stopped: why a guard
    stops walkers at this step, by their index in `walkers`.
    """

    walkers: tuple[Walker, ...]
    batch: Batch
    predictions: Predictions
    surprise: Floats
    eligible: Booleans
    step: int
    velocities: Floats | None = None
    stopped: Mapping[int, str] = field(default_factory=dict)

    def candidate(self, index: int, origin: str, step: int | None = None) -> Candidate:
        """Return walker `index` as a candidate; its descriptor is a mean over atoms."""
        walker, offsets = self.walkers[index], self.batch.offsets
        span = slice(int(offsets[index]), int(offsets[index + 1]))
        positions, cell = self.batch.positions[span], self.batch.cells[index]
        frame = replace(walker.frame, positions=positions, cell=cell)
        described = self.predictions.descriptors
        return Candidate(
            frame=frame,
            molecule=walker.molecule,
            walker=walker.index,
            step=walker.step + (self.step if step is None else step),
            surprise=float(self.surprise[index]),
            energy=float(self.predictions.energies[index]),
            forces=np.array(self.predictions.forces[span]),
            descriptor=(
                np.zeros(0) if described is None else to_numpy(described[span].mean(0))
            ),
            origin=origin,
        )


@dataclass(slots=True, eq=False)
class FrameCollector:
    """The `keep` most surprising frames and `controls` random ones, of all offered.

    control_rng draws one number for each walker at each scoring step, moving or not;
    the frames with the largest draws are the controls. That is a uniform sample without
    replacement, independent of surprise.
    """

    keep: int
    controls: int
    control_rng: np.random.Generator | None
    scored: int = 0
    _surprising: _Heap = field(default_factory=list)
    _random: _Heap = field(default_factory=list)

    def add_frames(self, frames: ScoredFrames) -> None:
        """Add the frames of one scoring step that are worth keeping."""
        self.scored += int(frames.eligible.sum())
        if self.controls and self.control_rng is not None:
            draws = self.control_rng.random(len(frames.walkers))
            _push_ranked(self._random, self.controls, draws, frames, "control")
        _push_ranked(self._surprising, self.keep, frames.surprise, frames, "surprise")

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the most surprising frames, most surprising first."""
        return _sorted_candidates(self._surprising)

    def control_frames(self) -> tuple[Candidate, ...]:
        """Return the control frames, in the order of their draws."""
        return _sorted_candidates(self._random)


def _push_ranked(
    heap: _Heap, limit: int, ranked: Floats, frames: ScoredFrames, why: str
) -> None:
    for index in map(int, np.flatnonzero(frames.eligible)):
        walker = frames.walkers[index]
        rank = (float(ranked[index]), -walker.index, -(walker.step + frames.step))
        if len(heap) < limit:
            heapq.heappush(heap, (rank, frames.candidate(index, why)))
        elif limit and rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, frames.candidate(index, why)))


def _sorted_candidates(heap: _Heap) -> tuple[Candidate, ...]:
    ordered = sorted(heap, key=lambda entry: entry[0], reverse=True)
    return tuple(candidate for _, candidate in ordered)
