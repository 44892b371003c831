"""The gain from the labels of each level, measured by short trainings. Pure.

Beside a training run five short ones from new weights, equally long: on all labels, on
a quarter of the cheap ones, on a quarter of the expensive ones, on the expensive ones
alone, and on a quarter of these alone. None learns from the judged frames, on which
errors are compared: the validation set, and a fifth of the expensive labels.

With n labels of a level the error falls as n^-a, a = log4(error on a quarter / error on
all). At a given price it is least where the levels' shares of the money are in the
ratio of their exponents, both for a product and for a sum of powers of the two counts.
Whether two levels pay at all is another question: expensive labels alone, for the money
of both, would err by (1 + cheap money / expensive money)^-a times what they err by now,
with a their exponent alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot, log, log1p, sqrt

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.levels import Fidelity
from alloop.core.seeds import name_share
from alloop.loop.commands import TrainPart
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState, PartErrors
from alloop.loop.stopping import mean_label_cost

# Shares of the cheap and of the expensive labels that each part has.
PARTS: Mapping[str, tuple[float, float]] = {
    "all": (1.0, 1.0),
    "few-cheap": (0.25, 1.0),
    "few-expensive": (1.0, 0.25),
    "alone": (0.0, 1.0),
    "few-alone": (0.0, 0.25),
}
_JUDGED = 0.2  # share of the expensive labels that no part learns from
_LEAST = 4  # judged frames, and labels of each level; fewer measure nothing
_RECENT = 3  # measured generations that count


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured number and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class LevelGains:
    """The gains from the labels of both levels, means over the last generations.

    generation: the newest that was measured; measured: their number. cheap, expensive,
    alone: exponents a of the error n^-a with the labels of a level, the last one with
    expensive labels alone. both: the error of all labels in eV/Å; advantage: the
    logarithm of the error of expensive labels alone, for the same money, over it.
    """

    generation: int
    measured: int
    cheap: Measured
    expensive: Measured
    alone: Measured
    both: float
    advantage: Measured


def part_commands(state: LoopState, rules: Rules) -> tuple[TrainPart, ...]:
    """Return the short trainings beside the next training, none where none is due."""
    generation = state.generations.labelled + 1
    plan = rules.split
    if plan is None or rules.is_single_fidelity or generation % plan.every:
        return ()
    costly, doubted = rules.barred_doubts("expensive"), rules.barred_doubts("cheap")
    labels = _in_order(
        state.seed, "expensive", state.labels.trained_on("expensive", costly)
    )
    tests = state.labels.validation_frames(costly)
    aside = max(_LEAST - len(tests), ceil(_JUDGED * len(labels)))
    judged = {*labels[:aside], *tests}
    expensive = labels[aside:]
    cheap = set(state.labels.trained_on("cheap", doubted)) - judged
    cheap -= set(state.labels.held_out(state.seed, rules.heldout, doubted))
    if min(len(judged), len(cheap), len(expensive)) < _LEAST:
        return ()
    ordered = _in_order(state.seed, "cheap", cheap)
    return tuple(
        TrainPart(
            generation=generation,
            part=part,
            cheap=_first(ordered, shares[0]),
            expensive=_first(expensive, shares[1]),
            judged=tuple(sorted(judged)),
            share=plan.share,
        )
        for part, shares in PARTS.items()
    )


def _in_order(
    seed: int, fidelity: Fidelity, frames: Iterable[FrameId]
) -> list[FrameId]:
    """Return frames by a hash of their ids: a random order that later ones join."""
    return sorted(frames, key=lambda x: (name_share(seed, f"part/{fidelity}/{x}"), x))


def _first(frames: Sequence[FrameId], share: float) -> tuple[FrameId, ...]:
    return tuple(sorted(frames[: ceil(share * len(frames))]))


def level_gains(state: LoopState) -> LevelGains | None:
    """Return what the labels gained; None before it was measured or priced."""
    price = {f: mean_label_cost(state, f) for f in ("cheap", "expensive")}
    complete = [
        n
        for n, parts in sorted(state.generations.part_errors.items())
        if set(parts) == set(PARTS)
    ]
    if not complete or min(price.values()) <= 0.0:
        return None
    ratio = price["cheap"] / price["expensive"]
    recent = [state.generations.part_errors[number] for number in complete[-_RECENT:]]
    return LevelGains(
        generation=complete[-1],
        measured=len(recent),
        cheap=_mean([_exponent(x["few-cheap"], x["all"], "cheap") for x in recent]),
        expensive=_mean(
            [_exponent(x["few-expensive"], x["all"], "expensive") for x in recent]
        ),
        alone=_mean([_alone(x) for x in recent]),
        both=float(recent[-1]["all"].errors.mean()),
        advantage=_mean([_advantage(x, ratio) for x in recent]),
    )


def _alone(parts: Mapping[str, PartErrors]) -> Measured:
    return _exponent(parts["few-alone"], parts["alone"], "expensive")


def _exponent(fewer: PartErrors, more: PartErrors, fidelity: Fidelity) -> Measured:
    """Return a of the error n^-a with the labels of a fidelity, from two counts."""
    span = log(getattr(more, fidelity) / getattr(fewer, fidelity))
    ratio = _log_ratio(fewer, more)
    return Measured(ratio.value / span, ratio.error / span)


def _advantage(parts: Mapping[str, PartErrors], ratio: float) -> Measured:
    """Return log(error of expensive labels alone at the same price / error of both).

    ratio: the price of a cheap label in expensive ones.
    """
    both, alone = parts["all"], _alone(parts)
    more = log1p(both.cheap * ratio / both.expensive)
    paired = _log_ratio(parts["alone"], both)
    falls = max(0.0, alone.value)  # more labels do no harm
    return Measured(
        paired.value - falls * more, hypot(paired.error, alone.error * more)
    )


def _log_ratio(numerator: PartErrors, denominator: PartErrors) -> Measured:
    """Return the logarithm of the ratio of the mean errors, paired by frame.

    Its standard error is that of resampled frames, to first order.
    """
    first, second = numerator.errors, denominator.errors
    differences = first / first.mean() - second / second.mean()
    value = log(first.mean() / second.mean())
    return Measured(value, float(differences.std(ddof=1)) / sqrt(len(differences)))


def _mean(measurements: Sequence[Measured]) -> Measured:
    """Return the mean of several measurements.

    The larger of two standard errors counts: that of the frames, and that of the
    scatter, which holds the noise of trainings.
    """
    values, count = np.array([x.value for x in measurements]), len(measurements)
    frames = sqrt(sum(x.error**2 for x in measurements)) / count
    scatter = 0.0 if count < 2 else float(values.std(ddof=1)) / sqrt(count)
    return Measured(float(values.mean()), max(frames, scatter))
