"""Does a measured split between the levels find the best one, if the law is known?

    python -m benchmarks.accuracy.selection.level_split

No training: errors come from a law of the two counts, with noise of `--noise` on each
training and of frames that are judged. `ethanol` is fitted to rows of ASTEROID's
benchmark (results/asteroid: 500, 1000 and 2000 cheap labels beside 200 expensive ones;
50, 100, 200 and 400 expensive ones beside 1000; 50, 100, 250 and 400 alone). Budget:
300 cheap and 60 expensive labels, in four generations. For each law and price of an
expensive label in cheap ones, the table shows the share of the money that the fixed
split gives to cheap labels, that at which the error is least, and errors over that of
the fixed split: the least one, expensive labels alone, and the geometric mean of
campaigns that measure. measured: alloop's rule. half, 80 %: the same, with these shares
of a level's labels left in place of a quarter. slopes: money in proportion to error
drop per CPU second. idle: cheap labels are given up as soon as they gain less than the
standard error. In brackets: the share of the campaigns that bought no more cheap labels
in the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.cost_curve import Curve
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.levels import Fidelity
from alloop.loop.level_gains import PARTS, LevelGains, level_gains
from alloop.loop.level_split import RoundCounts, no_more_cheap, round_counts
from alloop.loop.rules import Budget, Rules, SeedRules, SplitRules
from alloop.loop.state import CampaignLabels, Generations, LoopState, PartErrors
from benchmarks.common import Row, make_parser, make_table, show

_CHEAP, _EXPENSIVE, _ROUNDS = 300, 60, 3
_FIRST = (75, 15)
_JUDGED = 0.2  # share of the expensive labels, beside 15 other frames
_FRAMES = 0.15  # scatter of a frame's error between two trainings
_MOLECULE = Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.7]]))


@dataclass(frozen=True, slots=True)
class Law:
    """The error with n cheap and m expensive labels, and with m expensive alone."""

    both: Callable[[float, float], float]
    alone: Callable[[float], float]

    def error(self, cheap: float, expensive: float) -> float:
        """Return the error after these labels."""
        return self.both(cheap, expensive) if cheap else self.alone(expensive)


LAWS: Mapping[str, Law] = {
    "ethanol": Law(
        lambda n, m: 0.101 * (n / 1000) ** -0.24 * (m / 200) ** -0.31,
        lambda m: 0.193 * (m / 250) ** -0.94,
    ),
    "sum": Law(lambda n, m: 0.5 * n**-0.5 + 0.5 * m**-0.4, lambda m: 3 * m**-0.55),
    "useless": Law(lambda _n, m: m**-0.55, lambda m: m**-0.55),
}


@dataclass(slots=True)
class Simulated:
    """A campaign whose errors follow a law; run it once.

    rule: "fixed", "measured" or another one of this benchmark. noise: of a training, in
    logarithms.
    """

    law: Law
    price: float
    rule: str
    noise: float
    rng: np.random.Generator

    def run(self) -> tuple[float, bool]:
        """Return the error in the end, and whether cheap labels were given up."""
        used, parts, stopped = list(_FIRST), {}, False
        for generation in range(1, _ROUNDS + 1):
            if self.rule != "fixed":
                parts[generation] = self._parts(*used)
            counts = self._counts(parts, used)
            stopped = counts.cheap == 0
            used = [used[0] + counts.cheap, used[1] + counts.expensive]
        return self.law.error(*used), stopped

    def _parts(self, cheap: int, expensive: int) -> dict[str, PartErrors]:
        """Return errors after short trainings, on the share of labels of the rule."""
        left = {"half": 0.5, "80 %": 0.8}.get(self.rule, 0.25)
        learned = (1 - _JUDGED) * expensive
        size = round(_JUDGED * expensive) + 15
        surprise = self.rng.gamma(2.0, 0.5, size)
        parts = {}
        for name, (many, few) in PARTS.items():
            n = cheap * (left if 0 < many < 1 else many)
            m = learned * (left if few < 1 else few)
            scatter = self.rng.lognormal(0.0, _FRAMES, size)
            level = self.law.error(n, m) * self.rng.lognormal(0.0, self.noise)
            parts[name] = PartErrors(round(n), round(m), surprise * scatter * level)
        return parts

    def _counts(
        self, parts: Mapping[int, Mapping[str, PartErrors]], used: list[int]
    ) -> RoundCounts:
        state, rules = _state(self.price, parts), _rules()
        gains = level_gains(state)
        if gains is not None and self.rule == "idle":
            idle = gains.measured > 1 and gains.cheap.value < gains.cheap.error
            if idle or no_more_cheap(state, rules):
                return self._bought(0.0, used)
        if gains is not None and self.rule == "slopes":
            return self._bought(_slope_share(gains, self.price, used), used)
        counts = round_counts(state, rules, *used)
        assert counts is not None
        return counts

    def _bought(self, share: float, used: list[int]) -> RoundCounts:
        """Return the labels of a round in which cheap ones get a share of the money."""
        total = _CHEAP + self.price * _EXPENSIVE
        money = (total - _FIRST[0] - self.price * _FIRST[1]) / _ROUNDS
        money = min(money, total - used[0] - self.price * used[1])
        expensive = int((1 - share) * money / self.price)
        rest = money - expensive * self.price if share else 0.0
        return RoundCounts(int(rest), expensive)


def _slope_share(gains: LevelGains, price: float, used: list[int]) -> float:
    cheap = max(0.0, gains.cheap.value) / used[0]
    expensive = max(0.0, gains.expensive.value) / (price * used[1])
    both = cheap + expensive
    return min(0.9, max(0.1, cheap / both)) if both else 0.5


def _state(price: float, parts: Mapping[int, Mapping[str, PartErrors]]) -> LoopState:
    flat = {
        key: Curve(number, 1e12, 1.0, 1.0) for key, number in (("c", 1.0), ("e", price))
    }
    costs = {key: Cost(key, time=number, memory=number) for key, number in flat.items()}
    levels: dict[Fidelity, str] = {"cheap": "c", "expensive": "e"}
    return LoopState(
        start=(_MOLECULE,),
        levels=levels,
        labels=CampaignLabels(costs=costs),
        generations=Generations(part_errors=parts),
    )


def _rules() -> Rules:
    return Rules(
        budget=Budget(_CHEAP, _EXPENSIVE),
        seeding=SeedRules(*_FIRST, validation=0),
        every=_FIRST[1],
        split=SplitRules(),
    )


def law_row(name: str, price: float, noise: float, seeds: int) -> Row:
    """Return the row of a law and a price."""
    law, total = LAWS[name], _CHEAP + price * _EXPENSIVE
    fixed = law.error(_CHEAP, _EXPENSIVE)
    expensive = np.linspace(2.0, (total - 4.0) / price, 400)
    errors = [law.error(total - price * m, m) for m in expensive]
    best = int(np.argmin(errors))
    row: Row = {
        "law": name,
        "price": price,
        "share": _CHEAP / total,
        "best share": float(1 - price * expensive[best] / total),
        "best": errors[best] / fixed,
        "alone": law.error(0, total / price) / fixed,
    }
    for rule in ("measured", "half", "80 %", "slopes", "idle"):
        outcomes = [
            Simulated(law, price, rule, noise, np.random.default_rng(seed)).run()
            for seed in range(seeds)
        ]
        mean = np.exp(np.mean([np.log(error / fixed) for error, _ in outcomes]))
        gone = np.mean([stopped for _, stopped in outcomes])
        row[rule] = f"{mean:.2f} ({gone:.0%})"
    return row


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--noise", type=float, default=0.1, help="of a training")
    parser.add_argument("--seeds", type=int, default=8, help="campaigns of a cell")
    options = parser.parse_args()
    seeds = 3 if options.quick else options.seeds
    rows = [
        law_row(name, price, options.noise, seeds)
        for name in LAWS
        for price in (100.0, 20.0, 3.0)
    ]
    show(make_table("errors over the fixed split's", rows))


if __name__ == "__main__":
    main()
