"""Quality of labels by their own details: rescues, doubts, ranges, failures. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from alloop.core.doubts import Doubt, doubts_of_details
from alloop.core.records import Detail, Label, Unlabelled
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.report.analysis.summary_facts import config_value, latest_labels

FIRST = "default"  # the first rung: a label from it was not rescued
_VERDICTS = {
    "accept": "accepted like any other label",
    "flag": "kept, with a mark",
    "exclude": "kept out of all learning",
}
RANGES = ("gap", "t1", "s2", "internal", "external")


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The good labels of one fidelity.

    rescued: number of labels by the rung that gave them, the first rung left out.
    followed: number of labels that were led downhill from a saddle point. lost_seconds:
    CPU time of the rungs that failed before, failed labels included. doubts: ids of the
    frames with each doubt. ranges: least and largest value of each detail (gap in eV,
    t1, s2, stability eigenvalues in hartree), and the number of labels that have it.
    """

    fidelity: str
    good: int
    rescued: Mapping[str, int]
    followed: int
    lost_seconds: float
    doubts: Mapping[Doubt, Sequence[str]]
    ranges: Mapping[str, tuple[float, float, int]]


def label_qualities(history: History) -> tuple[LabelQuality, ...]:
    """Return the quality of each fidelity that has labels, cheap before expensive."""
    labels = label_entries(history)
    fidelities = sorted({label.fidelity for label in labels})
    return tuple(
        _label_quality(fidelity, [x for x in labels if x.fidelity == fidelity])
        for fidelity in fidelities
    )


def _label_quality(fidelity: str, labels: Sequence[LabelEntry]) -> LabelQuality:
    good = [label for label in labels if isinstance(label.record, Label)]
    lost = [finite_number(label.record.details.get("lost_seconds")) for label in labels]
    rungs = Counter(filter(None, (rescuing_rung(x.record.details) for x in good)))
    return LabelQuality(
        fidelity=fidelity,
        good=len(good),
        rescued=dict(rungs.most_common()),
        followed=sum(bool(label.record.details.get("followed")) for label in good),
        lost_seconds=sum(seconds for seconds in lost if seconds is not None),
        doubts=_doubtful_labels(good),
        ranges=_detail_ranges(good),
    )


def rescuing_rung(details: Mapping[str, Detail]) -> str | None:
    """Return the rung that gave the label, None if it is the first or unknown."""
    rung = details.get("rung")
    return None if rung in (None, FIRST) else str(rung)


def _doubtful_labels(good: Sequence[LabelEntry]) -> dict[Doubt, list[str]]:
    out: dict[Doubt, list[str]] = {}
    for label in good:
        for doubt in doubts_of_details(label.record.details):
            out.setdefault(doubt, []).append(label.frame.id)
    return dict(sorted(out.items()))


def _detail_ranges(good: Sequence[LabelEntry]) -> dict[str, tuple[float, float, int]]:
    out = {}
    for key in RANGES:
        values = [finite_number(label.record.details.get(key)) for label in good]
        known = [value for value in values if value is not None]
        if known:
            out[key] = (min(known), max(known), len(known))
    return out


def finite_number(value: Detail) -> float | None:
    """Return a detail as a float if it is a finite number, None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


def doubt_policy(history: History, fidelity: str, doubt: Doubt) -> str:
    """Return, in words, the treatment of labels with this doubt."""
    said = config_value(history, "levels", fidelity, "doubts")
    verdict = said.get(doubt.name.lower()) if isinstance(said, dict) else said
    return _VERDICTS.get(str(verdict), _VERDICTS["flag"])


def is_barred(history: History, fidelity: str, doubt: Doubt) -> bool:
    """Return True if labels with this doubt are kept out of all learning."""
    return doubt_policy(history, fidelity, doubt) == _VERDICTS["exclude"]


def quarantined_labels(history: History) -> tuple[tuple[LabelEntry, Unlabelled], ...]:
    """Return the missing labels and their failures, in the order of the journal."""
    labels = ((label, label.record) for label in latest_labels(label_entries(history)))
    return tuple((x, why) for x, why in labels if isinstance(why, Unlabelled))
