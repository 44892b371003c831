"""A piece of MD: walkers in; walkers, candidates and control frames out.

All walkers advance in one batch, one prediction a step. A piece of MD begins at
positions rounded to the frame's decimals, so the result depends on where a run is cut
into pieces; the same pieces give the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.records import Candidate, Predictions, Walker
from alloop.core.roles import Potential, Scorer
from alloop.core.units import Floats
from alloop.md.batch_steps import (
    MDState,
    WalkerBatch,
    advance_state,
    apply_guards,
    initial_state,
    kinetic_temperature,
    predict_finite,
    prepare_batch,
    thermostat_noise,
)
from alloop.md.dynamics import DynamicsSettings
from alloop.md.frame_collector import FrameCollector, ScoredFrames

__all__ = ["DynamicsSettings", "Exploration", "run_dynamics", "snapshot"]


@dataclass(frozen=True, slots=True, eq=False)
class Exploration:
    """The result of a piece of MD.

    candidates: frames that guard rails picked, then the most surprising ones. scored:
    the number of frames scored. temperature: mean over moving walkers and steps, K.
    """

    walkers: tuple[Walker, ...]
    candidates: tuple[Candidate, ...]
    controls: tuple[Candidate, ...]
    scored: int
    temperature: float


@dataclass(frozen=True, slots=True, eq=False)
class _FrameScorer:
    """The scorer, threshold, frame collector and observer of a piece of MD."""

    scorer: Scorer | None
    threshold: float | None
    harvest: FrameCollector
    observe: Callable[[ScoredFrames], None] | None = None

    def sits(self, step: int, stride: int) -> bool:
        """Return True if frames are scored at this step."""
        wanted = self.scorer is not None or self.harvest.controls > 0
        wanted = wanted or self.observe is not None
        return wanted and step % stride == 0

    def score(self, arena: WalkerBatch, positions: Floats, said: Predictions) -> Floats:
        """Return the surprise (walkers,); 0 without a scorer."""
        if self.scorer is None:
            return np.zeros(len(arena.batch))
        return self.scorer.score(arena.batch.with_positions(positions), said)

    def relative(self, surprise: Floats) -> Floats | None:
        """Return the surprise in multiples of the threshold, None without one."""
        if self.threshold is None or self.threshold <= 0.0:
            return None
        return surprise / self.threshold


def run_dynamics(  # noqa: PLR0913 - the main entry point
    walkers: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    steps: int,
    rngs: Sequence[np.random.Generator],
    *,
    scorer: Scorer | None = None,
    threshold: float | None = None,
    keep: int = 0,
    controls: int = 0,
    lottery: np.random.Generator | None = None,
    observe: Callable[[ScoredFrames], None] | None = None,
) -> Exploration:
    """Move walkers by `steps` MD steps.

    rngs: one stream for each walker. keep: number of most surprising frames to return,
    besides those that guard rails picked. controls: number of uniformly random ones,
    drawn by `lottery`. observe: called with the frames of every scoring step, where
    moving walkers are eligible, and of every step at which guards stop walkers, where
    only these are eligible. Without a scorer there are no candidates, and all surprise
    is 0. ValueError where streams or the lottery are missing.
    """
    if len(rngs) != len(walkers):
        raise ValueError(f"expected {len(walkers)} random streams, got {len(rngs)}")
    if controls and lottery is None:
        raise ValueError("expected a lottery to draw the control frames, got None")
    if not walkers:
        return Exploration((), (), (), 0, 0.0)
    harvest = FrameCollector(0 if scorer is None else keep, controls, lottery)
    judge = _FrameScorer(scorer, threshold, harvest, observe)
    arena = prepare_batch(tuple(walkers), potential, dynamics)
    last, mean_heat = _run_steps(arena, judge, thermostat_noise(arena, steps, rngs))
    return Exploration(
        walkers=tuple(_final_walker(arena, last, i) for i in range(len(walkers))),
        candidates=_guard_candidates(arena, judge, last) + judge.harvest.candidates(),
        controls=judge.harvest.control_frames(),
        scored=judge.harvest.scored,
        temperature=mean_heat,
    )


def _run_steps(
    arena: WalkerBatch, judge: _FrameScorer, kicks: Iterator[Floats]
) -> tuple[MDState, float]:
    """Return the last state, and the mean temperature on the way in K."""
    start = initial_state(arena)
    now = older = newer = apply_guards(arena, start, start)
    total, seen = 0.0, 0
    for random in kicks:
        if not now.moving.any():
            break
        scoring = judge.sits(now.step + 1, arena.dynamics.stride)
        now = advance_state(arena, now, random, scoring)
        there = now
        now = (
            _score_and_stop(arena, judge, now, older)
            if scoring
            else apply_guards(arena, now, older)
        )
        if judge.observe is not None and len(now.halted) > len(there.halted):
            judge.observe(_stopped(arena, judge, there, now))
        total += float(kinetic_temperature(arena, now)[now.moving].sum())
        seen += int(now.moving.sum())
        if now.step % arena.dynamics.guards.back == 0:
            older, newer = newer, now
    return now, total / max(seen, 1)


def _score_and_stop(
    arena: WalkerBatch, judge: _FrameScorer, now: MDState, older: MDState
) -> MDState:
    """Score frames, stop walkers whose guard trips, and collect the others' frames."""
    positions, said = now.phase.positions, now.phase.said
    surprise = judge.score(arena, positions, said)
    after = apply_guards(arena, now, older, judge.relative(surprise))
    batch = arena.batch.with_positions(positions)
    eligible = after.moving & np.isfinite(surprise)
    v = now.phase.velocities
    found = ScoredFrames(arena.walkers, batch, said, surprise, eligible, now.step, v)
    judge.harvest.add_frames(found)
    if judge.observe is not None:
        judge.observe(found)
    return after


def _stopped(
    arena: WalkerBatch, judge: _FrameScorer, there: MDState, after: MDState
) -> ScoredFrames:
    """Return the frames at which guards stop walkers, before these are put back."""
    why = {i: x.trip.reason for i, x in after.halted.items() if i not in there.halted}
    found = _shown(arena, judge, there)
    stopping = np.isin(np.arange(len(arena.walkers)), list(why))
    eligible = stopping & np.isfinite(found.said.energies) & np.isfinite(found.surprise)
    return replace(found, eligible=eligible, stopped=why)


def _shown(arena: WalkerBatch, judge: _FrameScorer, now: MDState) -> ScoredFrames:
    """Return the frames of a state with predictions and surprise, at any step."""
    positions = now.phase.positions
    said = predict_finite(arena, positions, descriptors=judge.scorer is not None)
    surprise = judge.score(arena, positions, said)
    batch, v = arena.batch.with_positions(positions), now.phase.velocities
    eligible = now.moving & np.isfinite(surprise) & np.isfinite(said.energies)
    return ScoredFrames(arena.walkers, batch, said, surprise, eligible, now.step, v)


def snapshot(
    walkers: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    scorer: Scorer | None = None,
) -> ScoredFrames:
    """Return the walkers as they are, those that move eligible.

    The form is that in which `run_dynamics` shows a scoring step to `observe`.
    Velocities are those that MD would begin with.
    """
    arena = prepare_batch(tuple(walkers), potential, dynamics)
    judge = _FrameScorer(scorer, None, FrameCollector(0, 0, None))
    return _shown(arena, judge, initial_state(arena))


def _final_walker(arena: WalkerBatch, last: MDState, index: int) -> Walker:
    """Return the walker where it is now, or where it was put back to if stopped."""
    walker, halt = arena.walkers[index], last.halted.get(index)
    if walker.stopped is not None:
        return walker
    span = slice(*arena.batch.offsets[index : index + 2])
    return replace(
        walker,
        frame=replace(walker.frame, positions=last.phase.positions[span]),
        velocities=np.array(last.phase.velocities[span]),
        step=walker.step + (last.step if halt is None else halt.step),
        stopped=None if halt is None else halt.trip.reason,
    )


def _guard_candidates(
    arena: WalkerBatch, judge: _FrameScorer, last: MDState
) -> tuple[Candidate, ...]:
    """Return the frames that guard rails picked; none without a scorer."""
    if judge.scorer is None or not last.halted:
        return ()
    positions = last.phase.positions
    said = predict_finite(arena, positions, descriptors=True)
    surprise = judge.score(arena, positions, said)
    good = np.isfinite(said.energies) & np.isfinite(surprise)
    batch = arena.batch.with_positions(positions)
    found = ScoredFrames(arena.walkers, batch, said, surprise, good, last.step)
    return tuple(
        found.candidate(i, halt.trip.guard, halt.step)
        for i, halt in sorted(last.halted.items())
        if good[i]
    )
