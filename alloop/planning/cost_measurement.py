"""Label costs for a plan: from the campaign's store, its label cache, or new labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from alloop.config import Setup
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost, molecule_key
from alloop.core.levels import Fidelity, Level
from alloop.core.records import Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.programs import level_cost, outside_code
from alloop.store.cache import LabelCache

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
