"""Labels: their numbers and costs by kind, and their quality.

Quality is rescues, doubts, ranges of details, failures and noise. The noise of a label
is its change when it is made again at tighter settings, with the frame turned at
random.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from statistics import mean, median

import numpy as np

from alloop.core.doubts import Doubt, doubts_of_details
from alloop.core.frame import FrameId
from alloop.core.label_cost import molecule_key
from alloop.core.levels import Fidelity
from alloop.core.records import Detail, Failure, Label, Noise, Unlabelled
from alloop.core.seeds import EXAMINATION, Purpose, split_of
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
    config_integer,
    config_value,
    generation_facts,
    is_single,
    level_title,
)
from alloop.report.text.formatting import milli_text, plural, tiny_text

BUDGETED = ("cheap", "expensive")  # kinds of labels that the budget pays for

KINDS = (*BUDGETED, "validation", EXAMINATION)


@dataclass(frozen=True, slots=True)
class LabelOutcomes:
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


def level_name(history: History, totals: LabelOutcomes) -> str:
    """Return the name of the level that labels of this kind are made at."""
    return level_title(history, "cheap" if totals.kind == "cheap" else "expensive")


def label_totals(history: History) -> tuple[LabelOutcomes, ...]:
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
    return EXAMINATION if split == "test" else split


def latest_labels(labels: Iterable[LabelEntry]) -> tuple[LabelEntry, ...]:
    """Return the labels without the failures that were tried again since."""
    return tuple({(label.level, label.frame.id): label for label in labels}.values())


def _label_totals(
    history: History, kind: str, labels: Sequence[LabelEntry]
) -> LabelOutcomes:
    last = latest_labels(labels)
    good = [x for x in last if not isinstance(x.record, Unlabelled)]
    bad = [x.record for x in last if isinstance(x.record, Unlabelled)]
    return LabelOutcomes(
        kind=kind,
        good=len(good),
        cached=sum(x.cached for x in good),
        supplied=sum(x.is_given for x in good),
        doubtful=sum(bool(doubts_of_details(x.record.details)) for x in good),
        used=sum(not x.is_given for x in last) if kind in BUDGETED else 0,
        budget=(
            config_integer(history, "budget", kind)
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

    mean, largest: of the seconds. peak_mb: largest memory, None where unknown.
    predicted: number of labels whose cost was predicted before they were requested;
    factor: the median ratio of prediction and measurement, the larger over the
    smaller, None without any.
    """

    fidelity: Fidelity
    molecule: str
    labels: int
    mean: float
    largest: float
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
        priced = isinstance(label.record, Label) and label.cpu_seconds > 0
        if priced and not label.is_given:
            key = (label.fidelity, molecule_key(label.frame))
            kinds.setdefault(key, []).append(label)
    prices = [(entry.seq, event) for entry, event in history.of_kind(e.Priced)]
    return tuple(
        _label_cost(key, labels, prices) for key, labels in sorted(kinds.items())
    )


_Prices = Sequence[tuple[int, e.Priced]]  # with the numbers of their records


def _label_cost(
    key: tuple[Fidelity, str], labels: Sequence[LabelEntry], prices: _Prices
) -> LabelCost:
    seconds = [label.cpu_seconds for label in labels]
    peaks = [finite_number(label.record.details.get("peak_mb")) for label in labels]
    factors = list(_prediction_factors(labels, prices))
    return LabelCost(
        fidelity=key[0],
        molecule=key[1],
        labels=len(labels),
        mean=mean(seconds),
        largest=max(seconds),
        peak_mb=max((peak for peak in peaks if peak is not None), default=None),
        predicted=len(factors),
        factor=median(factors) if factors else None,
    )


def _prediction_factors(
    labels: Sequence[LabelEntry], prices: _Prices
) -> Iterator[float]:
    """Yield the ratio of predicted and measured cost, 1 or larger.

    Only labels that were requested after the prediction are used.
    """
    for label in labels:
        before = [event for seq, event in prices if seq <= label.asked]
        cost = before[-1].costs.get(label.level) if before else None
        if cost is not None and not label.cached:
            ratio = cost.seconds(label.frame) / label.cpu_seconds
            yield max(ratio, 1.0 / ratio)


def finite_number(value: Detail) -> float | None:
    """Return a detail as a float if it is a finite number, None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


FIRST = "default"  # the first rung: a label from it was not rescued

_VERDICTS = {
    "accept": "accepted like any other label",
    "flag": "kept, with a mark",
    "exclude": "excluded from training",
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

    fidelity: Fidelity
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


def _label_quality(fidelity: Fidelity, labels: Sequence[LabelEntry]) -> LabelQuality:
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
        numbers = [value for value in values if value is not None]
        if numbers:
            out[key] = (min(numbers), max(numbers), len(numbers))
    return out


def doubt_policy(history: History, fidelity: Fidelity, doubt: Doubt) -> str:
    """Return, in words, the treatment of labels with this doubt."""
    policy = config_value(history, "levels", fidelity, "doubts")
    verdict = policy.get(doubt.name.lower()) if isinstance(policy, dict) else policy
    return _VERDICTS.get(str(verdict), _VERDICTS["flag"])


def is_excluded(history: History, fidelity: Fidelity, doubt: Doubt) -> bool:
    """Return True if labels with this doubt are excluded from training."""
    return doubt_policy(history, fidelity, doubt) == _VERDICTS["exclude"]


def barred_doubts(history: History) -> frozenset[Doubt]:
    """Return the doubts that keep an expensive label out of all learning."""
    return frozenset(x for x in Doubt if is_excluded(history, "expensive", x))


def quarantined_labels(history: History) -> tuple[tuple[LabelEntry, Unlabelled], ...]:
    """Return the missing labels and their failures, in the order of the journal."""
    labels = ((label, label.record) for label in latest_labels(label_entries(history)))
    return tuple((x, why) for x, why in labels if isinstance(why, Unlabelled))


FEW = 10  # rechecked labels below which the noise is only an order of magnitude

_CLOSE = 3.0  # times the noise: smaller model errors are limited by it


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The noise of the labels of one fidelity.

    n: labels that were made again; lost: those that could not be. Energies in eV
    (absolute differences), forces in eV/Å: rms over all components, max the largest.
    error: the last generation's test force RMSE, energy_error its energy MAE; None
    where it was not tested.
    """

    fidelity: Fidelity
    title: str
    n: int
    lost: int
    energy_median: float
    energy_max: float
    force_rms: float
    force_max: float
    error: float | None
    energy_error: float | None

    @property
    def sentence(self) -> str:
        """The meaning of the noise for the model's error, in words."""
        if not self.n:
            return (
                f"None of {plural(self.lost, f'{self.fidelity} label')} could be made "
                "again: their noise is not known."
            )
        return f"{self._meaning}{self._caveat}"

    @property
    def _meaning(self) -> str:
        who = f"{self.fidelity} labels"
        if self.error is None:
            noise = f"{tiny_text(self.force_rms)} meV/Å in forces (RMS)"
            return f"The {who}' own noise is {noise}; the model was not tested."
        level, error = self.force_rms, self.error
        what, unit = "forces", "meV/Å"
        if isnan(level) or isnan(error):  # labels that are energies alone
            level, error = self.energy_median, self.energy_error or 0.0
            what, unit = "energies", "meV"
        if error < _CLOSE * level:
            return (
                f"The model's error in {what} is within {_CLOSE:g} times of the noise "
                f"of its {who} ({milli_text(error)} against {milli_text(level)} "
                f"{unit}): improve the labels before adding more."
            )
        part = _share_text(error, level)
        return f"The {who}' own noise is {part} of the model's error in {what}."

    @property
    def _caveat(self) -> str:
        count = plural(self.n, "label")
        rough = f" Only {count} rechecked: this is an order of magnitude." * (
            self.n < FEW
        )
        again = f" {plural(self.lost, 'label')} could not be made again."
        return rough + again * (self.lost > 0)


def _share_text(error: float, noise: float) -> str:
    if error >= 1000 * noise:
        return "less than a thousandth"
    times = float(f"{error / noise:.2g}")
    return f"1/{times:.0f}"


def noise_floors(history: History) -> tuple[NoiseFloor, ...]:
    """Return the noise of each fidelity with rechecked labels, cheap first."""
    last = generation_facts(history)[-1:]
    errors = last[0].force_rmse if last else None, last[0].energy_mae if last else None
    out = []
    for fidelity, level in sorted(history.state.levels.items()):
        noises = [x.noise for x in history.rechecked() if x.noise.level == level]
        if noises:
            out.append(
                _noise_floor(fidelity, level_title(history, fidelity), noises, errors)
            )
    return tuple(out)


def _noise_floor(
    fidelity: Fidelity,
    name: str,
    noises: Sequence[Noise],
    errors: tuple[float | None, float | None],
) -> NoiseFloor:
    good = [noise for noise in noises if noise.failure is None]
    energies = [noise.energy for noise in good] or [float("nan")]
    squares = [noise.force_rms**2 for noise in good] or [float("nan")]
    return NoiseFloor(
        fidelity=fidelity,
        title=name,
        n=len(good),
        lost=len(noises) - len(good),
        energy_median=median(energies),
        energy_max=max(energies),
        force_rms=float(np.sqrt(np.mean(squares))),
        force_max=max((noise.force_max for noise in good), default=float("nan")),
        error=errors[0],
        energy_error=errors[1],
    )


def noise_by_label(history: History) -> dict[tuple[str, FrameId], Noise]:
    """Return the result of making labels again, by level id and frame."""
    noises = (x.noise for x in history.rechecked())
    return {(noise.level, noise.frame): noise for noise in noises}
