"""Walkers on a trained model, from start structures to a trajectory.

MD goes in pieces. Behind each the walkers and the length of the trajectory are put on
the disk together, and each piece draws its noise from a stream of its own name: a run
that is killed goes on from the last piece and ends with the same bytes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.species import Domain
from alloop.files.targets import refuse_target
from alloop.generation import UNKNOWN, Generation, to_bytes
from alloop.jobs.md_state import RunState, StateFile
from alloop.jobs.md_trajectory import (
    KINDS,
    Trajectory,
    convert_trajectory,
    trajectory_file,
)
from alloop.md.dynamics import DynamicsSettings
from alloop.md.exploration import run_dynamics, snapshot
from alloop.md.integrate import maxwell_boltzmann

_PIECE = 200  # MD steps, about, between two states on the disk


@dataclass(frozen=True, slots=True)
class MDProgress:
    """How far all walkers are: MD steps of `steps`, `moving` walkers of `walkers`;
    taken: steps of this run alone, in `seconds` of wall time."""

    done: int
    steps: int
    moving: int
    walkers: int
    taken: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class MDRun:
    """MD of `walkers` walkers, which begin at the start frames in turn.

    steps: MD steps of each walker. A frame of each walker is written at its beginning,
    every `dynamics.stride` steps, at its end, and where a guard stops it. model: where
    it has a scorer, frames tell their surprise.
    compile: force calls as compiled code, where that works. force: replace what another
    run or program left at `out`. domain: what the model was trained on, where it does
    not say so itself; outside: whether start frames may lie outside of it.
    """

    model: Generation
    start: Sequence[Frame]
    dynamics: DynamicsSettings
    steps: int
    walkers: int
    out: Path
    seed: int = 0
    compile: bool = False
    force: bool = False
    domain: Domain | None = None
    outside: bool = False
    notes: list[str] = field(default_factory=list)

    def run(self, observe: Callable[[MDProgress], None] | None = None) -> list[Walker]:
        """The walkers at the end, stopped ones with their reason.

        Running it twice is resuming it; more `steps` go on. observe: told the progress
        behind each piece; what it raises ends the run, which can be resumed. Raises
        InputError where `out` is taken by another run, nothing can be started, or a
        start frame is not of what the model was trained on.
        """
        self._check()
        path = trajectory_file(self.out)
        halfway = StateFile(path, self._request_key(), self.force)
        own = path == self.out or halfway.path.exists()
        refuse_target(self.out, KINDS, force=self.force, taken=not own)
        state = halfway.read(self._starting_walkers())
        potential = self._md_potential(state.walkers)
        with Trajectory(
            path, state.length, self.model.scorer is not None
        ) as trajectory:
            began, first = time.monotonic(), state.step
            while state.step < self.steps and _moving_walkers(state.walkers):
                state = self._run_piece(state, potential, trajectory)
                halfway.write(state)
                if observe is not None:
                    taken, seconds = state.step - first, time.monotonic() - began
                    moving = _moving_walkers(state.walkers)
                    done = (state.step, self.steps, moving, self.walkers)
                    observe(MDProgress(*done, taken, seconds))
        if path != self.out:
            convert_trajectory(path, self.out)
        return list(state.walkers)

    def _check(self) -> None:
        domain = self.model.domain or self.domain
        if self.outside or not self.start:
            return
        if domain is None:
            self.notes.append(UNKNOWN)
            return
        batch = pack_frames(self.start)
        domain.require(batch)
        strange = domain.strange(batch)
        self.notes.extend([] if strange is None else [strange])

    def _run_piece(
        self, state: RunState, potential: Potential, trajectory: Trajectory
    ) -> RunState:
        steps = min(self._piece_steps(), self.steps - state.step)
        rngs = [
            random_stream(self.seed, f"md/{state.step}/{walker.index}")
            for walker in state.walkers
        ]
        if state.step == 0:
            self._add(state.walkers, potential, trajectory)
        found = run_dynamics(
            state.walkers,
            potential,
            self.dynamics,
            steps,
            rngs,
            scorer=self.model.scorer,
            threshold=self.model.threshold,
            observe=lambda scored: trajectory.add(scored, self.dynamics.timestep),
        )
        end = state.step + steps
        if end == self.steps and steps % self.dynamics.stride:
            self._add(found.walkers, potential, trajectory)
        return RunState(end, found.walkers, trajectory.sync())

    def _add(
        self, walkers: Sequence[Walker], potential: Potential, trajectory: Trajectory
    ) -> None:
        """Write the walkers as they are."""
        scored = snapshot(walkers, potential, self.dynamics, self.model.scorer)
        trajectory.add(scored, self.dynamics.timestep)

    def _piece_steps(self) -> int:
        """Steps of a piece: whole strides, so that frames keep their distance."""
        stride = self.dynamics.stride
        return stride * max(1, _PIECE // stride)

    def _starting_walkers(self) -> tuple[Walker, ...]:
        if not self.start:
            raise InputError("expected a start structure, got none")
        return tuple(self._starting_walker(index) for index in range(self.walkers))

    def _starting_walker(self, index: int) -> Walker:
        frame = self.start[index % len(self.start)]
        rng = random_stream(self.seed, f"walker/{index}")
        velocities = maxwell_boltzmann(frame, self.dynamics.temperature, rng)
        molecule = index % len(self.start)
        return Walker(
            index=index, molecule=molecule, frame=frame, velocities=velocities
        )

    def _md_potential(self, walkers: Sequence[Walker]) -> Potential:
        if not self.compile:
            return self.model.potential
        from alloop.potentials.compiled import compiled_for

        batch = pack_frames([walker.frame for walker in walkers])
        potential, why = compiled_for(self.model.potential, batch)
        self.notes.extend([] if why is None else [why])
        return potential

    def _request_key(self) -> dict[str, str]:
        """What must be equal for a run to go on; `steps` may grow."""
        return {
            "model": to_bytes(self.model)[0],
            "start": ",".join(frame.id for frame in self.start),
            "dynamics": repr(self.dynamics),
            "walkers": str(self.walkers),
            "seed": str(self.seed),
        }


def _moving_walkers(walkers: Sequence[Walker]) -> int:
    return sum(walker.stopped is None for walker in walkers)
