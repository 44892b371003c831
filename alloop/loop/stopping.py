"""The conditions under which a campaign ends. Pure."""

from math import floor, isfinite

from alloop.core.levels import Fidelity
from alloop.core.text import plural
from alloop.loop.rules import ExploreRules, Rules, StopRules
from alloop.loop.state import LoopState

_ROUNDING = 1e-9


def labels_left(state: LoopState, rules: Rules, fidelity: Fidelity) -> int:
    """Return the number of labels that the budget still allows at the fidelity."""
    money = budget_money(state, rules)
    if money is not None:
        spare = max(0.0, money - _spent_money(state))
        return floor(spare / mean_label_cost(state, fidelity) + _ROUNDING)
    budget = rules.budget.cheap if fidelity == "cheap" else rules.budget.expensive
    return max(0, budget - state.labels.used(fidelity))


def budget_money(state: LoopState, rules: Rules) -> float | None:
    """Return the CPU seconds that the budget's counts amount to at recorded costs.

    None where the counts themselves are the budget, or a cost is unknown yet.
    """
    cheap, expensive = (mean_label_cost(state, f) for f in ("cheap", "expensive"))
    if rules.split is None or rules.is_single_fidelity or min(cheap, expensive) <= 0.0:
        return None
    return rules.budget.cheap * cheap + rules.budget.expensive * expensive


def _spent_money(state: LoopState) -> float:
    return sum(
        state.labels.used(fidelity) * mean_label_cost(state, fidelity)
        for fidelity in ("cheap", "expensive")
    )


def mean_label_cost(state: LoopState, fidelity: Fidelity) -> float:
    """Return the mean CPU seconds of a label over the start molecules.

    0 while no cost of the fidelity's level is known.
    """
    cost = state.labels.costs.get(state.levels.get(fidelity, ""))
    if cost is None or not state.start:
        return 0.0
    return sum(cost.seconds(frame) for frame in state.start) / len(state.start)


def reserved(state: LoopState, rules: Rules) -> float:
    """Return the CPU seconds of labels that are reserved for the examination."""
    labels = rules.examining.frames + rules.examining.beyond
    return labels * mean_label_cost(state, "expensive")


def lost_walkers(exploring: ExploreRules) -> str:
    """Return why walkers that get nowhere end a campaign, and what to do about it."""
    return (
        "guard rails stopped every walker within its first MD steps: lower `explore: "
        f"timestep` ({exploring.timestep:g} fs) or `temperature` "
        f"({max(exploring.temperatures):g} K), or give more first labels; "
        "`alloop log` tells which guard rail it was"
    )


def exploring_generation(state: LoopState, rules: Rules) -> int:
    """Return the generation that explores next.

    It is the newest one that decisions wait for, or always the first, as the protocol
    says; the first since the last round, where the protocol was changed.
    """
    if rules.exploring.protocol != "periodic":
        return min(state.generations.summaries, default=1)
    return _awaited_generation(state, rules)


def _awaited_generation(state: LoopState, rules: Rules) -> int:
    """Return the newest generation that decisions wait for.

    It is `staleness` behind the newest one whose labels are fixed, whatever is trained
    by now, and never before the last one that explored, even after a change of the
    rules.
    """
    return max(
        1, state.exploration.generation, state.generations.labelled - rules.staleness
    )


def reason_to_stop(state: LoopState, rules: Rules) -> str | None:
    """Return the reason why no further round is worth it, or None."""
    return spent_reason(state, rules) or _error_is_good_enough(state, rules)


def spent_reason(state: LoopState, rules: Rules) -> str | None:
    """Return the reason why no further round may follow, errors aside, or None."""
    budget, rounds = rules.budget, rules.stopping.rounds
    if labels_left(state, rules, "expensive") == 0:
        if budget_money(state, rules) is not None:
            return "the budget is spent: what is left pays for no expensive label"
        return "the budget of expensive labels is spent"
    hours = (state.labels.cpu_seconds() + reserved(state, rules)) / 3600
    if budget.cpu_hours is not None and hours >= budget.cpu_hours:
        return f"the budget of {budget.cpu_hours:g} CPU h for labels is spent"
    if rounds is not None and state.exploration.round >= rounds:
        return f"the limit of {plural(rounds, 'round')} is reached"
    return None


def target_reason(state: LoopState, rules: Rules) -> str | None:
    """Return a sentence if the newest tested generation meets the target, or None."""
    errors, target = _tested_errors(state, rules), rules.stopping.target
    if not errors or target is None or errors[-1] > target:
        return None
    return (
        f"the target is met: {errors[-1] * 1e3:.1f} meV/Å on the validation set, "
        f"{target * 1e3:.1f} asked for"
    )


def _tested_errors(state: LoopState, rules: Rules) -> list[float]:
    """Return the errors of the usable generations that decisions wait for, eV/Å."""
    early = max(0, state.generations.count - _awaited_generation(state, rules))
    tested = state.generations.errors[: len(state.generations.errors) - early]
    return [
        error
        for number, error in enumerate(tested, 1)
        if isfinite(error)
        and number not in state.generations.rejected | state.generations.unaccepted
    ]


def _error_is_good_enough(state: LoopState, rules: Rules) -> str | None:
    stopping, errors = rules.stopping, _tested_errors(state, rules)
    met = target_reason(state, rules)
    if met is not None or not errors:
        return met
    if stopping.patience is not None and _is_flat(errors, stopping):
        return (
            f"the error has not improved for {plural(stopping.patience, 'generation')}"
        )
    return None


def _is_flat(errors: list[float], stopping: StopRules) -> bool:
    patience = max(1, stopping.patience or 0)
    if len(errors) <= patience:
        return False
    best = min(errors[:-patience])
    return min(errors[-patience:]) > best * (1 - stopping.improvement)
