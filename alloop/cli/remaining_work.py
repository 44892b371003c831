"""Sentences of `plan` on training, MD, and the work done already."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from statistics import mean
from typing import TYPE_CHECKING

from alloop.config import Setup
from alloop.core.label_cost import Cost
from alloop.core.text import plural
from alloop.report.text.formatting import duration_text

if TYPE_CHECKING:
    from alloop.history.reader import History


@dataclass(frozen=True, slots=True)
class SpentSoFar:
    """The CPU seconds spent on a part of the campaign, and the rounds they cover."""

    seconds: float
    rounds: int

    @property
    def each(self) -> float | None:
        """The CPU seconds per round, None before the first."""
        return self.seconds / self.rounds if self.rounds else None


def remaining_sentences(setup: Setup, costs: Mapping[str, Cost]) -> Iterator[str]:
    """Yield the cost of training and MD and the work done already, in sentences.

    costs: of labels by fidelity, where they are known.
    """
    history = _history(setup)
    trainings, rounds = expected_rounds(setup)
    training, md = SpentSoFar(0.0, 0), SpentSoFar(0.0, 0)
    if history is not None:
        training, md = _spent(history)
    yield _work("training", plural(trainings, "generation"), training, trainings)
    explore = setup.plan.explore
    moves = f"{plural(explore.walkers, 'walker')} over {explore.steps} steps"
    yield _work("MD", f"{plural(rounds, 'round')} of {moves}", md, rounds)
    if history is not None:
        yield from _done(setup, history, costs)


def expected_rounds(setup: Setup) -> tuple[int, int]:
    """Return the largest number of trainings and of MD rounds by the budget."""
    rules = setup.rules
    labels = max(0, rules.budget.expensive - rules.seeding.expensive)
    rounds = ceil(labels / rules.every)
    most = rules.stopping.rounds
    rounds = rounds if most is None else min(rounds, most)
    return rounds + 1, rounds


def _history(setup: Setup) -> "History | None":
    if not setup.store.exists():
        return None
    from alloop.history.reader import read_history

    return read_history(setup.store)


def _spent(history: "History") -> tuple[SpentSoFar, SpentSoFar]:
    from alloop.history.measured_costs import cpu_seconds_by_part

    parts = cpu_seconds_by_part(history)
    explored = {name.split("/")[1] for name in history.chronicle.explorers}
    training = SpentSoFar(parts["training"], len(history.generations))
    return training, SpentSoFar(parts["MD"], len(explored))


def _work(name: str, what: str, spent: SpentSoFar, rounds: int) -> str:
    if spent.each is None:
        return f"{name}: {what}; its price is known once the first one is done"
    total = duration_text(spent.each * rounds)
    return f"{name}: {what}, {total} of CPU ({duration_text(spent.each)} each so far)"


def _done(setup: Setup, history: "History", costs: Mapping[str, Cost]) -> Iterator[str]:
    budget = {
        "cheap": setup.rules.budget.cheap,
        "expensive": setup.rules.budget.expensive,
    }
    used = {name: history.state.labels_used(name) for name in budget if budget[name]}
    counted = " and ".join(f"{n} of {budget[x]} {x}" for x, n in used.items())
    generations = plural(history.state.generation, "generation")
    yield f"done already, and counted above: {counted} labels, {generations}"
    left = {name: max(0, budget[name] - n) for name, n in used.items()}
    if all(name in costs for name in left):
        seconds = sum(
            n * mean(costs[name].seconds(frame) for frame in setup.start)
            for name, n in left.items()
        )
        yield f"still to come: {duration_text(seconds)} of CPU for training labels"
