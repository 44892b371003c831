"""A batch of walkers that move side by side: predict, step, check the guards.

The batch keeps its shape to the end: a walker that is stopped stays in the arrays at
the place where it was put back to, so that nothing depends on which others stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.units import Booleans, Floats
from alloop.md.barostat import Barostat, CellPoint, Draws, change_cells
from alloop.md.guards import (
    GuardGeometry,
    GuardReadings,
    Guards,
    GuardTrip,
    guard_geometry,
    tripped_guards,
)
from alloop.md.integrate import (
    BodyConstants,
    Integrator,
    PhasePoint,
    StepConditions,
    body_constants,
    velocity_temperature,
    without_drift,
)


@dataclass(frozen=True, slots=True, eq=False)
class StopRecord:
    """The guard that stopped a walker, and the step that the walker was put back to."""

    trip: GuardTrip
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class MDState:
    """The state of all walkers after `step` steps.

    cells (walkers, 3, 3) in Å. moving (walkers,): True for those that are not stopped;
    stops: those that were stopped during this piece, by their index.
    """

    step: int
    phase: PhasePoint
    cells: Floats
    moving: Booleans
    stops: dict[int, StopRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class WalkerBatch:
    """Walkers packed into one batch, and all that is constant while they move."""

    walkers: tuple[Walker, ...]
    batch: Batch
    bodies: BodyConstants
    geometry: GuardGeometry
    potential: Potential

    @classmethod
    def of(
        cls,
        walkers: Sequence[Walker],
        potential: Potential,
        integrator: Integrator,
        hold_centres: bool,
    ) -> "WalkerBatch":
        """Return the batch of these walkers.

        hold_centres: centres of mass are at rest where the integrator wants it.
        """
        batch = pack_frames([walker.frame for walker in walkers])
        held = np.logical_and(integrator.fixed_centres(batch), hold_centres)
        bodies = body_constants(batch, held)
        return cls(tuple(walkers), batch, bodies, guard_geometry(batch), potential)

    def first_state(self) -> MDState:
        """Return the state at step 0, with centres of mass at rest where held."""
        v = np.concatenate([walker.velocities for walker in self.walkers])
        phase = PhasePoint(
            positions=self.batch.positions,
            velocities=without_drift(v, self.bodies),
            predictions=self.predict(self.batch),
        )
        moving = np.array([walker.stopped is None for walker in self.walkers])
        return MDState(0, phase, self.batch.cells, moving)

    def frames_at(self, now: MDState) -> Batch:
        """Return the frames of all walkers."""
        return self.batch.with_cells(now.phase.positions, now.cells)

    def predict(self, batch: Batch, descriptors: bool = False) -> Predictions:
        """Return the potential's predictions, with those that are not finite masked.

        A walker with anything that is not finite gets the energy NaN as its mark and
        zeros for the rest, so that no NaN spreads.
        """
        found = self.potential.predict(batch, descriptors=descriptors)
        rows = [found.forces]
        rows += [] if found.descriptors is None else [found.descriptors]
        good = np.isfinite(found.energies)
        if good.all() and all(np.isfinite(row).all() for row in rows):
            return found
        for row in rows:
            per_atom = np.isfinite(row).all(axis=1)
            good = good & np.logical_and.reduceat(per_atom, self.batch.offsets[:-1])
        forces, *described = [np.where(self._atoms(good), row, 0.0) for row in rows]
        energies = np.where(good, found.energies, np.nan)
        return Predictions(
            energies, forces, described[0] if described else None, found.stress
        )

    def advance(
        self,
        now: MDState,
        integrator: Integrator,
        conditions: StepConditions,
        noise: Floats,
        descriptors: bool,
    ) -> MDState:
        """Advance the moving walkers by one step."""
        before, atoms = now.phase, self._atoms(now.moving)

        def predict(positions: Floats) -> Predictions:
            there = np.where(atoms, positions, before.positions)
            return self.predict(self.batch.with_cells(there, now.cells), descriptors)

        after = integrator.step(before, self.bodies, conditions, noise, predict)
        return replace(
            now, step=now.step + 1, phase=_select_phase(atoms, after, before)
        )

    def change_cells(
        self,
        now: MDState,
        barostat: Barostat,
        temperatures: Floats,
        timestep: float,
        draws: Draws,
    ) -> MDState:
        """Change the cells of the moving walkers, as far as the barostat accepts it."""

        def predict(positions: Floats, cells: Floats) -> Predictions:
            return self.predict(self.batch.with_cells(positions, cells))

        point = CellPoint(now.cells, now.phase)
        given = (self.bodies, temperatures, timestep, draws, predict, now.moving)
        cells, phase = change_cells(barostat, point, *given)
        return replace(now, cells=cells, phase=phase)

    def check_guards(
        self,
        now: MDState,
        guards: Guards,
        temperatures: Floats,
        surprise: Floats | None = None,
    ) -> dict[int, GuardTrip]:
        """Return the moving walkers whose guard trips, each with its guard.

        temperatures (walkers,): the thermostat's in K. surprise (walkers,): in
        multiples of the threshold, where it is known.
        """
        wanted = np.where(temperatures > 0.0, temperatures, np.inf)
        heat = self.temperatures(now) / wanted
        readings = GuardReadings(
            batch=self.frames_at(now),
            forces=now.phase.predictions.forces,
            finite=np.isfinite(now.phase.predictions.energies),
            heat=heat,
            surprise=surprise,
            growth=self._growth(now),
        )
        found = tripped_guards(self.geometry, guards, readings)
        return {index: trip for index, trip in found.items() if now.moving[index]}

    def put_back(
        self, now: MDState, trips: dict[int, GuardTrip], earlier: MDState
    ) -> MDState:
        """Stop walkers, and put them back to where they were in an earlier state."""
        if not trips:
            return now
        stops = {index: StopRecord(x, earlier.step) for index, x in trips.items()}
        moving = now.moving.copy()
        moving[list(stops)] = False
        others = self._atoms(~(now.moving & ~moving))
        phase = _select_phase(others, now.phase, earlier.phase)
        stopping = (now.moving & ~moving)[:, None, None]
        cells = np.where(stopping, earlier.cells, now.cells)
        return MDState(now.step, phase, cells, moving, now.stops | stops)

    def temperatures(self, now: MDState) -> Floats:
        """Return the kinetic temperature of each walker (walkers,) in K."""
        return velocity_temperature(now.phase.velocities, self.bodies)

    def walkers_at(self, last: MDState) -> tuple[Walker, ...]:
        """Return the walkers where they are, or where they were put back to."""
        return tuple(self._walker(last, index) for index in range(len(self.walkers)))

    def _walker(self, last: MDState, index: int) -> Walker:
        walker, stop = self.walkers[index], last.stops.get(index)
        if walker.stopped is not None:
            return walker
        span = slice(*self.batch.offsets[index : index + 2])
        positions, cell = last.phase.positions[span], last.cells[index]
        return replace(
            walker,
            frame=replace(walker.frame, positions=positions, cell=cell),
            velocities=np.array(last.phase.velocities[span]),
            step=walker.step + (last.step if stop is None else stop.step),
            stopped=None if stop is None else stop.trip.reason,
        )

    def _growth(self, now: MDState) -> Floats | None:
        """Return the growth of cells, or its inverse (walkers,); None if they stand."""
        if now.cells is self.batch.cells:
            return None
        volumes = (abs(np.linalg.det(cells)) for cells in (now.cells, self.batch.cells))
        logarithms = [np.log(np.maximum(volume, 1e-300)) for volume in volumes]
        out: Floats = np.exp(np.abs(logarithms[0] - logarithms[1]))
        return out

    def _atoms(self, chosen: Booleans) -> Booleans:
        """Return True for the atoms of the chosen walkers, (atoms, 1)."""
        atoms: Booleans = chosen[self.bodies.owner][:, None]
        return atoms


def _select_phase(atoms: Booleans, one: PhasePoint, other: PhasePoint) -> PhasePoint:
    """Return `one` for the chosen atoms (atoms, 1) and `other` for the rest."""
    if atoms.all():
        return one
    return PhasePoint(
        positions=np.where(atoms, one.positions, other.positions),
        velocities=np.where(atoms, one.velocities, other.velocities),
        predictions=one.predictions,
    )
