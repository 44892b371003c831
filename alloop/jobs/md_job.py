"""MD runs of walkers on a trained model, written to a trajectory.

MD is done in pieces. After each, the walkers and the length of the trajectory are saved
together, and each piece has a random stream of its own: a run that is killed continues
from the last piece and ends with the same bytes.
"""

import json
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
from alloop.core.settings import identity
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
from alloop.md.dynamics import DynamicsSettings, run_dynamics, snapshot
from alloop.md.guards import proton_transfers
from alloop.md.integrate import maxwell_boltzmann
from alloop.potentials.devices import Device, on_device

_PIECE = 200  # approximate MD steps between two saved states


@dataclass(frozen=True, slots=True)
class MDProgress:
    """The progress of an MD run.

    done: MD steps of `steps`. moving: walkers of `walkers` that have not stopped.
    taken: steps of this run alone, in `seconds` of wall time.
    """

    done: int
    steps: int
    moving: int
    walkers: int
    taken: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class MDRun:
    """MD of `walkers` walkers, which take the start frames in turn.

    steps: MD steps of each walker. A frame of each walker is written at the beginning,
    every `dynamics.stride` steps, at the end, and where a guard stops it. model: if it
    has a scorer, the surprise of each frame is written. compile: compile force calls,
    where that works. device: where the network runs, and the walkers are. force:
    replace another file at `out`. domain: the training domain of a model without one;
    outside: allow start frames outside of it. notes: filled with messages for the user;
    transfers: with those of protons, which break no bond.
    """

    model: Generation
    start: Sequence[Frame]
    dynamics: DynamicsSettings
    steps: int
    walkers: int
    out: Path
    seed: int = 0
    compile: bool = False
    device: Device = "cpu"
    force: bool = False
    domain: Domain | None = None
    outside: bool = False
    notes: list[str] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)

    def run(self, observe: Callable[[MDProgress], None] | None = None) -> list[Walker]:
        """Run or resume the MD; return the walkers at the end.

        A finished run continues if `steps` is raised. Stopped walkers have their
        reason. observe: called with the progress after each piece; an exception in it
        ends the run, which can be resumed. Raises InputError where `out` belongs to
        another run, there is no start frame, or one is outside the model's domain.
        """
        self._check()
        path = trajectory_file(self.out)
        older = {"dynamics": _text_in_older_states(self.dynamics)}
        halfway = StateFile(path, self._request_key(), older, self.force)
        own = path == self.out or halfway.path.exists()
        refuse_target(self.out, KINDS, force=self.force, taken=not own)
        state = halfway.read(self._starting_walkers())
        potential = self._md_potential(state.walkers)
        if state.step == 0:  # or a kill within the first piece would leave none
            halfway.write(state)
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
        for transfer in proton_transfers(state.walkers, found.walkers):
            self.transfers.append(f"before step {end} {transfer}")
        if end == self.steps and steps % self.dynamics.stride:
            self._add(found.walkers, potential, trajectory)
        return RunState(end, found.walkers, trajectory.sync())

    def _add(
        self, walkers: Sequence[Walker], potential: Potential, trajectory: Trajectory
    ) -> None:
        """Write a frame of each walker."""
        scored = snapshot(walkers, potential, self.dynamics, self.model.scorer)
        trajectory.add(scored, self.dynamics.timestep)

    def _piece_steps(self) -> int:
        """Return the steps of a piece, a multiple of the stride."""
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
        if not self.compile and self.device == "cpu":
            return self.model.potential
        from alloop.potentials.placed import moving_potential

        batch = pack_frames([walker.frame for walker in walkers])
        own = on_device(self.model.potential, self.device)
        potential, why = moving_potential(own, batch, self.compile)
        self.notes.extend([] if why is None else [why])
        return potential

    def _request_key(self) -> dict[str, str]:
        """Return the settings, `steps` apart, that must be equal to resume a run."""
        return {
            "model": to_bytes(self.model)[0],
            "start": ",".join(frame.id for frame in self.start),
            "dynamics": json.dumps(identity(self.dynamics), sort_keys=True),
            "walkers": str(self.walkers),
            "seed": str(self.seed),
        }


def _text_in_older_states(dynamics: DynamicsSettings) -> str:
    """Return the settings as the first states of MD runs hold them."""
    guards, barostat = dynamics.guards, dynamics.barostat
    facts = {
        "kind": dynamics.integrator.kind,
        "temperature": dynamics.temperature,
        "timestep": dynamics.timestep,
        "friction": getattr(dynamics.integrator, "friction", 0.01),
        "stride": dynamics.stride,
        "centre": dynamics.centre,
        "guards": guards,
        **({} if barostat is None else {"barostat": barostat, "volume": guards.volume}),
    }
    text = ", ".join(f"{name}={value!r}" for name, value in facts.items())
    return f"DynamicsSettings({text})".replace(f"volume={guards.volume!r}, ", "")


def _moving_walkers(walkers: Sequence[Walker]) -> int:
    return sum(walker.stopped is None for walker in walkers)
