"""Measured costs of labels and the predictions of the cost model. Pure functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median

from alloop.core.label_cost import molecule_key
from alloop.core.records import Label
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e
from alloop.report.analysis.label_quality import finite_number


@dataclass(frozen=True, slots=True)
class LabelBill:
    """Measured CPU seconds of the good labels of one molecule at one fidelity.

    each, most: mean and largest. peak_mb: largest memory, None where unknown. foretold:
    number of labels whose cost was predicted before they were requested; factor: the
    median ratio of prediction and measurement, the larger over the smaller, None
    without any.
    """

    fidelity: str
    molecule: str
    labels: int
    each: float
    most: float
    peak_mb: float | None
    foretold: int
    factor: float | None


def label_bills(history: History) -> tuple[LabelBill, ...]:
    """Return the bills by fidelity and molecule.

    Brought labels are left out, since they cost nothing; the seconds of labels from a
    cache were spent elsewhere.
    """
    kinds: dict[tuple[str, str], list[LabelEntry]] = {}
    for label in label_entries(history):
        known = isinstance(label.record, Label) and label.cpu_seconds > 0
        if known and not label.is_given:
            key = (label.fidelity, molecule_key(label.frame))
            kinds.setdefault(key, []).append(label)
    known_prices = _predicted_prices(history)
    return tuple(
        _label_bill(key, labels, known_prices) for key, labels in sorted(kinds.items())
    )


_Priced = Sequence[tuple[int, e.Priced]]


def _predicted_prices(history: History) -> _Priced:
    return [(entry.seq, event) for entry, event in history.of_kind(e.Priced)]


def _label_bill(
    key: tuple[str, str], labels: Sequence[LabelEntry], priced: _Priced
) -> LabelBill:
    seconds = [label.cpu_seconds for label in labels]
    peaks = [finite_number(label.record.details.get("peak_mb")) for label in labels]
    factors = list(_prediction_factors(labels, priced))
    return LabelBill(
        fidelity=key[0],
        molecule=key[1],
        labels=len(labels),
        each=mean(seconds),
        most=max(seconds),
        peak_mb=max((peak for peak in peaks if peak is not None), default=None),
        foretold=len(factors),
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
