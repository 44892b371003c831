"""MD runs of walkers on a trained model: the job, its saved state, its trajectory.

MD is done in pieces. After each, the walkers and the length of the trajectory are saved
together, and each piece has a random stream of its own: a run that is killed continues
from the last piece and ends with the same bytes.

Trajectories are extended XYZ while the job runs. The comment of each frame has: walker,
step, time (fs), energy (eV), surprise if the model has a scorer, charge, spin (2S), of
cells the present vectors (Å) and, where the model gives it, the stress (eV/Å³), and
`stopped`, the reason, if a guard stopped the walker. The columns are species, position
(Å), momentum (in ASE's units, so that `get_velocities` works) and forces (eV/Å).
"""

import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import iread, write
from ase.io.trajectory import TrajectoryWriter
from safetensors import numpy as safetensors_numpy

from alloop.core.atoms import to_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.settings import identity
from alloop.core.species import Domain
from alloop.core.units import ASE_VELOCITY, Floats
from alloop.files.targets import refuse_target, replace_atomically
from alloop.generation import UNKNOWN, Generation, to_bytes
from alloop.md.dynamics import DynamicsSettings, run_dynamics, snapshot
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import proton_transfers
from alloop.md.integrate import maxwell_boltzmann
from alloop.potentials.devices import Device, on_device

_PIECE = 200  # approximate MD steps between two saved states
_KEY = "alloop"
_VERSION = 1
_PLAIN = (".extxyz", ".xyz")
_WHOLE = (".traj", ".db")  # ASE cannot truncate these after a kill: written at the end
KINDS = (*_PLAIN, *_WHOLE)


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """The state after a piece: MD steps done, walkers, trajectory length in bytes."""

    step: int
    walkers: tuple[Walker, ...]
    length: int


class Trajectory:
    """An extended XYZ file, truncated to `length` bytes and appended to.

    A context manager. Raises InputError where the file cannot be written.
    """

    def __init__(self, out: Path, length: int, scored: bool = True) -> None:
        self._out, self._length, self._scored = out, length, scored

    def __enter__(self) -> Self:
        try:
            self._file = self._out.open("ab")
        except OSError as error:
            raise _write_error(self._out, error) from error
        self._file.truncate(self._length)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, scored: ScoredFrames, timestep: float) -> None:
        """Append the frames of the walkers that are eligible."""
        text = io.StringIO()
        for index in map(int, np.flatnonzero(scored.eligible)):
            write(
                text,
                _frame_atoms(scored, index, timestep, self._scored),
                format="extxyz",
            )
        self._file.write(text.getvalue().encode())

    def sync(self) -> int:
        """Sync all frames to disk; return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()


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
        is_ours = path == self.out or halfway.path.exists()
        refuse_target(self.out, KINDS, force=self.force, taken=not is_ours)
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
                    progress = MDProgress(
                        done=state.step,
                        steps=self.steps,
                        moving=_moving_walkers(state.walkers),
                        walkers=self.walkers,
                        taken=state.step - first,
                        seconds=time.monotonic() - began,
                    )
                    observe(progress)
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
        outcome = run_dynamics(
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
        for transfer in proton_transfers(state.walkers, outcome.walkers):
            self.transfers.append(f"before step {end} {transfer}")
        if end == self.steps and steps % self.dynamics.stride:
            self._add(outcome.walkers, potential, trajectory)
        return RunState(end, outcome.walkers, trajectory.sync())

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
        original = on_device(self.model.potential, self.device)
        potential, why = moving_potential(original, batch, self.compile)
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
    later = (f"volume={guards.volume!r}, ", ", reactive=False")
    for part in later:  # settings of guards that the first states lack
        text = text.replace(part, "")
    return f"DynamicsSettings({text})"


def _moving_walkers(walkers: Sequence[Walker]) -> int:
    return sum(walker.stopped is None for walker in walkers)


class StateFile:
    """The state file of a run, `OUT.state`, which also holds the run's request.

    older: parts of the request as older versions wrote them. force: start again where
    `out` belongs to something else.
    """

    def __init__(
        self,
        out: Path,
        request: Mapping[str, str],
        older: Mapping[str, str],
        force: bool = False,
    ) -> None:
        self._out, self._request, self._force = out, dict(request), force
        self._older = older
        self.path = out.with_name(f"{out.name}.state")

    def read(self, beginning: Sequence[Walker]) -> RunState:
        """Return the saved state; step 0 with the walkers `beginning` without one.

        Raises InputError where `out` belongs to something else, unless forced.
        """
        try:
            return self._read(beginning)
        except InputError:
            if not self._force:
                raise
        self.path.unlink(missing_ok=True)
        return RunState(0, tuple(beginning), 0)

    def _read(self, beginning: Sequence[Walker]) -> RunState:
        if not self.path.exists():
            if self._out.exists():
                raise self._other_request("was not left by a run that can go on")
            return RunState(0, tuple(beginning), 0)
        facts, tensors = self._read_file()
        before = facts["request"]
        other = [
            key
            for key, value in self._request.items()
            if before[key] not in (value, self._older.get(key))
        ]
        if other:
            raise self._other_request(
                f"belongs to a run with another {', '.join(other)}"
            )
        if self._trajectory_size() < facts["length"]:
            raise self._other_request("is shorter than it was when the run stopped")
        walkers = _restored_walkers(beginning, facts, tensors)
        return RunState(facts["step"], walkers, facts["length"])

    def write(self, state: RunState) -> None:
        """Replace the saved state, atomically and synced."""
        facts = {
            "version": _VERSION,
            "request": self._request,
            "step": state.step,
            "length": state.length,
            "steps": [walker.step for walker in state.walkers],
            "stopped": [walker.stopped for walker in state.walkers],
        }
        batch = pack_frames([walker.frame for walker in state.walkers])
        v = np.concatenate([walker.velocities for walker in state.walkers])
        tensors = {"positions": batch.positions, "velocities": v}
        if batch.pbc.any():
            tensors["cells"] = batch.cells
        text = json.dumps(facts, sort_keys=True)
        with replace_atomically(self.path) as partial:
            partial.write_bytes(safetensors_numpy.save(tensors, {_KEY: text}))

    def _read_file(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        try:
            with safetensors.safe_open(self.path, "np") as file:
                facts = json.loads((file.metadata() or {})[_KEY])
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"expected the state of a run of MD, {self.path} cannot be read; "
                "add --force to start again"
            ) from error
        return facts, tensors

    def _trajectory_size(self) -> int:
        return self._out.stat().st_size if self._out.exists() else 0

    def _other_request(self, why: str) -> InputError:
        return InputError(
            f"{self._out} is there already and {why}; choose another --out, or add "
            "--force to replace it"
        )


def _restored_walkers(
    beginning: Sequence[Walker], facts: Mapping[str, Any], tensors: Mapping[str, Floats]
) -> tuple[Walker, ...]:
    """Return the walkers with their saved state; older files hold no cells."""
    start = pack_frames([walker.frame for walker in beginning])
    cells = tensors.get("cells", start.cells)
    arrays = (tensors["positions"], tensors["velocities"])
    cuts = start.offsets[1:-1]
    parts = zip(*(np.split(array, cuts) for array in arrays), cells, strict=True)
    rows = zip(beginning, parts, facts["steps"], facts["stopped"], strict=True)
    return tuple(
        replace(
            walker,
            frame=replace(walker.frame, positions=positions, cell=cell),
            velocities=velocities,
            step=step,
            stopped=stopped,
        )
        for walker, (positions, velocities, cell), step, stopped in rows
    )


def trajectory_file(out: Path) -> Path:
    """Return the file written during the run; InputError for an unknown suffix."""
    if out.suffix in _PLAIN:
        return out
    if out.suffix in _WHOLE:
        return out.with_name(f"{out.name}.extxyz")
    raise InputError(
        f"expected a trajectory that ends in {', '.join(KINDS)}, got {out}"
    )


def convert_trajectory(source: Path, out: Path) -> None:
    """Write all frames of an extended XYZ file to a new file `out` (.traj or .db).

    Raises InputError where it cannot be written.
    """
    write_frames = _write_database if out.suffix == ".db" else _write_trajectory
    try:
        with replace_atomically(out) as partial:
            write_frames(source, partial)
    except (OSError, sqlite3.Error) as error:
        raise _write_error(out, error) from error


def _write_database(source: Path, out: Path) -> None:
    with connect(out, use_lock_file=False) as database:
        for atoms in iread(source, format="extxyz"):
            facts = {k: v for k, v in atoms.info.items() if k != "charge"}
            database.write(atoms, key_value_pairs=facts)


def _write_trajectory(source: Path, out: Path) -> None:
    with TrajectoryWriter(out, mode="w") as file:
        for atoms in iread(source, format="extxyz"):
            file.write(atoms)


def _write_error(out: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a file that can be written at {out} ({error}); choose another "
        "--out, or make room and run again, the frames are kept"
    )


def _frame_atoms(
    frames: ScoredFrames, index: int, timestep: float, scored: bool
) -> object:
    walker, offsets = frames.walkers[index], frames.batch.offsets
    span = slice(int(offsets[index]), int(offsets[index + 1]))
    positions, cell = frames.batch.positions[span], frames.batch.cells[index]
    frame = replace(walker.frame, positions=positions, cell=cell)
    step = walker.step + frames.step
    atoms = to_atoms(frame)
    atoms.info |= {"walker": walker.index, "step": step, "time": step * timestep}
    if scored:
        atoms.info["surprise"] = float(frames.surprise[index])
    energy = float(frames.predictions.energies[index])
    forces = frames.predictions.forces[span]
    if frames.velocities is not None:
        atoms.set_velocities(frames.velocities[span] * ASE_VELOCITY)
    if index in frames.stopped:
        atoms.info["stopped"] = frames.stopped[index].replace("Å", "A")  # ASCII only
    results = {"energy": energy, "forces": forces}
    stress = frames.predictions.stress
    if stress is not None and np.isfinite(stress[index]).all():
        results["stress"] = stress[index]
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
