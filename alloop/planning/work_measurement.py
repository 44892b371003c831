"""CPU seconds of training and MD for a plan: spent so far, or from a few steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from alloop.config import Setup
from alloop.config.build import make_trainer
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Trainer

if TYPE_CHECKING:
    from alloop.history.reader import History
    from alloop.training.trainers.staged_trainer import StagedTrainer

_SHORT, _LONG = 1, 9  # optimisation steps of two trainings, to take the difference of
_CALLS = 3  # force calls that are timed
_FRAMES = 40  # most labels of a training that is timed
_NOISE = 0.02  # Å


@dataclass(frozen=True, slots=True)
class WorkPrice:
    """The CPU seconds of one training or one round of MD, and their source in words.

    each: None where they are not known; source is the reason then.
    """

    each: float | None
    source: str


def work_prices(
    setup: Setup, measure: bool, tell: Callable[[str], None]
) -> tuple[WorkPrice, WorkPrice]:
    """Return the prices of a training and of a round of MD.

    They are taken from the store; where it has none, and with `measure`, from a few
    steps on frames near the start structures. `tell` receives progress messages.
    """
    training, md = _spent_prices(setup)
    if training.each is not None and md.each is not None:
        return training, md
    if not measure:
        return training, md
    tell("timing a few steps of training and MD")
    try:
        now = _measured_prices(setup)
    except (AlloopError, ImportError, RuntimeError, ValueError) as error:
        now = (WorkPrice(None, f"measuring failed: {error}"),) * 2
    return (
        now[0] if training.each is None else training,
        now[1] if md.each is None else md,
    )


def _spent_prices(setup: Setup) -> tuple[WorkPrice, WorkPrice]:
    unknown = WorkPrice(None, "it is measured once the first one is done")
    if not setup.store.exists():
        return unknown, unknown
    from alloop.history.reader import read_history

    return _history_prices(read_history(setup.store), unknown)


def _history_prices(
    history: "History", unknown: WorkPrice
) -> tuple[WorkPrice, WorkPrice]:
    from alloop.history.measured_costs import cpu_seconds_by_part

    parts = cpu_seconds_by_part(history)
    rounds = len({x.round for x in history.record_index.explorations.values()})
    counts = {"training": len(history.generations), "MD": rounds}
    training, md = (
        WorkPrice(parts[name] / count, "so far") if count else unknown
        for name, count in counts.items()
    )
    return training, md


def _measured_prices(setup: Setup) -> tuple[WorkPrice, WorkPrice]:
    from alloop.training.trainers.staged_trainer import StagedTrainer
    from alloop.training.trainers.universal import UniversalTrainer

    trainer = make_trainer(setup.plan)
    staged = trainer.staged if isinstance(trainer, UniversalTrainer) else trainer
    if isinstance(staged, StagedTrainer):
        potential, seconds = _time_stages(setup, trainer, staged)
    else:
        potential, seconds = _time_training(setup, trainer)
    source = "from a few steps made now"
    return WorkPrice(seconds, source), WorkPrice(_time_md(setup, potential), source)


def _time_stages(
    setup: Setup, trainer: Trainer, staged: "StagedTrainer"
) -> tuple[Potential, float]:
    """Return a potential and the CPU seconds of a whole training, at most.

    Two short trainings differ in their number of steps only, so that their difference
    is the time of steps. One before them takes what happens once in a process.
    """
    from alloop.training.trainers.universal import UniversalTrainer

    data, spent, potential = _made_up_labels(setup), dict[int, float](), None
    for steps in (_SHORT, _SHORT, _LONG):
        short = replace(
            staged,
            gammas=staged.gammas[:1],
            validation=0.0,
            stages=tuple(
                replace(
                    stage,
                    steps=steps,
                    schedule=replace(
                        stage.schedule, epochs=None, seconds=None, compile=False
                    ),
                )
                for stage in staged.stages
            ),
        )
        both = (
            UniversalTrainer(short) if isinstance(trainer, UniversalTrainer) else short
        )
        began = time.process_time()
        potential, _ = both.train(data, None, setup.plan.seed)
        spent[steps] = time.process_time() - began
    rate = max(spent[_LONG] - spent[_SHORT], 0.0) / (_LONG - _SHORT)
    mean_steps = sum(stage.steps for stage in staged.stages) / len(staged.stages)
    if potential is None:
        raise ValueError("no stage was trained")
    return potential, rate * mean_steps * len(staged.gammas)


def _time_training(setup: Setup, trainer: Trainer) -> tuple[Potential, float]:
    """Return a potential and the CPU seconds of a training without steps."""
    data = _made_up_labels(setup)
    began = time.process_time()
    potential, _ = trainer.train(data, None, setup.plan.seed)
    return potential, time.process_time() - began


def _time_md(setup: Setup, potential: Potential) -> float:
    """Return the CPU seconds of the force calls in a round of MD."""
    explore = setup.plan.explore
    size = min(explore.batch, explore.walkers)
    batch = pack_frames(list(islice(cycle(setup.start), size)))
    potential.predict(batch)
    began = time.process_time()
    for _ in range(_CALLS):
        potential.predict(batch)
    call = (time.process_time() - began) / _CALLS
    biased = sum(x.steps for x in setup.rules.active_explorers.values())
    return call * (explore.steps + biased) * ceil(explore.walkers / size)


def _made_up_labels(setup: Setup) -> TrainingData:
    """Return labels of random forces, of frames near the start structures."""
    rng = np.random.default_rng(setup.plan.seed)
    budget = setup.rules.budget
    return TrainingData(
        _label_set(setup.start, min(_FRAMES, budget.cheap), rng),
        _label_set(setup.start, min(_FRAMES, budget.expensive), rng),
    )


def _label_set(
    start: tuple[Frame, ...], count: int, rng: np.random.Generator
) -> LabelSet:
    frames = [
        replace(
            frame, positions=frame.positions + _NOISE * rng.normal(size=(len(frame), 3))
        )
        for frame in islice(cycle(start), count)
    ]
    forces = [rng.normal(size=(len(frame), 3)) for frame in frames]
    return LabelSet.of(frames, rng.normal(size=count), forces)
