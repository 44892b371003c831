"""CPU seconds of labels, training and MD for a plan.

Those of labels come from the campaign's store, its label cache, or new labels; those of
training and MD are what was spent so far, or from a few steps.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from math import ceil
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from alloop.config import Setup
from alloop.config.build import make_trainer
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost, molecule_key
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Label, LabelSet, TrainingData, Unlabelled
from alloop.core.roles import Potential, Trainer
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.programs import level_cost, outside_code
from alloop.store.cache import LabelCache

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
    rate = (spent[_LONG] - spent[_SHORT]) / (_LONG - _SHORT)
    if rate <= 0.0:  # steps shorter than the noise of two trainings: their bound
        rate = spent[_LONG] / _LONG
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
    cheap = _label_set(setup.start, min(_FRAMES, budget.cheap), rng)
    expensive = _label_set(setup.start, min(_FRAMES, budget.expensive), rng)
    if not setup.levels["expensive"].has_forces:
        nothing = np.full_like(expensive.forces, np.nan)
        expensive = replace(expensive, forces=nothing)
    return TrainingData(cheap, expensive)


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


_DEAR = 20.0  # CPU s: what is likely to cost more is extrapolated instead
_WARM = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]))
_WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]),
)

_Labels: TypeAlias = list[tuple[Frame, Label]]


@dataclass(slots=True)
class LabelPrices:
    """Label costs with their sources.

    costs: by fidelity, where any label is known; sources: number of labels by source;
    problems: failures, in words.
    """

    costs: dict[Fidelity, Cost] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def label_prices(
    setup: Setup, measure: bool, tell: Callable[[str], None]
) -> LabelPrices:
    """Return the cost of a label at each level; `tell` receives progress messages.

    With `measure`, each molecule of unknown cost is labelled once, unless that would
    take long.
    """
    prices = LabelPrices()
    first = next(iter(setup.levels.values()))
    limits = Limits(seconds=min(setup.plan.limits.label_time, 5 * _DEAR))
    with IsolatedLabeller(first, limits) as child:
        for fidelity, level in setup.levels.items():
            labels = _known_labels(setup, level, prices)
            code = outside_code(level)
            if measure and code and not labels:
                prices.problems.append(
                    f"{level.title} is not priced: only a run calls {code}"
                )
            elif measure and not code:
                labels += _measured_labels(
                    setup, child.labeller(level), labels, prices, tell
                )
            if labels:
                prices.costs[fidelity] = level_cost(level, labels)
    return prices


def _known_labels(setup: Setup, level: Level, prices: LabelPrices) -> _Labels:
    """Return labels that exist already, of the store or else of the label cache."""
    labels = _stored_labels(setup, level)
    _count_labels(prices, "of the store", labels)
    if not labels:
        labels = _cached_labels(setup, level)
        _count_labels(prices, "of the label cache", labels)
    return labels


def _stored_labels(setup: Setup, level: Level) -> _Labels:
    """Return the labels that the campaign has made so far."""
    if not setup.store.exists():
        return []
    from alloop.history.reader import read_history

    label_index = read_history(setup.store).label_index
    return [
        (label_index.frames[frame], label)
        for (at, frame), label in label_index.labels.items()
        if at == level.id and isinstance(label, Label) and label.cpu_seconds > 0
    ]


def _cached_labels(setup: Setup, level: Level) -> _Labels:
    if setup.cache is None:
        return []
    cache = LabelCache(setup.cache)
    records = [(frame, cache.get(level.id, frame.id)) for frame in setup.start]
    return [(frame, label) for frame, label in records if isinstance(label, Label)]


def _measured_labels(
    setup: Setup,
    labeller: IsolatedLabeller,
    labels: _Labels,
    prices: LabelPrices,
    tell: Callable[[str], None],
) -> _Labels:
    """Make and return a label of each molecule of unknown cost, small ones first."""
    made: _Labels = []
    for frame in _small_first(setup, labeller.level, bool(labels)):
        cost = level_cost(labeller.level, [*labels, *made])
        if molecule_key(frame) in cost.known or cost.seconds(frame) > _DEAR:
            continue
        tell(f"labelling {molecule_key(frame)} at {labeller.level.title}")
        if not made:
            labeller.label(_WARM)  # so that imports are not measured
        match labeller.label(frame):
            case Label() as label:
                made.append((frame, label))
            case Unlabelled() as none:
                prices.problems.append(_pricing_problem(frame, labeller.level, none))
    _count_labels(prices, "made now", made)
    return made


def _small_first(setup: Setup, level: Level, calibrated: bool) -> Iterator[Frame]:
    """Yield the molecules by cost; water before them if all of them are expensive."""
    cost = level_cost(level)
    frames = sorted(setup.start, key=cost.seconds)
    if not calibrated and cost.seconds(frames[0]) > _DEAR:
        yield _WATER
    yield from frames


def _pricing_problem(frame: Frame, level: Level, none: Unlabelled) -> str:
    why = none.message or none.failure
    return f"{level.title} gives no label of {molecule_key(frame)}: {why}"


def _count_labels(prices: LabelPrices, source: str, labels: _Labels) -> None:
    prices.sources[source] = prices.sources.get(source, 0) + len(labels)
