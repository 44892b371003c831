"""A command becomes its event: plain functions that run on a worker.

Nothing here knows the store, the scheduler or what is decided next. A label that took
long is left in the spool before it travels, in case nobody is there to take it.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from alloop.core.batch import pack
from alloop.core.records import Candidate, Label, Unlabelled, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import stream
from alloop.core.splits import EXAMINATION
from alloop.generation import Generation, from_bytes
from alloop.labels.noise import recheck, tighter
from alloop.loop import events as e
from alloop.loop.bench import Metered, labeller
from alloop.loop.kit import Cargo, Kit
from alloop.loop.retries import lasting
from alloop.loop.schooling import teach
from alloop.loop.sources import first_frames, sample
from alloop.loop.spool import find, in_hand, leave
from alloop.md.harvest import Scored
from alloop.md.run import run

_Told: TypeAlias = tuple[Label | Unlabelled, e.Timing]
LONG = 2.0  # s of a label, from which on a file is little beside it


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """The event and, after training, the model's blob."""

    event: e.Answer
    blob: bytes | None = None


def perform(command: e.Command, cargo: Cargo, kit: Kit) -> Done:
    """Do what the command says. Raises only for bugs and lost resources."""
    clock = _Clock()
    match command:
        case e.LabelFrame():
            return _label(command, kit, clock)
        case e.Explore() | e.Examine():
            return _move(command, cargo, kit, clock)
        case e.Train():
            return _train(command, cargo, kit, clock)
        case e.Recheck():
            return _recheck(command, cargo, kit, clock)
        case e.Prepare():
            return _prepare(command, kit, clock)
        case e.Sample():
            return _sample(command, kit, clock)
        case e.Price() | e.Stop():
            raise TypeError(f"{command.name} is the driver's to answer")


class _Clock:
    """Wall and CPU time from its birth; CPU of label children is added by hand."""

    def __init__(self) -> None:
        self.started = time.time()
        self._cpu = time.process_time()

    def timing(self, children: float = 0.0) -> e.Timing:
        cpu = time.process_time() - self._cpu + children
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return e.Timing(self.started, time.time(), cpu, worker)


def _label(command: e.LabelFrame, kit: Kit, clock: _Clock) -> Done:
    with in_hand():
        record, timing = _left(command, kit) or _made(command, kit, clock)
    match record:
        case Label():
            return Done(e.Labelled(command.name, record, timing))
        case Unlabelled():
            return Done(e.NotLabelled(command.name, record, timing))


def _left(command: e.LabelFrame, kit: Kit) -> _Told | None:
    """What a worker of an earlier run, which went on without its driver, left behind
    since this one asked."""
    if kit.spool is None:
        return None
    record = find(kit.spool, command.level, command.frame.id)
    return None if record is None else (record, e.Timing())


def _made(command: e.LabelFrame, kit: Kit, clock: _Clock) -> _Told:
    record = labeller(kit, kit.level(command.level)).label(command.frame)
    timing = clock.timing(record.cpu_seconds if kit.isolate else 0.0)
    long = timing.ended - timing.started > LONG
    if kit.spool is not None and long and lasting(record):
        leave(kit.spool, record)
    return record, timing


def _move(
    command: e.Explore | e.Examine, cargo: Cargo, kit: Kit, clock: _Clock
) -> Done:
    if isinstance(command, e.Examine):
        return _examine(command, cargo, kit, clock)
    return _explore(command, cargo, kit, clock)


def _explore(command: e.Explore, cargo: Cargo, kit: Kit, clock: _Clock) -> Done:
    generation = _generation(cargo, kit)
    rngs = [
        stream(kit.seed, f"explore/{command.round}/{command.piece}/{walker.index}")
        for walker in command.walkers
    ]
    potential, why = _potential(command.walkers, generation, kit)
    first = (command.round, command.batch, command.piece) == (1, 0, 0)
    exploration = run(
        command.walkers,
        potential,
        kit.dynamics,
        command.steps,
        rngs,
        scorer=generation.scorer,
        threshold=generation.threshold,
        keep=command.keep,
        controls=command.controls,
        lottery=stream(kit.seed, command.name),
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
    return Done(event)


def _examine(command: e.Examine, cargo: Cargo, kit: Kit, clock: _Clock) -> Done:
    """MD with all guard rails but that on surprise, which must not choose the frames;
    what is predicted is predicted for the frames as they will be labelled."""
    generation = _generation(cargo, kit)
    walkers = command.walkers
    if command.steps:
        guards = replace(kit.dynamics.guards, surprise=None)
        dynamics = replace(kit.dynamics, temperature=command.temperature, guards=guards)
        name = f"examine/{command.number}/{command.piece}"
        rngs = [stream(kit.seed, f"{name}/{walker.index}") for walker in walkers]
        potential, _ = _potential(walkers, generation, kit)
        walkers = run(walkers, potential, dynamics, command.steps, rngs).walkers
    frames = _said(generation, tuple(x for x in walkers if x.stopped is None))
    return Done(e.Examined(command.name, walkers, frames, clock.timing()))


def _said(generation: Generation, walkers: tuple[Walker, ...]) -> tuple[Candidate, ...]:
    """Where the walkers are, with what the generation says of it."""
    if not walkers:
        return ()
    batch = pack([walker.frame for walker in walkers])
    said = generation.predict(batch, descriptors=True)
    scorer = generation.scorer
    none = np.full(len(batch), np.nan)
    surprise = none if scorer is None else scorer.score(batch, said)
    found = Scored(walkers, batch, said, surprise, np.isfinite(surprise), step=0)
    return tuple(found.candidate(i, EXAMINATION) for i in range(len(walkers)))


def _potential(
    walkers: Sequence[Walker], generation: Generation, kit: Kit
) -> tuple[Potential, str]:
    """Who predicts, as compiled code where that is wanted; and why not where it cannot
    be had."""
    if not kit.compile:
        return generation.potential, ""
    from alloop.potentials.compiled import compiled_for

    batch = pack([walker.frame for walker in walkers])
    potential, why = compiled_for(generation.potential, batch)
    return potential, why or ""


def _train(command: e.Train, cargo: Cargo, kit: Kit, clock: _Clock) -> Done:
    event, blob = teach(command, cargo, kit)
    return Done(replace(event, timing=clock.timing()), blob)


def _recheck(command: e.Recheck, cargo: Cargo, kit: Kit, clock: _Clock) -> Done:
    if cargo.frame is None or cargo.label is None:
        raise TypeError("Recheck needs a frame and its label in its cargo")
    bench = labeller(kit, tighter(kit.level(command.level)))
    rng = stream(kit.seed, command.name)
    noise = recheck(cargo.frame, cargo.label, bench, rng)
    timing = clock.timing(noise.cpu_seconds if kit.isolate else 0.0)
    return Done(e.Rechecked(command.name, noise, timing))


def _prepare(command: e.Prepare, kit: Kit, clock: _Clock) -> Done:
    oracle = Metered(labeller(kit, kit.levels["cheap"]), kit.isolate)
    minimum, seeds, starts = first_frames(command, kit, oracle)
    timing = clock.timing(oracle.children)
    event = e.Prepared(command.name, command.molecule, minimum, seeds, starts, timing)
    return Done(event)


def _sample(command: e.Sample, kit: Kit, clock: _Clock) -> Done:
    oracle = Metered(labeller(kit, kit.levels["cheap"]), kit.isolate)
    frames = sample(command, kit, oracle)
    timing = clock.timing(oracle.children)
    return Done(e.Sampled(command.name, command.walker.molecule, frames, timing))


_models: dict[bytes, Generation] = {}  # the worker's last generation, opened once


def _generation(cargo: Cargo, kit: Kit) -> Generation:
    blob = cargo.model or b""
    if blob not in _models:
        _models.clear()
        _models[blob] = from_bytes(blob, kit.restore)
    return _models[blob]
