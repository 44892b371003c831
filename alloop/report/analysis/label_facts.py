"""Counts and costs of labels by kind, and of open tasks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import mean, median

from alloop.core.doubts import doubts_of_details
from alloop.core.label_cost import molecule_key
from alloop.core.levels import Fidelity
from alloop.core.records import Detail, Failure, Label, Unlabelled
from alloop.core.splits import EXAMINATION, Purpose, split_of
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Recheck,
    Train,
    TrainPart,
)
from alloop.report.analysis.campaign_facts import (
    config_value,
    integer_or_none,
    is_single,
    level_title,
)

BUDGETED = ("cheap", "expensive")  # kinds of labels that the budget pays for

KINDS = (*BUDGETED, "validation", EXAMINATION)


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """The outcomes of the labels of one kind.

    good includes cached, supplied and doubtful labels; used counts against the budget.
    cpu_seconds was spent here; total_cost is the cost of all good labels, whoever paid.
    """

    kind: str
    good: int = 0
    cached: int = 0
    supplied: int = 0
    doubtful: int = 0
    used: int = 0
    budget: int | None = None
    failures: Mapping[Failure, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    total_cost: float = 0.0

    @property
    def failed(self) -> int:
        """The number of labels that failed, for whatever reason."""
        return sum(self.failures.values())

    @property
    def price(self) -> float | None:
        """The mean CPU seconds of good labels of known cost, None without any."""
        priced = self.good - self.supplied
        return self.total_cost / priced if priced else None


def level_name(history: History, kind: LabelTotals) -> str:
    """Return the name of the level that labels of this kind are made at."""
    return level_title(history, "cheap" if kind.kind == "cheap" else "expensive")


def label_totals(history: History) -> tuple[LabelTotals, ...]:
    """Return the labels by kind, see `label_kind`.

    "expensive" is always included, other kinds where there are any.
    """
    groups: dict[str, list[LabelEntry]] = {kind: [] for kind in KINDS}
    for label in label_entries(history):
        kind = label_kind(label.purpose, label.fidelity)
        groups[kind].append(label)
    return tuple(
        _label_totals(history, kind, labels)
        for kind, labels in groups.items()
        if labels or kind == "expensive" or (kind == "cheap" and not is_single(history))
    )


def label_kind(purpose: Purpose, fidelity: Fidelity) -> str:
    """Return the kind of a label in reports.

    It is "cheap", "expensive", "validation" or "examination".
    """
    split = split_of(purpose)
    if split == "train":
        return fidelity
    return EXAMINATION if purpose == EXAMINATION else split


def latest_labels(labels: Iterable[LabelEntry]) -> tuple[LabelEntry, ...]:
    """Return the labels without the failures that were tried again since."""
    return tuple({(label.level, label.frame.id): label for label in labels}.values())


def _label_totals(
    history: History, kind: str, labels: Sequence[LabelEntry]
) -> LabelTotals:
    last = latest_labels(labels)
    good = [x for x in last if not isinstance(x.record, Unlabelled)]
    bad = [x.record for x in last if isinstance(x.record, Unlabelled)]
    return LabelTotals(
        kind=kind,
        good=len(good),
        cached=sum(x.cached for x in good),
        supplied=sum(x.is_given for x in good),
        doubtful=sum(bool(doubts_of_details(x.record.details)) for x in good),
        used=sum(not x.is_given for x in last) if kind in BUDGETED else 0,
        budget=(
            integer_or_none(config_value(history, "budget", kind))
            if kind in BUDGETED
            and config_value(history, "budget", "split") != "measured"
            else None
        ),
        failures=Counter(record.failure for record in bad),
        cpu_seconds=sum(x.cpu_seconds for x in labels if not x.cached),
        total_cost=sum(x.cpu_seconds for x in good if not x.is_given),
    )


def task_kinds(commands: Iterable[Command]) -> Counter[str]:
    """Return the number of open tasks by kind: `cheap label`, `MD`, `training`, ..."""
    return Counter(_task_kind(command) for command in commands)


def _task_kind(command: Command) -> str:
    match command:
        case LabelFrame():
            return f"{label_kind(command.purpose, command.fidelity)} label"
        case Explore():
            return "MD"
        case Examine():
            return "examination"
        case Train(refine=frames) if frames:
            return "refinement"
        case Train() | TrainPart():
            return "training"
        case Recheck():
            return "recheck"
        case _:
            return "preparation"


@dataclass(frozen=True, slots=True)
class LabelCost:
    """Measured CPU seconds of the good labels of one molecule at one fidelity.

    each, most: mean and largest. peak_mb: largest memory, None where unknown.
    predicted: number of labels whose cost was predicted before they were requested;
    factor: the median ratio of prediction and measurement, the larger over the
    smaller, None without any.
    """

    fidelity: Fidelity
    molecule: str
    labels: int
    each: float
    most: float
    peak_mb: float | None
    predicted: int
    factor: float | None


def label_costs(history: History) -> tuple[LabelCost, ...]:
    """Return the costs by fidelity and molecule.

    Supplied labels are left out, since they cost nothing; the seconds of labels from a
    cache were spent elsewhere.
    """
    kinds: dict[tuple[Fidelity, str], list[LabelEntry]] = {}
    for label in label_entries(history):
        known = isinstance(label.record, Label) and label.cpu_seconds > 0
        if known and not label.is_given:
            key = (label.fidelity, molecule_key(label.frame))
            kinds.setdefault(key, []).append(label)
    known_prices = _predicted_prices(history)
    return tuple(
        _label_cost(key, labels, known_prices) for key, labels in sorted(kinds.items())
    )


_Priced = Sequence[tuple[int, e.Priced]]


def _predicted_prices(history: History) -> _Priced:
    return [(entry.seq, event) for entry, event in history.of_kind(e.Priced)]


def _label_cost(
    key: tuple[Fidelity, str], labels: Sequence[LabelEntry], priced: _Priced
) -> LabelCost:
    seconds = [label.cpu_seconds for label in labels]
    peaks = [finite_number(label.record.details.get("peak_mb")) for label in labels]
    factors = list(_prediction_factors(labels, priced))
    return LabelCost(
        fidelity=key[0],
        molecule=key[1],
        labels=len(labels),
        each=mean(seconds),
        most=max(seconds),
        peak_mb=max((peak for peak in peaks if peak is not None), default=None),
        predicted=len(factors),
        factor=median(factors) if factors else None,
    )


def _prediction_factors(
    labels: Sequence[LabelEntry], priced: _Priced
) -> Iterator[float]:
    """Yield the ratio of predicted and measured cost, 1 or larger.

    Only labels that were requested after the prediction are used.
    """
    for label in labels:
        before = [event for seq, event in priced if seq <= label.asked]
        cost = before[-1].costs.get(label.level) if before else None
        if cost is not None and not label.cached:
            ratio = cost.seconds(label.frame) / label.cpu_seconds
            yield max(ratio, 1.0 / ratio)


def finite_number(value: Detail) -> float | None:
    """Return a detail as a float if it is a finite number, None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None
