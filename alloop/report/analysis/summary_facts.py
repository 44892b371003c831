"""Facts on labels, generations, walkers and costs, from the journal alone."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

import yaml

from alloop.core.doubts import doubts_of_details
from alloop.core.records import Failure, Unlabelled
from alloop.core.splits import EXAMINATION, FROZEN, split_of
from alloop.history.label_entries import label_entries
from alloop.history.measured_costs import is_learned
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry, TrainingRequest
from alloop.loop import events as e

BUDGETED = ("cheap", "expensive")  # kinds of labels that the budget pays for
KINDS = (*BUDGETED, "validation", "test", EXAMINATION)
_RECENT = 5  # rounds whose median length predicts the rest


@dataclass(frozen=True, slots=True)
class LabelTally:
    """The outcomes of the labels of one kind.

    good includes cached, brought and doubtful labels; used counts against the budget.
    cpu_seconds was spent here; worth is the cost of all good labels, whoever paid for
    it.
    """

    kind: str
    good: int = 0
    cached: int = 0
    brought: int = 0
    doubtful: int = 0
    used: int = 0
    budget: int | None = None
    failures: Mapping[Failure, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    worth: float = 0.0

    @property
    def failed(self) -> int:
        """The number of labels that failed, for whatever reason."""
        return sum(self.failures.values())

    @property
    def price(self) -> float | None:
        """The mean CPU seconds of good labels of known cost, None without any."""
        priced = self.good - self.brought
        return self.worth / priced if priced else None


@dataclass(frozen=True, slots=True)
class GenerationFacts:
    """The labels, costs and frozen-set errors of a generation.

    Errors are in eV and eV/Å, None without a frozen set. heldout: further cheap labels,
    which calibrate its surprise. energy_mae: after the mean difference is removed;
    energy_absolute: with it, None where unknown. label_cost: CPU seconds of all labels
    so far, failures included, whoever paid for them; the test set is left out, and so
    are cheap labels where the generation learned from none.
    """

    generation: int
    cheap: int
    expensive: int
    label_cost: float
    cpu_seconds: float
    threshold: float | None
    force_mae: float | None
    force_rmse: float | None
    energy_mae: float | None
    test: int
    heldout: int = 0
    energy_absolute: float | None = None


def level_title(history: History, fidelity: str) -> str:
    """Return the level's readable name, such as `HF/STO-3G`."""
    known = history.attrs.get("levels", {}).get(fidelity, {})
    return str(known.get("title") or fidelity)


def level_name(history: History, kind: LabelTally) -> str:
    """Return the name of the level that labels of this kind are made at."""
    return level_title(history, "cheap" if kind.kind == "cheap" else "expensive")


def config_value(history: History, *path: str) -> Any:
    """Return a value of the configuration in force, None where it is not there."""
    tree = _tree(history.config)
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@lru_cache(maxsize=8)
def _tree(config: str) -> Any:
    try:
        return yaml.safe_load(config)
    except yaml.YAMLError:
        return None


def is_single(history: History) -> bool:
    """Return True if the campaign never asked for a cheap label."""
    return not any(x.fidelity == "cheap" for x in history.state.entries())


def label_tallies(history: History) -> tuple[LabelTally, ...]:
    """Return the labels by kind, see `label_kind`.

    "expensive" is always included, other kinds where there are any.
    """
    groups: dict[str, list[LabelEntry]] = {kind: [] for kind in KINDS}
    for label in label_entries(history):
        kind = label_kind(label.purpose, label.fidelity, label.is_given)
        groups[kind].append(label)
    return tuple(
        _label_tally(history, kind, labels)
        for kind, labels in groups.items()
        if labels or kind == "expensive" or (kind == "cheap" and not is_single(history))
    )


def label_kind(purpose: str, fidelity: str, brought: bool) -> str:
    """Return the kind of a label in reports.

    It is "cheap", "expensive", "validation" (the frozen set), "test" (a frozen set that
    the user brought) or "examination".
    """
    split = split_of(purpose, brought)
    if split == "train":
        return fidelity
    return EXAMINATION if purpose == EXAMINATION else split


def latest_labels(labels: Iterable[LabelEntry]) -> tuple[LabelEntry, ...]:
    """Return the labels without the failures that were tried again since."""
    return tuple({(label.level, label.frame.id): label for label in labels}.values())


def _label_tally(
    history: History, kind: str, labels: Sequence[LabelEntry]
) -> LabelTally:
    last = latest_labels(labels)
    good = [x for x in last if not isinstance(x.record, Unlabelled)]
    bad = [x.record for x in last if isinstance(x.record, Unlabelled)]
    return LabelTally(
        kind=kind,
        good=len(good),
        cached=sum(x.cached for x in good),
        brought=sum(x.is_given for x in good),
        doubtful=sum(bool(doubts_of_details(x.record.details)) for x in good),
        used=sum(not x.is_given for x in last) if kind in BUDGETED else 0,
        budget=(
            _integer_or_none(config_value(history, "budget", kind))
            if kind in BUDGETED
            else None
        ),
        failures=Counter(record.failure for record in bad),
        cpu_seconds=sum(x.cpu_seconds for x in labels if not x.cached),
        worth=sum(x.cpu_seconds for x in good if not x.is_given),
    )


def _integer_or_none(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def generation_facts(history: History) -> tuple[GenerationFacts, ...]:
    """Return the facts of all generations, in order."""
    asked = {lesson.name: lesson for lesson in history.chronicle.lessons}
    labels = [label for label in label_entries(history) if is_learned(label)]
    dear = [label for label in labels if label.fidelity == "expensive"]
    both, alone = _cost_by_record(labels), _cost_by_record(dear)
    return tuple(
        _generation_facts(event, asked[event.name], costs(seq))
        for seq, event in history.generations
        for costs in [both if asked[event.name].learned else alone]
    )


def best(history: History) -> GenerationFacts | None:
    """Return the generation that is used where none is named, see `LoopState.best`."""
    number = history.state.best
    return next((x for x in generation_facts(history) if x.generation == number), None)


def brought_test(history: History) -> bool:
    """Return whether the frozen set is a test set that the user brought."""
    entries = history.state.entries()
    return any(x.brought and x.purpose == FROZEN for x in entries)


def set_name(history: History) -> str:
    """Return the role of the frozen set: "validation", or "test" if it was brought."""
    return "test" if brought_test(history) else "validation"


def training_commands(
    history: History, lessons: Iterable[TrainingRequest]
) -> Iterator[e.Train]:
    """Yield the commands of these trainings, with the frames that they learn from."""
    last = {lesson.name: lesson.seq for lesson in lessons}
    for entry in history.select(sorted({*last.values()})):
        for command in entry.turn.commands:
            if isinstance(command, e.Train) and last.get(command.name) == entry.seq:
                yield command


def _cost_by_record(labels: Sequence[LabelEntry]) -> Callable[[int], float]:
    """Return the total CPU seconds of labels as a function of the record number."""
    ends = [label.answered for label in labels]
    sums = [0.0, *accumulate(label.cpu_seconds for label in labels)]
    return lambda seq: sums[bisect_left(ends, seq)]


def _generation_facts(
    event: e.Trained, asked: TrainingRequest, cost: float
) -> GenerationFacts:
    test = event.evaluation
    return GenerationFacts(
        generation=event.generation,
        cheap=asked.cheap,
        expensive=asked.expensive,
        label_cost=cost,
        cpu_seconds=event.timing.cpu_seconds,
        threshold=event.threshold,
        force_mae=None if test is None else test.force_mae,
        force_rmse=None if test is None else test.force_rmse,
        energy_mae=None if test is None else test.energy_mae,
        test=0 if test is None else len(test.frames),
        heldout=asked.heldout,
        energy_absolute=None if test is None else test.energy_absolute,
    )


def time_left(history: History) -> float | None:
    """Return the seconds until the budget is spent, by past rounds; None if unknown."""
    if history.state.finished:
        return 0.0
    times = [entry.time for entry, _ in history.of_kind(e.Trained, _RECENT + 1)]
    every = _integer_or_none(config_value(history, "training", "every"))
    budget = _integer_or_none(config_value(history, "budget", "expensive"))
    if not times or every is None or budget is None:
        return None
    rounds = rounds_left(
        budget - history.state.labels_used("expensive"),
        every,
        history.state.round,
        _integer_or_none(config_value(history, "stop", "rounds")),
    )
    return predict_seconds_left(times, rounds, history.entries[-1].time)


def rounds_left(labels: int, every: int, done: int, most: int | None) -> int:
    """Return the number of rounds that remaining labels and the round limit allow."""
    rounds = math.ceil(max(0, labels) / every)
    return rounds if most is None else min(rounds, max(0, most - done))


def predict_seconds_left(
    times: Sequence[float], rounds: int, now: float
) -> float | None:
    """Return the seconds left of `rounds` rounds, None if unknown.

    times: the moments at which earlier generations were ready; now: the present moment.
    """
    lengths = [after - before for before, after in pairwise(times)]
    if not lengths:
        return None
    spent = max(0.0, now - times[-1])
    return max(0.0, rounds * median(lengths[-_RECENT:]) - spent)


def task_kinds(commands: Iterable[e.Command]) -> Counter[str]:
    """Return the number of open tasks by kind: `cheap label`, `MD`, `training`, ..."""
    return Counter(_task_kind(command) for command in commands)


def _task_kind(command: e.Command) -> str:
    match command:
        case e.LabelFrame():
            return f"{label_kind(command.purpose, command.fidelity, False)} label"
        case e.Explore():
            return "MD"
        case e.Examine():
            return "examination"
        case e.Train():
            return "training"
        case e.Recheck():
            return "recheck"
        case _:
            return "preparation"
