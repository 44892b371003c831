"""A piece of MD: walkers in; walkers, candidates and control frames out.

All walkers advance in one batch, one prediction a step. Their arrays are numpy's, or
stay on the potential's device for the whole piece. A piece of MD begins at positions
rounded to the frame's decimals, so the result depends on where a run is cut into
pieces; the same pieces give the same bits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alloop.core.arrays import Place, to_numpy
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Candidate, Predictions, Walker
from alloop.core.roles import (
    Arrays,
    DevicePotential,
    DeviceScorer,
    FittedScorer,
    Potential,
)
from alloop.core.settings import COUNT, setting
from alloop.core.units import Booleans, Floats
from alloop.md.barostat import Barostat, Draws, draw_changes, require_cells
from alloop.md.frame_collector import FrameCollector, ScoredFrames
from alloop.md.guards import Guards, GuardTrip
from alloop.md.integrate import Integrator, Langevin, StepConditions, draw_noise
from alloop.md.walker_batch import MDState, Thermostats, WalkerBatch


@dataclass(frozen=True, slots=True)
class DynamicsSettings:
    """The settings by which walkers move.

    temperature in K: of the thermostat, for walkers without one of their own. centre:
    hold centres of mass where the integrator fixes them; False for a potential that
    depends on the absolute position. barostat: None for constant cells. Raises
    InputError for values that make no sense, and for a barostat without a thermostat.
    """

    integrator: Integrator = field(default_factory=Langevin)
    temperature: float = 300.0
    timestep: float = setting(0.5, "time step of MD, fs", gt=0, le=5)
    stride: int = setting(10, "MD steps between two frames that are scored", **COUNT)
    centre: bool = True
    guards: Guards = field(default_factory=Guards)
    barostat: Barostat | None = None

    def __post_init__(self) -> None:
        for name in ("timestep", "stride"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"expected a positive {name} of MD, got {getattr(self, name)}"
                )
        if not self.temperature >= 0.0:
            raise InputError(
                f"expected temperature of MD not below 0, got {self.temperature}"
            )
        if self.barostat is not None and not self.integrator.is_stochastic:
            raise InputError(
                "expected a thermostat (langevin) for MD at constant pressure, got "
                f"{self.integrator.kind}"
            )


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


def run_dynamics(  # noqa: PLR0913 - the main entry point
    walkers: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    steps: int,
    rngs: Sequence[np.random.Generator],
    *,
    scorer: FittedScorer | None = None,
    threshold: float | None = None,
    keep: int = 0,
    controls: int = 0,
    control_rng: np.random.Generator | None = None,
    observe: Callable[[ScoredFrames], None] | None = None,
    biases: Sequence[Potential] = (),
) -> Exploration:
    """Move walkers by `steps` MD steps.

    potential: a DevicePotential moves the walkers on its device, others here. rngs: one
    stream for each walker. keep: number of most surprising frames to return,
    besides those that guard rails picked. controls: number of uniformly random ones,
    drawn by `control_rng`. observe: called with the frames of every scoring step, where
    moving walkers are eligible, and of every step at which guards stop walkers, where
    only these are eligible. biases: potentials whose forces move the walkers besides,
    and which are in no prediction, candidate or surprise; guards check the model's
    forces. An AdaptiveBias is shown the walkers after each step, and changes in place.
    Without a scorer there are no candidates, and all surprise is 0.
    ValueError where random streams are missing; InputError where a barostat gets frames
    that are no cells, or a potential without stress.
    """
    if len(rngs) != len(walkers):
        raise ValueError(f"expected {len(walkers)} random streams, got {len(rngs)}")
    if controls and control_rng is None:
        raise ValueError("expected control_rng to draw the control frames, got None")
    if not walkers:
        return Exploration((), (), (), 0, 0.0)
    collector = FrameCollector(0 if scorer is None else keep, controls, control_rng)
    system = _walker_batch(walkers, potential, dynamics, biases)
    simulation = _Simulation(
        system=system,
        dynamics=dynamics,
        thermostats=_thermostats(system, dynamics),
        scorer=placed_scorer(scorer, potential),
        threshold=threshold,
        collector=collector,
        observe=observe,
    )
    changes = _cell_changes(system, dynamics, steps, rngs)
    sizes = [len(walker.frame) for walker in walkers]
    noises = draw_noise(dynamics.integrator, sizes, steps, rngs, system.place)
    last, temperature = simulation.run(noises, changes)
    return Exploration(
        walkers=system.walkers_at(last),
        candidates=simulation.guard_candidates(last) + collector.candidates(),
        controls=collector.control_frames(),
        scored=collector.scored,
        temperature=temperature,
    )


def _thermostats(system: WalkerBatch, dynamics: DynamicsSettings) -> Thermostats:
    """Return the walkers' thermostats, by default at `dynamics.temperature`."""
    kelvin = [
        dynamics.temperature if walker.temperature is None else walker.temperature
        for walker in system.walkers
    ]
    return Thermostats.of(np.array(kelvin), system.here.owner, system.place)


def _cell_changes(
    system: WalkerBatch,
    dynamics: DynamicsSettings,
    steps: int,
    rngs: Sequence[np.random.Generator],
) -> Iterator[Draws]:
    """Return the random numbers of the cells' changes, none at constant cells."""
    if dynamics.barostat is None:
        return iter(())
    require_cells(system.batch)
    # They are drawn when the first is asked for, in the walkers' streams: whoever draws
    # them earlier or later changes the noise, and with it the bits of a run.
    return draw_changes(dynamics.barostat, steps, rngs)


def snapshot(
    walkers: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    scorer: FittedScorer | None = None,
) -> ScoredFrames:
    """Return the walkers as they are, as `run_dynamics` shows a step to `observe`.

    Those that move are eligible. Velocities are those that MD would begin with.
    """
    system = _walker_batch(walkers, potential, dynamics)
    start = system.first_state()
    placed = placed_scorer(scorer, potential)
    return predicted_frames(system, placed, start, start.moving)


@dataclass(frozen=True, slots=True, eq=False)
class _Simulation:
    """A piece of MD, with the scorer, collector and observer of its frames."""

    system: WalkerBatch
    dynamics: DynamicsSettings
    thermostats: Thermostats
    scorer: FittedScorer | None
    threshold: float | None
    collector: FrameCollector
    observe: Callable[[ScoredFrames], None] | None

    def run(
        self, noises: Iterable[Floats], changes: Iterator[Draws]
    ) -> tuple[MDState, float]:
        """Take a step for each noise; return the last state and the mean temperature.

        changes: the random numbers of the cells' changes. The temperature in K is that
        of moving walkers, over all steps.
        """
        start = self.system.first_state()
        kelvin = self.system.temperatures(start)
        now = self.system.put_back(
            start, self._check_guards(start, kelvin, None), start
        )
        older = newer = now  # the states to which walkers are put back
        total: float | Floats = 0.0  # of temperatures
        count = 0
        for noise in noises:
            if not now.moving.any():
                break
            scored = self._is_scored(now.step + 1)
            moved = self._change_cells(now, changes)
            moved = self._advance(moved, noise, descriptors=scored)
            surprise = surprise_at(self.system, self.scorer, moved) if scored else None
            kelvin = self.system.temperatures(moved)
            trips = self._check_guards(moved, kelvin, surprise)
            now = self.system.put_back(moved, trips, older)
            self.system.adapt_biases(now)
            if surprise is not None:
                self._collect(moved, now.moving, surprise)
            if trips:
                self._show_stopped(moved, trips)
                kelvin = self.system.temperatures(now)
            total = total + self.system.sum_of_moving(kelvin, now)
            count += int(now.moving.sum())
            if now.step % self.dynamics.guards.back == 0:
                older, newer = newer, now
        return now, float(total) / max(count, 1)

    def guard_candidates(self, last: MDState) -> tuple[Candidate, ...]:
        """Return the frames that guard rails picked; none without a scorer."""
        if self.scorer is None or not last.stops:
            return ()
        everyone = np.ones(len(self.system.walkers), dtype=np.bool_)
        frames = predicted_frames(self.system, self.scorer, last, everyone)
        return tuple(
            frames.candidate(index, stop.trip.guard, stop.step)
            for index, stop in sorted(last.stops.items())
            if frames.eligible[index]
        )

    def _is_scored(self, step: int) -> bool:
        """Return True if somebody wants the frames of this step."""
        needed = self.scorer is not None or self.collector.controls > 0
        needed = needed or self.observe is not None
        return needed and step % self.dynamics.stride == 0

    def _advance(self, now: MDState, noise: Floats, descriptors: bool) -> MDState:
        dynamics = self.dynamics
        conditions = StepConditions(dynamics.timestep, self.thermostats.of_atoms)
        return self.system.advance(
            now, dynamics.integrator, conditions, noise, descriptors
        )

    def _change_cells(self, now: MDState, changes: Iterator[Draws]) -> MDState:
        barostat = self.dynamics.barostat
        if barostat is None or now.step % barostat.interval:
            return now
        kelvin = self.thermostats.of_walkers
        settings = (kelvin, self.dynamics.timestep, next(changes))
        return self.system.change_cells(now, barostat, *settings)

    def _check_guards(
        self, state: MDState, kelvin: Floats, surprise: Floats | None
    ) -> dict[int, GuardTrip]:
        relative = None
        if surprise is not None and self.threshold is not None and self.threshold > 0.0:
            relative = surprise / self.threshold
        guards = self.dynamics.guards
        heat = kelvin / self.thermostats.divisors
        return self.system.check_guards(state, guards, heat, relative)

    def _collect(self, state: MDState, moving: Booleans, surprise: Floats) -> None:
        """Collect and show the frames of a scoring step, those that move on."""
        eligible = moving & np.isfinite(to_numpy(surprise))
        predictions = state.phase.predictions
        frames = scored_frames(self.system, state, predictions, surprise, eligible)
        self.collector.add_frames(frames)
        if self.observe is not None:
            self.observe(frames)

    def _show_stopped(self, state: MDState, trips: Mapping[int, GuardTrip]) -> None:
        """Show the frames at which guards stop walkers, before these are put back."""
        if self.observe is None:
            return
        stopping = np.isin(np.arange(len(self.system.walkers)), list(trips))
        frames = predicted_frames(self.system, self.scorer, state, stopping)
        reasons = {index: trip.reason for index, trip in trips.items()}
        self.observe(replace(frames, stopped=reasons))


def _walker_batch(
    walkers: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    biases: Sequence[Potential] = (),
) -> WalkerBatch:
    return WalkerBatch.of(
        walkers, potential, dynamics.integrator, dynamics.centre, biases
    )


def placed_scorer(
    scorer: FittedScorer | None, potential: Potential
) -> FittedScorer | None:
    """Return the scorer in the form that takes this potential's arrays.

    Predictions on a device are copied for a scorer that takes numpy's arrays only.
    """
    if scorer is None or not isinstance(potential, DevicePotential):
        return scorer
    if isinstance(scorer, DeviceScorer):
        return scorer.placed(potential.place)
    return _HostScorer(scorer, potential.place)


@dataclass(frozen=True, slots=True, eq=False)
class _HostScorer:
    """A scorer that takes numpy's arrays only, for predictions on a device."""

    scorer: FittedScorer
    place: Place

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        on_host = predictions.moved(to_numpy)
        surprise: Floats = self.place(self.scorer.score(host_batch(batch), on_host))
        return surprise

    def arrays(self) -> Arrays:
        return self.scorer.arrays()


def host_batch(batch: Batch) -> Batch:
    """Return the batch in numpy's arrays."""
    return batch.with_cells(to_numpy(batch.positions), to_numpy(batch.cells))


def surprise_at(
    system: WalkerBatch,
    scorer: FittedScorer | None,
    state: MDState,
    predictions: Predictions | None = None,
) -> Floats:
    """Return the surprise (walkers,), where arrays are kept; 0 without a scorer.

    predictions: those at the state with descriptors, the state's own by default.
    """
    if scorer is None:
        none: Floats = system.place(np.zeros(len(system.batch)))
        return none
    return scorer.score(system.frames_at(state), predictions or state.phase.predictions)


def predicted_frames(
    system: WalkerBatch, scorer: FittedScorer | None, state: MDState, moving: Booleans
) -> ScoredFrames:
    """Return the frames of a state, predicted and scored anew.

    Eligible are those of the wanted walkers (walkers,) whose values are finite.
    """
    batch = system.frames_at(state)
    predictions = system.predict(batch, descriptors=scorer is not None)
    surprise = surprise_at(system, scorer, state, predictions)
    eligible = moving & np.isfinite(to_numpy(surprise))
    eligible = eligible & np.isfinite(to_numpy(predictions.energies))
    return scored_frames(system, state, predictions, surprise, eligible)


def scored_frames(
    system: WalkerBatch,
    state: MDState,
    predictions: Predictions,
    surprise: Floats,
    eligible: Booleans,
) -> ScoredFrames:
    """Return the frames of a state with their predictions and surprise, on the host.

    Descriptors stay on their device: only those of candidates are read, and they are by
    far the largest arrays.
    """
    on_host = replace(predictions, descriptors=None).moved(to_numpy)
    return ScoredFrames(
        walkers=system.walkers,
        batch=host_batch(system.frames_at(state)),
        predictions=replace(on_host, descriptors=predictions.descriptors),
        surprise=to_numpy(surprise),
        eligible=eligible,
        step=state.step,
        velocities=to_numpy(state.phase.velocities),
    )
