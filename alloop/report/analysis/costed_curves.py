"""Learning curves with the cost of labels and of everything else. Pure functions."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from alloop.history.measured_costs import PARTS
from alloop.history.reader import History
from alloop.report.analysis.summary_facts import generation_facts

_DASHES = {"": "-", "standard": "--", "random": ":"}


@dataclass(frozen=True, slots=True)
class CostedStand:
    """A tested generation and the costs up to it.

    expensive: labels that it learned from. label_cost, all_cost: CPU seconds of labels
    and of everything so far, test labels not included. force_mae: on the test set,
    eV/Å.
    """

    generation: int
    expensive: int
    label_cost: float
    all_cost: float
    force_mae: float


@dataclass(frozen=True, slots=True)
class CampaignCurve:
    """The generations of a campaign, or of its control with that name."""

    name: str
    control: str
    colour: str
    stands: tuple[CostedStand, ...]

    @property
    def dash(self) -> str:
        """The line style of the curve."""
        return _DASHES.get(self.control, "-.")


def costed_stands(history: History) -> tuple[CostedStand, ...]:
    """Return the tested generations with all costs up to each."""
    spent = [
        (deed.seq, deed.timing.cpu_seconds)
        for deed in history.chronicle.deeds
        if deed.kind in PARTS
    ]
    records = [seq for seq, _ in spent]
    sums = [0.0, *accumulate(seconds for _, seconds in spent)]
    return tuple(
        CostedStand(
            generation=stand.generation,
            expensive=stand.expensive,
            label_cost=stand.label_cost,
            all_cost=stand.label_cost + sums[bisect_right(records, entry.seq)],
            force_mae=stand.force_mae,
        )
        for stand, entry in zip(
            generation_facts(history), history.generations, strict=True
        )
        if stand.force_mae is not None
    )
