"""The output of `plan`: the predicted cost of a campaign."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.table import Table

from alloop.cli.cost_measurement import LabelPrices, label_prices
from alloop.cli.plan_counts import (
    LabelCount,
    expected_rounds,
    label_counts,
    worker_count,
)
from alloop.config import Setup
from alloop.core.label_cost import Cost, molecule_key
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import duration_text, plural

if TYPE_CHECKING:
    from alloop.history.reader import History

_FRAME = 400  # bytes per atom of a labelled frame, journal and columns together

_PROPOSED = 4  # frames kept per labelled frame


def plan_table(
    setup: Setup, measure: bool, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Any]:
    """Yield a table of labels, then sentences; `tell` receives progress messages."""
    found = label_prices(setup, measure, tell)
    rows = label_counts(setup)
    yield _label_table(setup, rows, found)
    yield from _plan_sentences(setup, rows, found)
    yield from found.problems


def plan_facts(setup: Setup, measure: bool) -> dict[str, Any]:
    """Return the plan for scripts, fit for `json.dumps`.

    It holds labels by purpose with the CPU seconds of all of them, null where unknown,
    and the sentences.
    """
    found, rows = label_prices(setup, measure, lambda _text: None), label_counts(setup)
    return {
        "labels": [
            _label_fact(setup, row, found.costs.get(row.fidelity)) for row in rows
        ],
        "cores": worker_count(setup),
        "text": [*_plan_sentences(setup, rows, found), *found.problems],
        "units": {"cpu_seconds": "s"},
    }


def _label_fact(setup: Setup, row: LabelCount, cost: Cost | None) -> dict[str, Any]:
    seconds = (None,) * 3 if cost is None else row.seconds(cost, setup.start)
    named = zip(("least", "likely", "most"), seconds, strict=True)
    return {
        "purpose": row.purpose,
        "fidelity": row.fidelity,
        "level": setup.levels[row.fidelity].title,
        "labels": row.labels,
        "cpu_seconds": dict(named),
    }


def _label_table(setup: Setup, rows: list[LabelCount], found: LabelPrices) -> Table:
    heads = ("labels for", "level", "labels", "CPU s each", "within", "CPU")
    wall = f"wall, {plural(worker_count(setup), 'core')}"
    shown = FittingTable(*heads, wall, box=None, first_out=("within", "level"))
    for row in rows:
        title = setup.levels[row.fidelity].title
        cost = found.costs.get(row.fidelity)
        shown.add_row(
            row.purpose, title, str(row.labels), *_row_cells(setup, row, cost)
        )
    return shown


def _row_cells(setup: Setup, row: LabelCount, cost: Cost | None) -> list[str]:
    if cost is None:
        return ["?"] * 4
    least, likely, most = row.seconds(cost, setup.start)
    each, within = likely / row.labels, f"× {(most / least) ** 0.5:.2g}"
    return [
        f"{each:.2g}" if each < 10 else f"{each:.0f}",
        within,
        duration_text(likely),
        duration_text(likely / worker_count(setup)),
    ]


def _plan_sentences(
    setup: Setup, rows: list[LabelCount], found: LabelPrices
) -> Iterator[str]:
    if all(row.fidelity in found.costs for row in rows):
        spent = [row.seconds(found.costs[row.fidelity], setup.start) for row in rows]
        least, likely, most = (
            duration_text(sum(each)) for each in zip(*spent, strict=True)
        )
        wall = duration_text(sum(x for _, x, _ in spent) / worker_count(setup))
        yield (
            f"labels: {likely} of CPU ({least} to {most}), at least {wall} on "
            f"{plural(worker_count(setup), 'core')}"
        )
    else:
        yield "labels: not priced (measuring is off, or a level gave no label)"
    yield from remaining_sentences(setup, found.costs)
    yield from _assumption_sentences(setup, found)
    yield from _memory_sentences(setup, found)
    atoms = mean(len(frame) for frame in setup.start)
    frames = _PROPOSED * sum(row.labels for row in rows if "first" not in row.purpose)
    yield f"store: about {max(0.1, frames * atoms * _FRAME / 1e6):.1f} MB beside models"


def _assumption_sentences(setup: Setup, found: LabelPrices) -> Iterator[str]:
    counted = found.sources.items()
    sources = [f"{plural(n, 'label')} {source}" for source, n in counted if n]
    if sources:
        yield f"prices: from {', '.join(sources)}; range: two labels of three"
    for fidelity, cost in found.costs.items():
        names = {molecule_key(frame) for frame in setup.start} - {*cost.known}
        if names:
            title = setup.levels[fidelity].title
            yield (
                f"{title} of {', '.join(sorted(names))}: not measured, extrapolated "
                f"from {', '.join(cost.known)} by what is usual for the method"
            )


def _memory_sentences(setup: Setup, found: LabelPrices) -> Iterator[str]:
    """Yield the largest memory of a label, and a warning if above the limit."""
    peaks = [
        (
            cost.megabytes(frame),
            f"{setup.levels[fidelity].title} of {molecule_key(frame)}",
        )
        for fidelity, cost in found.costs.items()
        for frame in setup.start
    ]
    if not peaks:
        return
    peak, label = max(peaks)
    limit = setup.plan.limits.label_memory
    text = f"memory: about {round(peak, -1):.0f} MB for {label}"
    yield text if peak < limit else f"{text}, above `limits: label_memory` ({limit:g})"


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
    history = _read_history(setup)
    trainings, rounds = expected_rounds(setup)
    training, md = SpentSoFar(0.0, 0), SpentSoFar(0.0, 0)
    if history is not None:
        training, md = _spent_so_far(history)
    yield _work_sentence(
        "training", plural(trainings, "generation"), training, trainings
    )
    explore = setup.plan.explore
    moves = f"{plural(explore.walkers, 'walker')} over {explore.steps} steps"
    yield _work_sentence("MD", f"{plural(rounds, 'round')} of {moves}", md, rounds)
    if history is not None:
        yield from _done_sentences(setup, history, costs)


def _read_history(setup: Setup) -> "History | None":
    if not setup.store.exists():
        return None
    from alloop.history.reader import read_history

    return read_history(setup.store)


def _spent_so_far(history: "History") -> tuple[SpentSoFar, SpentSoFar]:
    from alloop.history.measured_costs import cpu_seconds_by_part

    parts = cpu_seconds_by_part(history)
    explored = {name.split("/")[1] for name in history.record_index.explorers}
    training = SpentSoFar(parts["training"], len(history.generations))
    return training, SpentSoFar(parts["MD"], len(explored))


def _work_sentence(name: str, what: str, spent: SpentSoFar, rounds: int) -> str:
    if spent.each is None:
        return f"{name}: {what}; its price is known once the first one is done"
    total = duration_text(spent.each * rounds)
    return f"{name}: {what}, {total} of CPU ({duration_text(spent.each)} each so far)"


def _done_sentences(
    setup: Setup, history: "History", costs: Mapping[str, Cost]
) -> Iterator[str]:
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
