"""Measured costs: CPU seconds by label, by molecule and by part. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alloop.core.atoms import hill_formula
from alloop.core.levels import Fidelity
from alloop.core.records import Label
from alloop.core.seeds import Purpose, split_of
from alloop.history.label_entries import label_entries, task_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry

_PAUSE = 60.0  # s; a longer gap without any work lies between two runs
PARTS = {
    "Rechecked": "noise floor",
    "Trained": "training",
    "PartTrained": "training",
    "Explored": "MD",
    "Prepared": "preparation",
    "Sampled": "preparation",
    "Examined": "examination",
}


LABELS = ("cheap labels", "expensive labels", "validation set", "examination")


def label_part(purpose: Purpose, fidelity: Fidelity) -> str:
    """Return the part of the costs that a label belongs to."""
    parts = {"validation": "validation set", "test": "examination"}
    return parts.get(split_of(purpose), f"{fidelity} labels")


def is_learned(label: LabelEntry) -> bool:
    """Return True if models may learn from the label."""
    return split_of(label.purpose) == "train"


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Mean CPU seconds of the `labels` good labels of one molecule at one fidelity."""

    fidelity: Fidelity
    formula: str
    labels: int
    cpu_seconds: float


def measured_costs(history: History) -> tuple[MeasuredCost, ...]:
    """Return the mean costs of labels by fidelity and molecule.

    Failures and labels that the user supplied, whose cost is unknown, do not count.
    """
    costs: dict[tuple[Fidelity, str], list[float]] = defaultdict(list)
    for label in label_entries(history):
        if not label.is_given and isinstance(label.record, Label):
            costs[label.fidelity, hill_formula(label.frame)].append(label.cpu_seconds)
    return tuple(
        MeasuredCost(fidelity, molecule, len(seconds), sum(seconds) / len(seconds))
        for (fidelity, molecule), seconds in sorted(costs.items())
    )


def cheap_in_expensive(history: History) -> float:
    """Return the cost of the cheap training labels in units of expensive labels.

    Computed molecule by molecule, since a large one costs more at both levels; 0 where
    nothing was measured.
    """
    price = {
        cost.formula: cost.cpu_seconds
        for cost in measured_costs(history)
        if cost.fidelity == "expensive" and cost.cpu_seconds > 0
    }
    if not price:
        return 0.0
    typical = sum(price.values()) / len(price)
    return sum(
        label.cpu_seconds / price.get(hill_formula(label.frame), typical)
        for label in label_entries(history)
        if label.fidelity == "cheap" and is_learned(label)
    )


def cpu_seconds_by_part(history: History) -> Mapping[str, float]:
    """Return the CPU seconds spent by part; labels from a cache cost nothing.

    Parts: "cheap labels", "expensive labels", "validation set" (labels only),
    "examination" (labels and MD), "noise floor" (labels computed a second time),
    "training", "MD", "preparation".
    """
    spent = dict.fromkeys(LABELS, 0.0)
    for label in label_entries(history):
        if not label.cached:
            spent[label_part(label.purpose, label.fidelity)] += label.cpu_seconds
    spent |= {part: 0.0 for part in PARTS.values() if part not in spent}
    for task in history.record_index.tasks:
        if task.kind in PARTS:
            spent[PARTS[task.kind]] += task.timing.cpu_seconds
    return spent


_HOUR = 3600.0  # s


def label_rates(history: History) -> dict[Fidelity, float]:
    """Return the good labels made in an hour, by fidelity, over the last hour of work.

    Over all of the work where it took less than an hour. It ends with the last task, so
    that the rate of a campaign that stopped stays what it was.
    """
    timings = [
        x.timing for x in task_entries(history) if x.timing.ended > x.timing.started
    ]
    if not timings:
        return {}
    end = max(timing.ended for timing in timings)
    begin = max(end - _HOUR, min(timing.started for timing in timings))
    rates: dict[Fidelity, float] = {}
    for label in label_entries(history):
        made = isinstance(label.record, Label) and not label.cached
        if made and begin < label.timing.ended <= end:
            share = _HOUR / (end - begin)
            rates[label.fidelity] = rates.get(label.fidelity, 0.0) + share
    return rates


def worker_utilisation(history: History, workers: int | None = None) -> float | None:
    """Return the CPU seconds of all tasks over workers × wall seconds.

    None before any task. workers: their number, by default that of the workers that
    gave answers. Wall time runs from the first task to the last, without pauses of more
    than a minute in which nothing ran: those lie between two runs.
    """
    timings = [
        x.timing for x in task_entries(history) if x.timing.ended > x.timing.started
    ]
    wall = _wall_seconds((timing.started, timing.ended) for timing in timings)
    crew = workers or len({timing.worker for timing in timings})
    if wall <= 0 or crew == 0:
        return None
    return sum(timing.cpu_seconds for timing in timings) / (crew * wall)


def _wall_seconds(spans: Iterable[tuple[float, float]]) -> float:
    total, until = 0.0, float("-inf")
    for started, ended in sorted(spans):
        gap = started - until
        total += max(0.0, ended - max(started, until)) + (
            gap if 0 < gap < _PAUSE else 0
        )
        until = max(until, ended)
    return total
