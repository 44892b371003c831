"""The choice of the few candidates of a round that get labels. Pure.

Candidates are sorted by frame id before anything else, so that their order of arrival
has no effect.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np

from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity
from alloop.core.records import STATIONARY, Candidate, Explorer
from alloop.core.roles import Selector
from alloop.core.seeds import Purpose, random_stream
from alloop.core.units import Floats
from alloop.loop.commands import LabelFrame
from alloop.loop.level_split import round_counts
from alloop.loop.refinement import explorations_left
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import labels_left, mean_label_cost, reserved
from alloop.selection import (
    LargestCluster,
    MostSurprising,
    PerMolecule,
    RandomChoice,
)


def unexplained_bias(bias: Floats, descriptors: Floats, components: int = 3) -> Floats:
    """Return the part of each frame's bias that its geometry does not explain.

    bias and result: (frames,). Most of the bias is the difference between two levels,
    which is smooth: a linear function of the descriptors' (frames, features) leading
    principal components is fitted to it and subtracted. The absolute rest is due to the
    model, not to the levels.
    """
    count = max(0, min(components, len(bias) - 2, descriptors.shape[1]))
    centred = descriptors - descriptors.mean(axis=0)
    modes, spread, _ = np.linalg.svd(centred, full_matrices=False)
    design = np.column_stack([np.ones(len(bias)), (modes * spread)[:, :count]])
    fitted = design @ np.linalg.lstsq(design, bias)[0]
    left: Floats = np.abs(bias - fitted)
    return left


Chosen = list[tuple[Candidate, str]]
_RANDOM = PerMolecule(RandomChoice())
_STATIONARY_REASON = "paths: the highest structure of a path, or its end"


@dataclass(frozen=True, slots=True)
class RoundQuotas:
    """The quotas of a round.

    cheap: flagged frames for cheap labels; expensive: biased frames for expensive
    labels; controls: control frames, which get both.
    """

    cheap: int
    expensive: int
    controls: int

    @property
    def all(self) -> int:
        """The number of labels of all kinds."""
        return self.cheap + self.expensive + self.controls

    @classmethod
    def from_state(cls, state: LoopState, rules: Rules) -> "RoundQuotas":
        """Return the quotas that spread the rest of the budget over the rounds left.

        They are never more than the rest of the CPU hours pays for, at the costs
        recorded last. With `rules.split` the budget is one of money, see `level_split`.
        """
        opened = [x for x in state.labels.recent if state.stage == "flag"]
        spent = sum(entry.fidelity == "cheap" for entry in opened)
        costly = sum(entry.fidelity == "expensive" for entry in opened)
        expensive = labels_left(state, rules, "expensive") + costly
        rounds = max(1, ceil(expensive / rules.every))
        now = min(rules.every, expensive)
        turns = rounds if rules.refine is None else explorations_left(state, rounds)
        many = (labels_left(state, rules, "cheap") + spent) // turns
        paid = sum(entry.cpu_seconds for entry in opened)
        counts = round_counts(
            state,
            rules,
            state.labels.used("cheap") - spent,
            state.labels.used("expensive") - costly,
        )
        if counts is not None:
            now, many = counts.expensive, counts.cheap
        part = _affordable_share(state, rules, paid, many, now)
        now, many = floor(part * now), floor(part * many)
        controls = min(now, ceil(rules.control * now))
        return cls(max(0, many - controls), now - controls, controls)


def _affordable_share(
    state: LoopState, rules: Rules, paid: float, cheap: int, expensive: int
) -> float:
    """Return the share of a round's labels that the CPU hours pay for.

    paid: CPU seconds of the open step, which belong to the round itself.
    """
    hours = rules.budget.cpu_hours
    cost = cheap * mean_label_cost(state, "cheap") + expensive * mean_label_cost(
        state, "expensive"
    )
    if hours is None or cost == 0.0:
        return 1.0
    spare = 3600 * hours - state.labels.cpu_seconds() - reserved(state, rules) + paid
    return min(1.0, max(0.0, spare) / cost)


def control_frames(state: LoopState, quota: int) -> list[Candidate]:
    """Return random frames, whatever their surprise, on which errors are measured."""
    pool = _candidate_pool(state, controls=True, taken=_labelled_frames(state))
    rng = random_stream(state.seed, f"control/{state.exploration.round}")
    chosen = RandomChoice().select(pool, state.exploration.landmarks, quota, rng)
    return [pool[index] for index in chosen]


def flagged_frames(
    state: LoopState, rules: Rules, quota: int, taken: Collection[str]
) -> Chosen:
    """Return the candidates that the rules' selector picks, each with the reason.

    In a control campaign they are random.
    """
    random = rules.selection == "random"
    taken = {*taken, *_labelled_frames(state)}
    pool = _candidate_pool(state, controls=random, taken=taken)
    rng = random_stream(state.seed, f"flag/{state.exploration.round}")
    selector = _RANDOM if random else rules.selector
    threshold = state.exploration.threshold
    chosen: Chosen = []
    for explorer, part, count in _explorer_parts(pool, rules, quota):
        if explorer == "md" and not random:
            drawn = _drawn_frames(state, rules, count, taken)
            chosen += [(x, "random") for x in drawn]
            part, count = _without(part, drawn), count - len(drawn)
        points = [] if random else _stationary_points(part, count)
        chosen += [(x, _STATIONARY_REASON) for x in points]
        part, count = _without(part, points), count - len(points)
        picked = _selected(selector, part, state, count, rng=rng, threshold=threshold)
        chosen += [(x, _selection_reason(x, threshold, selector)) for x in picked]
    return chosen


def _stationary_points(pool: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return tops and ends of paths, which come before what surprises more.

    A path is done when the label of its top agrees.
    """
    return [candidate for candidate in pool if candidate.origin == STATIONARY][:count]


def _drawn_frames(
    state: LoopState, rules: Rules, count: int, taken: Collection[str]
) -> list[Candidate]:
    """Return the frames of MD that are drawn at random, of `count` that it may have."""
    number = round(rules.random * count)
    pool = _candidate_pool(state, controls=True, taken=taken)
    rng = random_stream(state.seed, f"flag/{state.exploration.round}/random")
    return _selected(_RANDOM, pool, state, min(number, len(pool)), rng=rng)


def _selected(
    selector: Selector,
    pool: Sequence[Candidate],
    state: LoopState,
    quota: int,
    *,
    rng: np.random.Generator,
    threshold: float | None = None,
) -> list[Candidate]:
    landmarks = state.exploration.landmarks
    return [pool[i] for i in selector.select(pool, landmarks, quota, rng, threshold)]


def _without(pool: list[Candidate], others: list[Candidate]) -> list[Candidate]:
    ids = {candidate.frame.id for candidate in others}
    return [candidate for candidate in pool if candidate.frame.id not in ids]


def _explorer_parts(
    pool: Sequence[Candidate], rules: Rules, quota: int
) -> list[tuple[Explorer, list[Candidate], int]]:
    """Return each explorer's candidates with its part of a quota.

    What an explorer has no candidates for goes to the next one, at last to MD.
    """
    parts, left = [], quota
    for explorer, share in rules.shares.items():
        part = [x for x in pool if x.explorer == explorer]
        count = left if explorer == "md" else min(round(share * quota), len(part))
        parts.append((explorer, part, count))
        left -= count
    return parts


def biased_frames(state: LoopState, rules: Rules, quota: int) -> Chosen:
    """Return the flagged frames most worth an expensive label, by `rules.triage`.

    Worth is not divided by cost: within a molecule all labels cost the same, and
    between molecules this would take labels from the large ones, which need them.
    """
    doubted = rules.barred_doubts("cheap")
    bias = {
        entry.frame: entry.bias
        for entry in state.labels.recent
        if entry.purpose == "flagged"
        and entry.good
        and entry.bias is not None
        and not entry.doubts & doubted
    }
    random = rules.selection == "random"
    pool = _biased_pool(state, rules, bias)
    biases = np.array([float(bias[candidate.frame.id] or 0.0) for candidate in pool])
    worth = _label_worth(pool, biases, rules.triage)
    rated = [replace(c, surprise=float(w)) for c, w in zip(pool, worth, strict=True)]
    rng = random_stream(state.seed, f"bias/{state.exploration.round}")
    selector = _RANDOM if random else rules.expensive_selector
    chosen: Chosen = []
    for explorer, part, count in _explorer_parts(rated, rules, quota):
        if explorer == "md" and not random:
            lot = [x for x in part if x.origin == "control"]
            number = min(round(rules.random * count), len(lot))
            drawn = _selected(_RANDOM, lot, state, number, rng=rng)
            chosen += [(x, "random") for x in drawn]
            part, count = _without(part, drawn), count - number
        points = [] if random else _stationary_points(part, count)
        chosen += [(x, _STATIONARY_REASON) for x in points]
        part, count = _without(part, points), count - len(points)
        picked = _selected(selector, part, state, count, rng=rng)
        chosen += [(x, "random" if random else _bias_reason(x, bias)) for x in picked]
    return chosen


def _biased_pool(
    state: LoopState, rules: Rules, bias: Mapping[FrameId, float | None]
) -> list[Candidate]:
    """Return the candidates whose cheap label has a bias."""
    barred = {frame for frame, _ in state.labels.excluded}
    random = rules.selection == "random"
    pools = [random, True] if rules.random else [random]
    frames = {
        candidate.frame.id: candidate
        for controls in pools
        for candidate in _candidate_pool(state, controls=controls, taken=barred)
        if candidate.frame.id in bias
    }
    return [frames[key] for key in sorted(frames)]


def _bias_reason(candidate: Candidate, bias: Mapping[FrameId, float | None]) -> str:
    value = bias[candidate.frame.id]
    return f"{_source(candidate)}bias {value:.3f} eV/Å against the cheap label"


def _label_worth(pool: list[Candidate], bias: Floats, triage: str) -> Floats:
    """Return the worth of an expensive label for each candidate.

    It is the bias, the surprise, or for both the product of the ranks of surprise and
    of the bias that geometry does not explain.
    """
    surprise = np.array([candidate.surprise for candidate in pool])
    if triage == "bias" or not pool:
        return bias
    if triage == "surprise":
        return surprise
    return _ranks(surprise) * _ranks(_unexplained_bias(pool, bias))


def _ranks(values: Floats) -> Floats:
    """Return ranks from 1 on, ties at their mean; nan ranks highest."""
    from scipy.stats import rankdata  # a second to import

    out: Floats = rankdata(np.where(np.isnan(values), np.inf, values))
    return out


def _unexplained_bias(pool: list[Candidate], bias: Floats) -> Floats:
    """Return the unexplained bias of each candidate, fitted molecule by molecule."""
    out = np.zeros(len(pool))
    molecules = np.array([candidate.molecule for candidate in pool])
    for molecule in np.unique(molecules):
        rows = np.flatnonzero(molecules == molecule)
        out[rows] = unexplained_bias(
            bias[rows], np.array([pool[i].descriptor for i in rows])
        )
    return out


def _candidate_pool(
    state: LoopState, *, controls: bool, taken: Collection[str]
) -> list[Candidate]:
    frames: dict[str, Candidate] = {}
    for _, piece in sorted(state.exploration.pieces.items(), key=lambda item: item[0]):
        for candidate in piece.controls if controls else piece.candidates:
            if candidate.frame.id not in taken:
                frames[candidate.frame.id] = candidate
    return [frames[key] for key in sorted(frames)]


def _labelled_frames(state: LoopState) -> set[str]:
    return {entry.frame for entry in state.labels.entries()}


def _selection_reason(
    candidate: Candidate, threshold: float | None, selector: Selector
) -> str:
    inner = selector.selector if isinstance(selector, PerMolecule) else selector
    if isinstance(inner, RandomChoice):
        return "random"
    if not isinstance(inner, MostSurprising | LargestCluster):
        return f"surprise {candidate.surprise:.2f}, chosen by {type(inner).__name__}"
    if candidate.guard is not None:
        return f"guard rail: {candidate.guard}"
    source = _source(candidate)
    if threshold is not None and candidate.surprise > threshold:
        return f"{source}surprise {candidate.surprise:.2f} above {threshold:.2f}"
    return f"{source}surprise {candidate.surprise:.2f}, among the largest of the round"


def _source(candidate: Candidate) -> str:
    return "" if candidate.explorer == "md" else f"{candidate.explorer}: "


def label_command(
    state: LoopState,
    frame: Frame,
    molecule: int,
    fidelity: Fidelity,
    *,
    purpose: Purpose,
    why: str,
) -> LabelFrame:
    """Return the command to label a frame; why: one phrase for people."""
    level = state.levels[fidelity]
    return LabelFrame(frame, level, fidelity, purpose, molecule, reason=why)
