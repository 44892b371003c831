"""The cost of labels by level and molecule, fitted to the labels made. Pure numpy.

The size of a molecule is that of its basis, taken from the labels' detail `functions`;
for coupled cluster electron pairs count too, as they do in its work (o^2 v^4, with
triples o^3 v^4: Raghavachari et al., Chem. Phys. Lett. 157, 479 (1989)).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from alloop.core.atoms import hill_formula
from alloop.core.cost_curve import Curve, Point, Prior, fit_curve
from alloop.core.frame import Frame
from alloop.core.levels import LevelId
from alloop.core.records import Label
from alloop.core.units import Floats

_Groups: TypeAlias = dict[str, list[tuple[Frame, Label]]]

_PERIODS = (2, 10, 18, 36, 54, 86)  # last element of each but the seventh
_DOUBLE_ZETA = (5.0, 14.0, 18.0, 31.0, 31.0, 32.0, 45.0)  # functions an atom, by period
_ALIKE = 0.01  # weight of these proportions in the regression on labels


@dataclass(frozen=True, slots=True)
class TypicalCost:
    """The typical cost of a class of methods, before any label is made.

    time: CPU seconds of the smallest molecule, number of basis functions at which a
    label costs twice that, power of the part that grows, factor of unpaired electrons;
    memory: the same in MB; pairs: the share of electron pairs in the size.
    """

    time: Prior
    memory: Prior
    pairs: float = 0.0


UNKNOWN_COST = TypicalCost(
    Prior(0.01, 40, 2.0, 1.0, (3.0, 1.0, 0.4, 0.3)),
    Prior(100, 100, 2, 1, (3.0, 1.0, 0.4, 0.3)),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU seconds and memory of labels at one level.

    functions: basis functions per atom of each period of the table; pairs: the share of
    electron pairs in a molecule's size; known: for each measured molecule, its factor
    on the curve of time and its uncertainty (see `Curve.molecule_factor`); labels: the
    number of labels that the cost was fitted to.
    """

    level: LevelId
    time: Curve
    memory: Curve
    functions: tuple[float, ...] = _DOUBLE_ZETA
    pairs: float = 0.0
    known: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    labels: int = 0

    def seconds(self, frame: Frame) -> float:
        """Return the predicted CPU seconds of the frame's label, a median."""
        factor, _ = self.known.get(molecule_key(frame), (1.0, 0.0))
        return self.time.value(self.size(frame), frame.spin != 0) * factor

    def spread(self, frame: Frame) -> float:
        """Return the factor within which two labels of three lie; 1 means no doubt."""
        _, doubt = self.known.get(molecule_key(frame), (1.0, None))
        if doubt is None:
            doubt = self.time.log_deviation(self.size(frame), frame.spin != 0)
        return float(np.exp(doubt))

    def megabytes(self, frame: Frame) -> float:
        """Return the predicted peak memory in MB of the frame's label and program."""
        return self.memory.value(self.size(frame), frame.spin != 0)

    def size(self, frame: Frame) -> float:
        """Return the number of basis functions of the frame.

        For coupled cluster, its weighted geometric mean with the number of electron
        pairs.
        """
        functions = float(_period_counts(frame) @ np.array(self.functions))
        pairs = max(1.0, (float(frame.numbers.sum()) - frame.charge) / 2)
        return float(functions ** (1 - self.pairs) * pairs**self.pairs)


def fit_cost(
    level: LevelId, default: TypicalCost, labels: Iterable[tuple[Frame, Label]]
) -> Cost:
    """Return the cost of a level fitted to its labels, in any order.

    Without labels it is the usual one. Labels without a cost, such as those that a user
    supplied, do not count.
    """
    groups: _Groups = defaultdict(list)
    for frame, label in labels:
        if label.cpu_seconds > 0:
            groups[molecule_key(frame)].append((frame, label))
    functions = _functions_per_atom(groups)
    # Functions of a small basis are contracted from more primitives: they cost more.
    dense = (functions[1] / _DOUBLE_ZETA[1]) ** 0.5
    time = replace(default.time, crossing=default.time.crossing * dense)
    curves = fit_curve((), time), fit_curve((), default.memory)
    before = Cost(level, *curves, functions, default.pairs)
    points = {name: _cost_point(before, groups[name]) for name in sorted(groups)}
    curve = fit_curve(tuple(points.values()), time)
    return replace(
        before,
        time=curve,
        memory=fit_curve(tuple(_memory_peaks(before, groups)), default.memory),
        known={name: curve.molecule_factor(point) for name, point in points.items()},
        labels=sum(map(len, groups.values())),
    )


def molecule_key(frame: Frame) -> str:
    """Return the key of a molecule's costs: formula, charge and spin."""
    state = f" {frame.charge:+d}" if frame.charge else ""
    return f"{hill_formula(frame)}{state}" + (
        f" spin {frame.spin}" if frame.spin else ""
    )


def _cost_point(before: Cost, labels: Sequence[tuple[Frame, Label]]) -> Point:
    frame, _ = labels[0]
    seconds = float(np.median([label.cpu_seconds for _, label in labels]))
    return Point(before.size(frame), frame.spin != 0, seconds, len(labels))


def _memory_peaks(before: Cost, groups: _Groups) -> Iterator[Point]:
    """Yield the largest `peak_mb` of each molecule."""
    for _, labels in sorted(groups.items()):
        frame, _ = labels[0]
        peaks = [label.details.get("peak_mb") for _, label in labels]
        measured = [float(mb) for mb in peaks if isinstance(mb, int | float) and mb > 0]
        if measured:
            yield Point(
                before.size(frame), frame.spin != 0, max(measured), len(measured)
            )


def _period_counts(frame: Frame) -> Floats:
    """Return the number of atoms of each period (7,)."""
    periods = np.searchsorted(_PERIODS, frame.numbers)
    return np.bincount(periods, minlength=len(_DOUBLE_ZETA)).astype(np.float64)


def _functions_per_atom(groups: _Groups) -> tuple[float, ...]:
    """Return basis functions per atom of each period, by ridge regression on labels."""
    seen = {
        name: (_period_counts(frame), float(functions))
        for name, labels in sorted(groups.items())
        for frame, label in labels
        if isinstance(functions := label.details.get("functions"), int | float)
    }
    default = np.array(_DOUBLE_ZETA)
    if not seen:
        return _DOUBLE_ZETA
    atoms, counts = (np.array(x) for x in zip(*seen.values(), strict=True))
    scale = counts.sum() / (atoms @ default).sum()
    ridge = np.diag(_ALIKE / (default * scale))
    rows = np.vstack([atoms / counts[:, None], ridge])
    right = np.concatenate([np.ones(len(counts)), np.full(len(default), _ALIKE)])
    solution = np.linalg.lstsq(rows, right, rcond=None)[0]
    return tuple(float(x) for x in np.maximum(solution, 0.2 * scale * default))
