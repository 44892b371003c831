"""The split of a budget of money between the two levels. Pure.

The counts of the budget say how much money there is, at the recorded costs of labels,
and how it is split until something was measured.
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import TypeGuard

from alloop.loop.level_gains import LevelGains, Measured, level_gains
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import budget_money, mean_label_cost

FLOOR = 0.1  # least share of a round's money for a level that is bought
_TWICE = 2  # measured generations without which nothing is given up
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """Labels of a round at each level, control frames included."""

    cheap: int
    expensive: int


def is_settled(gains: LevelGains | None) -> TypeGuard[LevelGains]:
    """Return True once enough was measured to give a level up."""
    return gains is not None and gains.measured >= _TWICE


def cheap_is_idle(gains: LevelGains | None) -> bool:
    """Return True if cheap labels gain too little to deserve the least share of money.

    Even if they gain a standard error more than was measured.
    """
    return is_settled(gains) and _is_idle(gains.cheap, gains.expensive)


def expensive_is_idle(gains: LevelGains | None) -> bool:
    """Return True if expensive labels gain too little to deserve the least share."""
    return is_settled(gains) and _is_idle(gains.expensive, gains.cheap)


def _is_idle(level: Measured, other: Measured) -> bool:
    exponent = max(0.0, level.value + level.error)
    return exponent < FLOOR * (exponent + max(0.0, other.value))


def alone_is_better(gains: LevelGains | None) -> bool:
    """Return True if expensive labels alone, for the same money, would err less.

    By more than the standard error.
    """
    return is_settled(gains) and gains.advantage.value < -gains.advantage.error


def no_more_cheap(state: LoopState, rules: Rules) -> bool:
    """Return True if cheap labels are not worth their price, so that none is bought."""
    if rules.split is None:
        return False
    gains = level_gains(state)
    return cheap_is_idle(gains) or alone_is_better(gains)


def cheap_share(gains: LevelGains) -> float | None:
    """Return the share of all money at which cheap labels pay as much as expensive.

    None where neither gains anything.
    """
    cheap, expensive = (max(0.0, x.value) for x in (gains.cheap, gains.expensive))
    return cheap / (cheap + expensive) if cheap + expensive > 0.0 else None


def round_counts(
    state: LoopState, rules: Rules, cheap_used: int, expensive_used: int
) -> RoundCounts | None:
    """Return the labels of a round, None while they are those of the budget.

    cheap_used, expensive_used: labels spent before the round. A round has an equal part
    of the money that is left, and brings the shares of all money spent as close as it
    can to those that were measured.
    """
    total = budget_money(state, rules)
    if total is None:
        return None
    prices = mean_label_cost(state, "cheap"), mean_label_cost(state, "expensive")
    spent = cheap_used * prices[0] + expensive_used * prices[1]
    left = max(0.0, total - spent)
    money = left / _rounds_left(rules, left, total, prices)
    if no_more_cheap(state, rules):
        return RoundCounts(0, _count(money, prices[1], left))
    gains = level_gains(state)
    share = None if gains is None else cheap_share(gains)
    if share is None:
        share = rules.budget.cheap * prices[0] / total
        minimum = 0.0
    else:
        minimum = FLOOR * money
    target = share * (spent + money) - cheap_used * prices[0]
    cheap = min(max(target, minimum), money - minimum)
    expensive = _count(money - cheap, prices[1], left)
    rest = max(0.0, money - expensive * prices[1])
    return RoundCounts(floor(rest / prices[0] + _ROUNDING), expensive)


def _rounds_left(
    rules: Rules, left: float, total: float, prices: tuple[float, float]
) -> int:
    """Return the number of rounds, as large as those that the counts would give."""
    first = rules.seeding.cheap * prices[0] + rules.seeding.expensive * prices[1]
    labels = rules.budget.expensive - rules.seeding.expensive
    if labels <= 0 or first >= total:
        return 1
    return max(1, ceil(left / (total - first) * ceil(labels / rules.every) - _ROUNDING))


def _count(money: float, price: float, left: float) -> int:
    """Return how many labels the money buys, one at least if enough is left."""
    return max(floor(money / price + _ROUNDING), min(1, floor(left / price)))
