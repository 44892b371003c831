"""Tasks on workers: plain functions that carry out a command and return its event.

They do not depend on the store, the scheduler or later decisions. A label that took
long is saved in the spool before it is returned, in case the driver is gone.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.records import Candidate, Label, Unlabelled, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.splits import EXAMINATION
from alloop.generation import Generation, from_bytes
from alloop.labels.recheck import recheck_label, tighter_level
from alloop.loop import events as e
from alloop.md.dynamics import run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.workers.first_frames import first_frames, sample_frames
from alloop.workers.process_labellers import MeteredLabeller, labeller_for
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.spool import find_label, label_in_progress, leave_label
from alloop.workers.training_task import perform_training

_Told: TypeAlias = tuple[Label | Unlabelled, e.Timing]
LONG = 2.0  # s; longer labels are worth writing to a file


@dataclass(frozen=True, slots=True, eq=False)
class TaskResult:
    """The event of a command and, after training, the model's blob."""

    event: e.Answer
    blob: bytes | None = None


def perform_command(
    command: e.Command, cargo: TaskData, kit: WorkerSettings
) -> TaskResult:
    """Carry out a command. Raises only for bugs and lost resources."""
    clock = _TaskClock()
    match command:
        case e.LabelFrame():
            return _perform_label(command, kit, clock)
        case e.Explore() | e.Examine():
            return _move(command, cargo, kit, clock)
        case e.Train():
            return _perform_train(command, cargo, kit, clock)
        case e.Recheck():
            return _perform_recheck(command, cargo, kit, clock)
        case e.Prepare():
            return _perform_prepare(command, kit, clock)
        case e.Sample():
            return _perform_sample(command, kit, clock)
        case e.Price() | e.Stop():
            raise TypeError(f"{command.name} is the driver's to answer")


class _TaskClock:
    """A clock of wall and CPU time from its creation on.

    The CPU time of label children is passed to `timing`.
    """

    def __init__(self) -> None:
        self.started = time.time()
        self._cpu = time.process_time()

    def timing(self, children: float = 0.0) -> e.Timing:
        cpu = time.process_time() - self._cpu + children
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return e.Timing(self.started, time.time(), cpu, worker)


def _perform_label(
    command: e.LabelFrame, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    with label_in_progress():
        record, timing = _leftover_label(command, kit) or _made_label(
            command, kit, clock
        )
    match record:
        case Label():
            return TaskResult(e.Labelled(command.name, record, timing))
        case Unlabelled():
            return TaskResult(e.NotLabelled(command.name, record, timing))


def _leftover_label(command: e.LabelFrame, kit: WorkerSettings) -> _Told | None:
    """Return a record that a worker of an earlier run left in the spool, None without.

    Such a worker went on without its driver, and may have finished since this command
    was submitted.
    """
    if kit.spool is None:
        return None
    record = find_label(kit.spool, command.level, command.frame.id)
    return None if record is None else (record, e.Timing())


def _made_label(command: e.LabelFrame, kit: WorkerSettings, clock: _TaskClock) -> _Told:
    record = labeller_for(kit, kit.level(command.level)).label(command.frame)
    timing = clock.timing(record.cpu_seconds if kit.isolate else 0.0)
    long = timing.ended - timing.started > LONG
    if kit.spool is not None and long and record.is_permanent:
        leave_label(kit.spool, record)
    return record, timing


def _move(
    command: e.Explore | e.Examine,
    cargo: TaskData,
    kit: WorkerSettings,
    clock: _TaskClock,
) -> TaskResult:
    if isinstance(command, e.Examine):
        return _examine(command, cargo, kit, clock)
    return _perform_explore(command, cargo, kit, clock)


def _perform_explore(
    command: e.Explore, cargo: TaskData, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    generation = _load_generation(cargo, kit)
    rngs = [
        random_stream(
            kit.seed, f"explore/{command.round}/{command.piece}/{walker.index}"
        )
        for walker in command.walkers
    ]
    potential, why = _exploring_potential(command.walkers, generation, kit)
    first = (command.round, command.batch, command.piece) == (1, 0, 0)
    exploration = run_dynamics(
        command.walkers,
        potential,
        kit.dynamics,
        command.steps,
        rngs,
        scorer=generation.scorer,
        threshold=generation.threshold,
        keep=command.keep,
        controls=command.controls,
        control_rng=random_stream(kit.seed, command.name),
    )
    event = e.Explored(
        name=command.name,
        walkers=exploration.walkers,
        candidates=exploration.candidates,
        controls=exploration.controls,
        scored=exploration.scored,
        timing=clock.timing(),
        note=why if first else "",
    )
    return TaskResult(event)


def _examine(
    command: e.Examine, cargo: TaskData, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    """Run MD with all guards except surprise, which would bias the choice of frames.

    Predictions are made for the frames exactly as they will be labelled.
    """
    generation = _load_generation(cargo, kit)
    walkers = command.walkers
    if command.steps:
        guards = replace(kit.dynamics.guards, surprise=None)
        dynamics = replace(kit.dynamics, temperature=command.temperature, guards=guards)
        name = f"examine/{command.number}/{command.piece}"
        rngs = [random_stream(kit.seed, f"{name}/{walker.index}") for walker in walkers]
        potential, _ = _exploring_potential(walkers, generation, kit)
        walkers = run_dynamics(
            walkers, potential, dynamics, command.steps, rngs
        ).walkers
    frames = _said(generation, tuple(x for x in walkers if x.stopped is None))
    return TaskResult(e.Examined(command.name, walkers, frames, clock.timing()))


def _said(generation: Generation, walkers: tuple[Walker, ...]) -> tuple[Candidate, ...]:
    """Return the frames of the walkers, with the predictions of the generation."""
    if not walkers:
        return ()
    batch = pack_frames([walker.frame for walker in walkers])
    said = generation.predict(batch, descriptors=True)
    scorer = generation.scorer
    none = np.full(len(batch), np.nan)
    surprise = none if scorer is None else scorer.score(batch, said)
    found = ScoredFrames(walkers, batch, said, surprise, np.isfinite(surprise), step=0)
    return tuple(found.candidate(i, EXAMINATION) for i in range(len(walkers)))


def _exploring_potential(
    walkers: Sequence[Walker], generation: Generation, kit: WorkerSettings
) -> tuple[Potential, str]:
    """Return the potential, compiled if that is set, and the reason if it is not.

    The reason is "" unless compilation was wanted but impossible.
    """
    if not kit.compile:
        return generation.potential, ""
    from alloop.potentials.compiled import compiled_for

    batch = pack_frames([walker.frame for walker in walkers])
    potential, why = compiled_for(generation.potential, batch)
    return potential, why or ""


def _perform_train(
    command: e.Train, cargo: TaskData, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    event, blob = perform_training(command, cargo, kit)
    return TaskResult(replace(event, timing=clock.timing()), blob)


def _perform_recheck(
    command: e.Recheck, cargo: TaskData, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    if cargo.frame is None or cargo.label is None:
        raise TypeError("Recheck needs a frame and its label in its cargo")
    bench = labeller_for(kit, tighter_level(kit.level(command.level)))
    rng = random_stream(kit.seed, command.name)
    noise = recheck_label(cargo.frame, cargo.label, bench, rng)
    timing = clock.timing(noise.cpu_seconds if kit.isolate else 0.0)
    return TaskResult(e.Rechecked(command.name, noise, timing))


def _perform_prepare(
    command: e.Prepare, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    oracle = MeteredLabeller(labeller_for(kit, kit.levels["cheap"]), kit.isolate)
    minimum, seeds, starts = first_frames(command, kit, oracle)
    timing = clock.timing(oracle.children)
    event = e.Prepared(command.name, command.molecule, minimum, seeds, starts, timing)
    return TaskResult(event)


def _perform_sample(
    command: e.Sample, kit: WorkerSettings, clock: _TaskClock
) -> TaskResult:
    oracle = MeteredLabeller(labeller_for(kit, kit.levels["cheap"]), kit.isolate)
    frames = sample_frames(command, kit, oracle)
    timing = clock.timing(oracle.children)
    return TaskResult(e.Sampled(command.name, command.walker.molecule, frames, timing))


_models: dict[bytes, Generation] = {}  # cache of the worker's last generation


def _load_generation(cargo: TaskData, kit: WorkerSettings) -> Generation:
    blob = cargo.model or b""
    if blob not in _models:
        _models.clear()
        _models[blob] = from_bytes(blob, kit.restore)
    return _models[blob]
