"""A batch of walkers that move side by side: predict, step, check the guards.

The batch keeps its shape to the end: a walker that is stopped stays in the arrays at
the place where it was put back to, so that nothing depends on which others stopped.
Arrays are numpy's, or tensors on the potential's device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from alloop.core.arrays import (
    Place,
    is_numpy,
    library,
    on_host,
    segment_maxima,
    to_numpy,
)
from alloop.core.batch import Batch, pack_frames
from alloop.core.records import Predictions, Walker
from alloop.core.roles import DevicePotential, Potential
from alloop.core.units import Booleans, Floats, Integers
from alloop.md.barostat import Barostat, CellPoint, Draws, change_cells
from alloop.md.biases import AdaptiveBias
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

    cells (walkers, 3, 3) in Å. moving (walkers,): True for those that are not stopped,
    in numpy's array; stops: those that were stopped during this piece, by their index.
    """

    step: int
    phase: PhasePoint
    cells: Floats
    moving: Booleans
    stops: dict[int, StopRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Thermostats:
    """The temperatures of walkers' thermostats, K.

    of_walkers (walkers,), in numpy's array; where other arrays are kept, of_atoms
    (atoms, 1), and divisors (walkers,): the same, infinite where they are 0.
    """

    of_walkers: Floats
    of_atoms: Floats
    divisors: Floats

    @classmethod
    def of(cls, kelvin: Floats, owner: Integers, place: Place) -> "Thermostats":
        """Return the thermostats of walkers at temperatures (walkers,) in K.

        owner (atoms,): the walker of each atom. place: where other arrays are kept.
        """
        divisors = np.where(kelvin > 0.0, kelvin, np.inf)
        return cls(kelvin, place(kelvin[owner][:, None]), place(divisors))


@dataclass(frozen=True, slots=True, eq=False)
class WalkerBatch:
    """Walkers packed into one batch, with the constants of their motion.

    batch: positions and cells are kept where the potential wants them, and so are the
    constants `bodies` and `geometry`; here: constants in numpy's arrays. place: brings
    an array there. biases: potentials that move the walkers besides, and take and give
    arrays there.
    """

    walkers: tuple[Walker, ...]
    batch: Batch
    bodies: BodyConstants
    here: BodyConstants
    geometry: GuardGeometry
    potential: Potential
    place: Place
    biases: tuple[Potential, ...] = ()

    @classmethod
    def of(
        cls,
        walkers: Sequence[Walker],
        potential: Potential,
        integrator: Integrator,
        hold_centres: bool,
        biases: Sequence[Potential] = (),
    ) -> "WalkerBatch":
        """Return the batch of these walkers.

        hold_centres: centres of mass are at rest where the integrator wants it.
        """
        batch = pack_frames([walker.frame for walker in walkers])
        held = np.logical_and(integrator.fixed_centres(batch), hold_centres)
        bodies = body_constants(batch, held)
        geometry = guard_geometry(batch)
        if not isinstance(potential, DevicePotential):
            same = (bodies, bodies, geometry, potential, on_host, tuple(biases))
            return cls(tuple(walkers), batch, *same)
        place = potential.place
        return cls(
            walkers=tuple(walkers),
            batch=batch.with_cells(place(batch.positions), place(batch.cells)),
            bodies=body_constants(batch, held, place),
            here=bodies,
            geometry=guard_geometry(batch, place),
            potential=potential,
            place=place,
            biases=tuple(biases),
        )

    def first_state(self) -> MDState:
        """Return the state at step 0, with centres of mass at rest where held."""
        v = self.place(np.concatenate([walker.velocities for walker in self.walkers]))
        phase = self.evaluate(self.batch, without_drift(v, self.bodies))
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
        return self._masked(self.potential.predict(batch, descriptors=descriptors))

    def evaluate(
        self, batch: Batch, velocities: Floats, descriptors: bool = False
    ) -> PhasePoint:
        """Return the point in phase space of these frames, biases included."""
        predictions = self.predict(batch, descriptors)
        terms = [self._masked(bias.predict(batch)) for bias in self.biases]
        bias = reduce(_summed, terms) if terms else None
        return PhasePoint(batch.positions, velocities, predictions, bias)

    def _masked(self, predictions: Predictions) -> Predictions:
        functions = library(predictions.energies)
        rows = [predictions.forces]
        rows += [] if predictions.descriptors is None else [predictions.descriptors]
        good = functions.isfinite(predictions.energies)
        if good.all() and all(functions.isfinite(row).all() for row in rows):
            return predictions
        bodies = self.here if is_numpy(predictions.energies) else self.bodies
        for row in rows:
            odd = ~functions.isfinite(row).all(axis=1)
            good = good & (segment_maxima(odd * 1.0, bodies.offsets) == 0.0)
        atoms = good[bodies.owner][:, None]
        forces, *described = [functions.where(atoms, row, 0.0) for row in rows]
        energies = functions.where(good, predictions.energies, np.nan)
        return Predictions(
            energies, forces, described[0] if described else None, predictions.stress
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

        def evaluate(positions: Floats, velocities: Floats) -> PhasePoint:
            there = _either(atoms, positions, before.positions)
            frames = self.batch.with_cells(there, now.cells)
            return self.evaluate(frames, velocities, descriptors)

        after = integrator.step(before, self.bodies, conditions, noise, evaluate)
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
        """Change the cells of the moving walkers, as far as the barostat accepts it.

        That is computed in numpy's arrays. temperatures (walkers,) in K.
        """

        def evaluate(positions: Floats, v: Floats, cells: Floats) -> PhasePoint:
            return self.evaluate(self.batch.with_cells(positions, cells), v)

        point = CellPoint(to_numpy(now.cells), now.phase.moved(to_numpy))
        settings = (self.here, temperatures, timestep, draws, evaluate, now.moving)
        cells, phase = change_cells(barostat, point, *settings)
        there = phase.moved(self.place)
        return replace(now, cells=self.place(cells), phase=there)

    def check_guards(
        self,
        now: MDState,
        guards: Guards,
        heat: Floats,
        surprise: Floats | None = None,
    ) -> dict[int, GuardTrip]:
        """Return the moving walkers whose guard trips, each with its guard.

        heat and surprise (walkers,): temperatures as multiples of the thermostat's, and
        surprise in multiples of the threshold, where it is known.
        """
        energies = now.phase.driving_energies
        readings = GuardReadings(
            batch=self.frames_at(now),
            offsets=self.bodies.offsets,
            forces=now.phase.predictions.forces,
            finite=library(energies).isfinite(energies),
            heat=heat,
            surprise=surprise,
            growth=self._growth(now),
        )
        trips = tripped_guards(self.geometry, guards, readings)
        return {index: trip for index, trip in trips.items() if now.moving[index]}

    def put_back(
        self, now: MDState, trips: dict[int, GuardTrip], earlier: MDState
    ) -> MDState:
        """Stop walkers, and put them back to where they were in an earlier state."""
        if not trips:
            return now
        stops = {index: StopRecord(x, earlier.step) for index, x in trips.items()}
        moving = now.moving.copy()
        moving[list(stops)] = False
        stopping = now.moving & ~moving
        phase = _select_phase(self._atoms(~stopping), now.phase, earlier.phase)
        chosen = self.place(stopping[:, None, None])
        cells = library(now.cells).where(chosen, earlier.cells, now.cells)
        return MDState(now.step, phase, cells, moving, now.stops | stops)

    def adapt_biases(self, now: MDState) -> None:
        """Show the walkers to the biases that learn from them."""
        for bias in self.biases:
            if isinstance(bias, AdaptiveBias):
                bias.adapt(now.step, self.frames_at(now), now.moving)

    def temperatures(self, now: MDState) -> Floats:
        """Return the kinetic temperature of each walker (walkers,) in K."""
        return velocity_temperature(now.phase.velocities, self.bodies)

    def sum_of_moving(self, values: Floats, now: MDState) -> Floats:
        """Return the sum of values (walkers,) over the walkers that move."""
        chosen = values if now.moving.all() else values[self.place(now.moving)]
        out: Floats = chosen.sum()
        return out

    def walkers_at(self, last: MDState) -> tuple[Walker, ...]:
        """Return the walkers where they are, or where they were put back to."""
        phase = last.phase.moved(to_numpy)
        last = replace(last, phase=phase, cells=to_numpy(last.cells))
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
        functions = library(now.cells)
        volumes = (abs(functions.linalg.det(x)) for x in (now.cells, self.batch.cells))
        first, other = (functions.log(functions.clip(x, 1e-300, None)) for x in volumes)
        out: Floats = functions.exp(abs(first - other))
        return out

    def _atoms(self, chosen: Booleans) -> Booleans | None:
        """Return True for the atoms of the chosen walkers, (atoms, 1); None for all."""
        if chosen.all():
            return None
        atoms: Booleans = self.place(chosen)[self.bodies.owner][:, None]
        return atoms


def _select_phase(
    atoms: Booleans | None, phase: PhasePoint, other: PhasePoint
) -> PhasePoint:
    """Return `one` for the chosen atoms (atoms, 1), all for None, else `other`."""
    return PhasePoint(
        positions=_either(atoms, phase.positions, other.positions),
        velocities=_either(atoms, phase.velocities, other.velocities),
        predictions=phase.predictions,
        bias=phase.bias,
    )


def _summed(predictions: Predictions, other: Predictions) -> Predictions:
    """Return the sum of two terms; without stress where one has none."""
    stress = None
    if predictions.stress is not None and other.stress is not None:
        stress = predictions.stress + other.stress
    return Predictions(
        predictions.energies + other.energies,
        predictions.forces + other.forces,
        None,
        stress,
    )


def _either(atoms: Booleans | None, values: Floats, other: Floats) -> Floats:
    if atoms is None:
        return values
    out: Floats = library(values).where(atoms, values, other)
    return out
