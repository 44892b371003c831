"""What things cost, as measured: CPU seconds by label, by molecule, by part. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alloop.core.atoms import formula
from alloop.core.records import Label
from alloop.core.splits import EXAMINATION, FROZEN, split_of
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.told import deeds, told

_PAUSE = 60.0  # s without any work: nobody was running the campaign
PARTS = {
    "Rechecked": "noise floor",
    "Trained": "training",
    "Explored": "MD",
    "Prepared": "preparation",
    "Sampled": "preparation",
    "Examined": "examination",
}


LABELS = ("cheap labels", "expensive labels", "frozen set", "examination")


def label_part(purpose: str, fidelity: str) -> str:
    """Return the part of the costs that a label belongs to."""
    return {FROZEN: "frozen set", EXAMINATION: "examination"}.get(
        purpose, f"{fidelity} labels"
    )


def is_learned(label: Told) -> bool:
    """Return whether models may learn from the label."""
    return split_of(label.purpose, label.brought) == "train"


@dataclass(frozen=True, slots=True)
class Price:
    """Mean CPU seconds of the `labels` good labels of one molecule at one fidelity."""

    fidelity: str
    formula: str
    labels: int
    cpu_seconds: float


def prices(history: History) -> tuple[Price, ...]:
    """Measured prices by fidelity and molecule; labels that the user brought, whose
    cost is not known, and failures do not count."""
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for label in told(history):
        if not label.brought and isinstance(label.record, Label):
            costs[label.fidelity, formula(label.frame)].append(label.cpu_seconds)
    return tuple(
        Price(fidelity, molecule, len(found), sum(found) / len(found))
        for (fidelity, molecule), found in sorted(costs.items())
    )


def cheap_in_expensive(history: History) -> float:
    """How many expensive labels the cheap ones of training would have paid for.

    Molecule by molecule, since a large one costs more at both levels; 0 where nothing
    was measured.
    """
    price = {
        each.formula: each.cpu_seconds
        for each in prices(history)
        if each.fidelity == "expensive" and each.cpu_seconds > 0
    }
    if not price:
        return 0.0
    typical = sum(price.values()) / len(price)
    return sum(
        label.cpu_seconds / price.get(formula(label.frame), typical)
        for label in told(history)
        if label.fidelity == "cheap" and is_learned(label)
    )


def by_part(history: History) -> Mapping[str, float]:
    """CPU seconds spent here by part; labels that a cache gave cost nothing.

    Parts: "cheap labels", "expensive labels", "frozen set" (labels only),
    "examination" (labels and MD), "noise floor" (labels made a second time),
    "training", "MD", "preparation".
    """
    spent = dict.fromkeys(LABELS, 0.0)
    for label in told(history):
        if not label.cached:
            spent[label_part(label.purpose, label.fidelity)] += label.cpu_seconds
    spent |= {part: 0.0 for part in PARTS.values() if part not in spent}
    for deed in history.chronicle.deeds:
        if deed.kind in PARTS:
            spent[PARTS[deed.kind]] += deed.timing.cpu_seconds
    return spent


def utilisation(history: History, workers: int | None = None) -> float | None:
    """CPU seconds of all tasks over workers × wall seconds; None before any task.

    workers: how many there were, by default as many as gave answers. Wall time runs
    from the first task to the last, without pauses of more than a minute in which
    nothing ran: those lie between two runs.
    """
    timings = [x.timing for x in deeds(history) if x.timing.ended > x.timing.started]
    wall = _wall((timing.started, timing.ended) for timing in timings)
    crew = workers or len({timing.worker for timing in timings})
    if wall <= 0 or crew == 0:
        return None
    return sum(timing.cpu_seconds for timing in timings) / (crew * wall)


def _wall(spans: Iterable[tuple[float, float]]) -> float:
    total, until = 0.0, float("-inf")
    for started, ended in sorted(spans):
        gap = started - until
        total += max(0.0, ended - max(started, until)) + (
            gap if 0 < gap < _PAUSE else 0
        )
        until = max(until, ended)
    return total
