"""What labels cost, and what the cost model had foretold. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median

from alloop.core.cost import molecule
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.told import told
from alloop.report.quality import real


@dataclass(frozen=True, slots=True)
class Bill:
    """Measured CPU seconds of the good labels of one molecule at one fidelity.

    each, most: mean and largest; peak_mb: their largest memory, None where it is not
    known; foretold: labels whose price was predicted before
    they were asked for, factor: by how much the prediction was off, in the middle
    (median of the larger over the smaller), None without any.
    """

    fidelity: str
    molecule: str
    labels: int
    each: float
    most: float
    peak_mb: float | None
    foretold: int
    factor: float | None


def bills(history: History) -> tuple[Bill, ...]:
    """By fidelity and molecule; labels that were brought are free of charge, and those
    from a cache were paid for elsewhere."""
    kinds: dict[tuple[str, str], list[Told]] = {}
    for label in told(history):
        known = isinstance(label.record, Label) and label.cpu_seconds > 0
        if known and not label.brought:
            key = (label.fidelity, molecule(label.frame))
            kinds.setdefault(key, []).append(label)
    known_prices = _priced(history)
    return tuple(
        _bill(key, labels, known_prices) for key, labels in sorted(kinds.items())
    )


_Priced = Sequence[tuple[int, e.Priced]]


def _priced(history: History) -> _Priced:
    return [(entry.seq, event) for entry, event in history.of_kind(e.Priced)]


def _bill(key: tuple[str, str], labels: Sequence[Told], priced: _Priced) -> Bill:
    seconds = [label.cpu_seconds for label in labels]
    peaks = [real(label.record.details.get("peak_mb")) for label in labels]
    factors = list(_factors(labels, priced))
    return Bill(
        fidelity=key[0],
        molecule=key[1],
        labels=len(labels),
        each=mean(seconds),
        most=max(seconds),
        peak_mb=max((peak for peak in peaks if peak is not None), default=None),
        foretold=len(factors),
        factor=median(factors) if factors else None,
    )


def _factors(labels: Sequence[Told], priced: _Priced) -> Iterator[float]:
    """Prediction against measurement, of labels asked for after the prediction."""
    for label in labels:
        before = [event for seq, event in priced if seq <= label.asked]
        cost = before[-1].costs.get(label.level) if before else None
        if cost is not None and not label.cached:
            ratio = cost.seconds(label.frame) / label.cpu_seconds
            yield max(ratio, 1.0 / ratio)
