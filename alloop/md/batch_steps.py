"""MD of one batch of walkers, step by step: advance, check the guards, go on.

The batch keeps its shape to the end: a walker that is stopped stays in the arrays at
the place where it was put back to, so that nothing depends on which others stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.units import Booleans, Floats
from alloop.md.dynamics import DynamicsSettings
from alloop.md.guards import (
    GuardGeometry,
    GuardReadings,
    GuardTrip,
    guard_geometry,
    tripped_guards,
)
from alloop.md.integrate import (
    BodyConstants,
    HeatBath,
    PhasePoint,
    baoab_step,
    body_constants,
    velocity_temperature,
    verlet_step,
    without_drift,
)

_BLOCK = 64  # steps of noise that are drawn at once


@dataclass(frozen=True, slots=True, eq=False)
class WalkerBatch:
    """The walkers of a batch and all that is constant during a piece of MD."""

    walkers: tuple[Walker, ...]
    batch: Batch
    bodies: BodyConstants
    watch: GuardGeometry
    potential: Potential
    dynamics: DynamicsSettings


@dataclass(frozen=True, slots=True, eq=False)
class StopRecord:
    """The guard that stopped a walker, and the step that the walker was put back to."""

    trip: GuardTrip
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class MDState:
    """The state of all walkers after `step` steps.

    moving (walkers,): True for those that are not stopped; halted: those that were
    stopped during this piece.
    """

    step: int
    phase: PhasePoint
    moving: Booleans
    halted: dict[int, StopRecord] = field(default_factory=dict)


def prepare_batch(
    walkers: tuple[Walker, ...], potential: Potential, dynamics: DynamicsSettings
) -> WalkerBatch:
    """Return the batch of these walkers."""
    batch = pack_frames([walker.frame for walker in walkers])
    moved = body_constants(batch, _held_centres(batch, dynamics))
    return WalkerBatch(
        walkers, batch, moved, guard_geometry(batch), potential, dynamics
    )


def _held_centres(batch: Batch, dynamics: DynamicsSettings) -> Booleans:
    """Return True for each walker whose centre of mass is kept at rest (walkers,)."""
    if dynamics.centre and dynamics.kind == "verlet":
        return np.ones(len(batch), dtype=np.bool_)
    boxed: Booleans = np.asarray(batch.pbc.any(axis=1))
    return np.logical_and(~boxed, dynamics.centre)


def initial_state(arena: WalkerBatch) -> MDState:
    """Return the state at step 0, with centres of mass at rest where they are held."""
    v = np.concatenate([walker.velocities for walker in arena.walkers])
    phase = PhasePoint(
        positions=arena.batch.positions,
        velocities=without_drift(v, arena.bodies),
        said=predict_finite(arena, arena.batch.positions),
    )
    moving = np.array([walker.stopped is None for walker in arena.walkers])
    return MDState(0, phase, moving)


def advance_state(
    arena: WalkerBatch, now: MDState, noise: Floats, scoring: bool
) -> MDState:
    """Advance the moving walkers by one step; with `scoring` predict descriptors."""
    dynamics, before = arena.dynamics, now.phase
    atoms = now.moving[arena.bodies.owner][:, None]

    def ask(positions: Floats) -> Predictions:
        return predict_finite(
            arena, np.where(atoms, positions, before.positions), scoring
        )

    if dynamics.kind == "verlet":
        after = verlet_step(before, arena.bodies, dynamics.timestep, ask)
    else:
        bath = HeatBath(dynamics.temperature, dynamics.friction)
        after = baoab_step(before, arena.bodies, bath, dynamics.timestep, noise, ask)
    return replace(now, step=now.step + 1, phase=_select_phase(atoms, after, before))


def predict_finite(
    arena: WalkerBatch, positions: Floats, descriptors: bool = False
) -> Predictions:
    """Return the potential's predictions, with those that are not finite masked.

    A walker with anything that is not finite gets the energy NaN as its mark and zeros
    for the rest, so that no NaN spreads.
    """
    said = arena.potential.predict(
        arena.batch.with_positions(positions), descriptors=descriptors
    )
    rows = (
        [said.forces] if said.descriptors is None else [said.forces, said.descriptors]
    )
    if np.isfinite(said.energies).all() and all(np.isfinite(r).all() for r in rows):
        return said
    good = np.isfinite(said.energies)
    for row in rows:
        per_atom = np.isfinite(row).all(axis=1)
        good = good & np.logical_and.reduceat(per_atom, arena.batch.offsets[:-1])
    atoms = good[arena.bodies.owner][:, None]
    forces, *described = [np.where(atoms, row, 0.0) for row in rows]
    energies = np.where(good, said.energies, np.nan)
    return Predictions(energies, forces, described[0] if described else None)


def apply_guards(
    arena: WalkerBatch, now: MDState, older: MDState, surprise: Floats | None = None
) -> MDState:
    """Put walkers whose guard trips back to where they were in `older`.

    surprise (walkers,): in multiples of the threshold, where it is known.
    """
    readings = GuardReadings(
        batch=arena.batch.with_positions(now.phase.positions),
        forces=now.phase.said.forces,
        finite=np.isfinite(now.phase.said.energies),
        heat=_relative_temperature(arena, now),
        surprise=surprise,
    )
    found = tripped_guards(arena.watch, arena.dynamics.guards, readings)
    stopping = {i: StopRecord(t, older.step) for i, t in found.items() if now.moving[i]}
    if not stopping:
        return now
    moving = now.moving.copy()
    moving[list(stopping)] = False
    kept = ~(now.moving & ~moving)[arena.bodies.owner][:, None]
    phase = _select_phase(kept, now.phase, older.phase)
    return MDState(now.step, phase, moving, now.halted | stopping)


def kinetic_temperature(arena: WalkerBatch, now: MDState) -> Floats:
    """Return the kinetic temperature of each walker (walkers,) in K."""
    return velocity_temperature(now.phase.velocities, arena.bodies)


def _relative_temperature(arena: WalkerBatch, now: MDState) -> Floats:
    """Return the temperature over the thermostat's; 0 where that is at 0 K."""
    target = arena.dynamics.temperature
    return kinetic_temperature(arena, now) / (target if target > 0.0 else np.inf)


def thermostat_noise(
    arena: WalkerBatch, steps: int, rngs: Sequence[np.random.Generator]
) -> Iterator[Floats]:
    """Yield normal numbers (atoms, 3) for each step, from each walker's own stream."""
    if arena.dynamics.kind == "verlet":
        yield from repeat(np.zeros((0, 3)), steps)
        return
    sizes = [len(walker.frame) for walker in arena.walkers]
    for start in range(0, steps, _BLOCK):
        count = min(_BLOCK, steps - start)
        drawn = [
            rng.standard_normal((count, size, 3))
            for rng, size in zip(rngs, sizes, strict=True)
        ]
        yield from np.concatenate(drawn, axis=1)


def _select_phase(atoms: Booleans, one: PhasePoint, other: PhasePoint) -> PhasePoint:
    """Return `one` for the chosen atoms (atoms, 1) and `other` for the rest."""
    if atoms.all():
        return one
    return PhasePoint(
        positions=np.where(atoms, one.positions, other.positions),
        velocities=np.where(atoms, one.velocities, other.velocities),
        said=one.said,
    )
