"""The output of `plan`: counts of labels and trainings, and the predicted cost."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from statistics import mean
from typing import Any, TypeAlias

from rich.table import Table

from alloop.config import Setup
from alloop.config.sections.clusters import BatchSystem, Inline, Local
from alloop.config.sections.data import Sampled
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost, molecule_key
from alloop.core.levels import FIDELITIES, Fidelity
from alloop.loop.level_gains import PARTS
from alloop.md.shapes import open_bonds
from alloop.planning.measurements import (
    LabelPrices,
    WorkPrice,
    label_prices,
    work_prices,
)
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import and_list, duration_text, plural
from alloop.workers.cluster_plan import available_cores

_RELAXING = 30  # force calls to relax a molecule, roughly


@dataclass(frozen=True, slots=True)
class PlannedLabels:
    """The number of labels of one purpose at one level, by molecule."""

    purpose: str
    fidelity: Fidelity
    shares: tuple[float, ...]

    @property
    def labels(self) -> int:
        """The number of labels of all molecules together."""
        return round(sum(self.shares))

    def seconds(self, cost: Cost, start: tuple[Frame, ...]) -> tuple[float, ...]:
        """Return the CPU seconds of all labels: low, likely and high estimate.

        The cost lies between low and high in two of three cases.
        """
        totals = []
        for sign in (-1, 0, 1):
            times = [
                cost.seconds(frame) * cost.spread(frame) ** sign for frame in start
            ]
            totals.append(sum(n * s for n, s in zip(self.shares, times, strict=True)))
        return tuple(totals)


def beyond_frames(setup: Setup) -> int:
    """Return the number of frames beyond MD; 0 where no start has a bond to turn."""
    able = any(open_bonds(frame) for frame in setup.start)
    return setup.rules.examining.beyond if able else 0


def label_counts(setup: Setup) -> list[PlannedLabels]:
    """Return the labels that the campaign will request.

    Molecules share them evenly.
    """
    rules, test = setup.rules, setup.rules.seeding.validation
    cheap: Fidelity = "cheap" if "cheap" in setup.levels else "expensive"
    molecules = len(setup.start)
    spacing = (
        setup.plan.validation.spacing
        if isinstance(setup.plan.validation, Sampled)
        else 0
    )
    even: list[tuple[str, Fidelity, int]] = [
        ("training", "cheap", rules.budget.cheap),
        ("training", "expensive", rules.budget.expensive),
        ("validation set", "expensive", test),
        ("examination", "expensive", rules.examining.frames),
        ("beyond MD", "expensive", beyond_frames(setup)),
        ("validation set's MD", cheap, spacing * test),
    ]
    again = [
        ("made again", f, round(share * sum(n for p, at, n in even[:5] if at == f)))
        for f, share in sorted(rules.recheck.items())
    ]
    modes = tuple(float(_RELAXING + 6 * len(frame)) for frame in setup.start)
    rows = [
        PlannedLabels(p, f, (n / molecules,) * molecules)
        for p, f, n in (*even, *again)
        if n
    ]
    return [*rows, PlannedLabels("first frames", cheap, modes)]


def worker_count(setup: Setup) -> int:
    """Return the number of labels that run side by side."""
    cluster = setup.plan.cluster
    if isinstance(cluster, Local):
        if cluster.adaptive is not None:
            return cluster.adaptive.maximum
        return cluster.workers or available_cores()
    if isinstance(cluster, BatchSystem):
        labels = cluster.labels
        return labels.adaptive.maximum * (labels.tasks or labels.cores)
    return 1 if isinstance(cluster, Inline) else available_cores()


def expected_rounds(setup: Setup) -> tuple[int, int]:
    """Return the largest number of trainings and of MD rounds by the budget.

    Refinements are no trainings; each comes with a round of its own.
    """
    rules = setup.rules
    labels = max(0, rules.budget.expensive - rules.seeding.expensive)
    rounds = ceil(labels / rules.every)
    limit = rules.stopping.rounds
    rounds = rounds if limit is None else min(rounds, limit)
    explored = rounds if rules.refine is None else 2 * rounds
    return rounds + 1, explored if limit is None else min(explored, limit)


WorkPrices: TypeAlias = tuple[WorkPrice, WorkPrice]  # a training, a round of MD
_FRAME = 400  # bytes per atom of a labelled frame, journal and columns together
_PROPOSED = 4  # frames kept per labelled frame


def plan_table(
    setup: Setup, measure: bool, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Any]:
    """Yield a table of labels, then sentences; `tell` receives progress messages."""
    labels = label_prices(setup, measure, tell)
    rows, prices = label_counts(setup), work_prices(setup, measure, tell)
    yield _label_table(setup, rows, labels)
    yield from _plan_sentences(setup, rows, labels, prices)
    yield from labels.problems


def plan_facts(setup: Setup, measure: bool) -> dict[str, Any]:
    """Return the plan for scripts, fit for `json.dumps`.

    It holds labels by purpose with the CPU seconds of all of them, the CPU seconds of
    one training and of one round of MD, null where unknown, and the sentences.
    """
    labels, rows = label_prices(setup, measure, lambda _text: None), label_counts(setup)
    prices = work_prices(setup, measure, lambda _text: None)
    return {
        "labels": [
            _label_fact(setup, row, labels.costs.get(row.fidelity)) for row in rows
        ],
        "training": prices[0].each,
        "md_round": prices[1].each,
        "cores": worker_count(setup),
        "text": [*_plan_sentences(setup, rows, labels, prices), *labels.problems],
        "units": {"cpu_seconds": "s", "training": "s", "md_round": "s"},
    }


def _label_fact(setup: Setup, row: PlannedLabels, cost: Cost | None) -> dict[str, Any]:
    seconds = (None,) * 3 if cost is None else row.seconds(cost, setup.start)
    named = zip(("least", "likely", "most"), seconds, strict=True)
    return {
        "purpose": row.purpose,
        "fidelity": row.fidelity,
        "level": setup.levels[row.fidelity].title,
        "labels": row.labels,
        "cpu_seconds": dict(named),
    }


def _label_table(setup: Setup, rows: list[PlannedLabels], labels: LabelPrices) -> Table:
    heads = ("labels for", "level", "labels", "CPU s each", "within", "CPU")
    wall = f"wall, {plural(worker_count(setup), 'core')}"
    shown = FittingTable(*heads, wall, box=None, first_out=("within", "level"))
    for row in rows:
        title = setup.levels[row.fidelity].title
        cost = labels.costs.get(row.fidelity)
        shown.add_row(
            row.purpose, title, str(row.labels), *_row_cells(setup, row, cost)
        )
    return shown


def _row_cells(setup: Setup, row: PlannedLabels, cost: Cost | None) -> list[str]:
    if cost is None:
        return ["?"] * 4
    low, likely, high = row.seconds(cost, setup.start)
    seconds, within = likely / row.labels, f"× {(high / low) ** 0.5:.2g}"
    return [
        f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}",
        within,
        duration_text(likely),
        duration_text(likely / worker_count(setup)),
    ]


def _plan_sentences(
    setup: Setup, rows: list[PlannedLabels], labels: LabelPrices, prices: WorkPrices
) -> Iterator[str]:
    if all(row.fidelity in labels.costs for row in rows):
        spent = [row.seconds(labels.costs[row.fidelity], setup.start) for row in rows]
        low, likely, high = (
            duration_text(sum(times)) for times in zip(*spent, strict=True)
        )
        wall = duration_text(sum(x for _, x, _ in spent) / worker_count(setup))
        yield (
            f"labels: {likely} of CPU ({low} to {high}), at least {wall} on "
            f"{plural(worker_count(setup), 'core')}"
        )
    else:
        yield "labels: not priced (measuring is off, or a level gave no label)"
    yield from _work_sentences(setup, prices)
    yield from _control_sentences(setup, labels.costs, prices)
    yield from _done_sentences(setup, labels.costs)
    yield from _assumption_sentences(setup, labels)
    yield from _reverse_sentences(setup, labels.costs)
    yield from _memory_sentences(setup, labels)
    atoms = mean(len(frame) for frame in setup.start)
    frames = _PROPOSED * sum(row.labels for row in rows if "first" not in row.purpose)
    yield f"store: about {max(0.1, frames * atoms * _FRAME / 1e6):.1f} MB beside models"


def _assumption_sentences(setup: Setup, labels: LabelPrices) -> Iterator[str]:
    counted = labels.sources.items()
    sources = [f"{plural(n, 'label')} {source}" for source, n in counted if n]
    if sources:
        yield f"prices: from {', '.join(sources)}; range: two labels of three"
    for fidelity, cost in labels.costs.items():
        names = {molecule_key(frame) for frame in setup.start} - {*cost.known}
        if names:
            title = setup.levels[fidelity].title
            yield (
                f"{title} of {', '.join(sorted(names))}: not measured, extrapolated "
                f"from {', '.join(cost.known)} as is usual for the method"
            )


def _reverse_sentences(setup: Setup, costs: Mapping[Fidelity, Cost]) -> Iterator[str]:
    """Yield a warning if a cheap label costs more than an expensive one."""
    if len(costs) < 2:
        return
    low, high = (
        sum(costs[x].seconds(frame) for frame in setup.start) for x in FIDELITIES
    )
    if high < low:
        cheap, expensive = (setup.levels[x].title for x in FIDELITIES)
        yield (
            f"warning: a label of {cheap}, the cheap level, costs {low / high:.2g} "
            f"times one of {expensive}; exchange them, or leave `cheap` out"
        )


def _memory_sentences(setup: Setup, labels: LabelPrices) -> Iterator[str]:
    """Yield the largest memory of a label, and a warning if above the limit."""
    peaks = [
        (
            cost.megabytes(frame),
            f"{setup.levels[fidelity].title} of {molecule_key(frame)}",
        )
        for fidelity, cost in labels.costs.items()
        for frame in setup.start
    ]
    if not peaks:
        return
    peak, label = max(peaks)
    limit = setup.plan.limits.label_memory
    text = f"memory: about {round(peak, -1):.0f} MB for {label}"
    yield text if peak < limit else f"{text}, above `limits: label_memory` ({limit:g})"


def _work_sentences(setup: Setup, prices: WorkPrices) -> Iterator[str]:
    """Yield the cost of training and MD, in sentences."""
    trainings, rounds = expected_rounds(setup)
    explore = setup.plan.explore
    kelvin = and_list([f"{x:g}" for x in explore.temperatures])
    moves = (
        f"{plural(explore.walkers, 'walker')} at {kelvin} K over {explore.steps} steps"
    )
    if biased := sum(x.steps for x in setup.rules.active_explorers.values()):
        moves += f" and {biased} biased ones"
    yield _work_sentence(
        "training",
        plural(trainings, "generation"),
        prices[0],
        trainings - 1 + setup.rules.last,
    )
    yield _work_sentence(
        "MD", f"{plural(rounds, 'round')} of {moves}", prices[1], rounds
    )
    if (split := setup.rules.split) is not None:
        measured = trainings // split.every
        yield _work_sentence(
            "split",
            f"counts may move at the same price; short trainings worth "
            f"{len(PARTS) * split.share:.2g} of a training beside "
            f"{plural(measured, 'generation')}",
            prices[0],
            measured * len(PARTS) * split.share,
        )
    refining = "" if setup.rules.refine is None else "refinements, "
    yield (
        f"not priced: {refining}scoring of frames and MD of the examination; a "
        "training that stops early costs less"
    )


def _control_sentences(
    setup: Setup, costs: Mapping[Fidelity, Cost], prices: WorkPrices
) -> Iterator[str]:
    """Yield the cost of both controls, which share the first labels.

    Each spends the campaign's label cost, in no more generations and rounds of MD.
    """
    rules = setup.rules
    budget, first = rules.budget, rules.seeding
    seconds = {
        level: mean(cost.seconds(frame) for frame in setup.start)
        for level, cost in costs.items()
    }
    if (budget.cheap and "cheap" not in seconds) or "expensive" not in seconds:
        return
    cheap = seconds.get("cheap", 0.0)
    labels = 2.0 * (
        (budget.cheap - 0.5 * first.cheap) * cheap
        + (budget.expensive - first.expensive) * seconds["expensive"]
    )
    more = round(budget.cheap * cheap / seconds["expensive"])
    text = (
        f"controls (`alloop run --controls`), not included above: "
        f"{duration_text(labels)} of CPU for labels, of which standard training takes "
        f"{budget.expensive + more} expensive ones"
    )
    trainings, rounds = expected_rounds(setup)
    training, md = (price.each for price in prices)
    if training is not None and md is not None:
        work = 2.0 * (training * (trainings - 1 + rules.last) + md * rounds)
        text += f"; {duration_text(work)} for training and MD, at most"
    yield text


def _work_sentence(name: str, what: str, price: WorkPrice, count: float) -> str:
    if price.each is None:
        return f"{name}: {what}, not priced; {price.source}"
    total, price_each = duration_text(price.each * count), duration_text(price.each)
    return f"{name}: {what}, {total} of CPU ({price_each} each, {price.source})"


def _done_sentences(setup: Setup, costs: Mapping[Fidelity, Cost]) -> Iterator[str]:
    """Yield the work done already and what remains, in sentences."""
    if not setup.store.exists():
        return
    from alloop.history.reader import read_history

    history = read_history(setup.store)
    budget: dict[Fidelity, int] = {
        "cheap": setup.rules.budget.cheap,
        "expensive": setup.rules.budget.expensive,
    }
    used = {name: history.state.labels.used(name) for name in budget if budget[name]}
    counted = " and ".join(f"{n} of {budget[x]} {x}" for x, n in used.items())
    generations = plural(history.state.generations.count, "generation")
    yield f"done already, and included above: {counted} labels, {generations}"
    left = {name: max(0, budget[name] - n) for name, n in used.items()}
    if all(name in costs for name in left):
        seconds = sum(
            n * mean(costs[name].seconds(frame) for frame in setup.start)
            for name, n in left.items()
        )
        yield f"still to come: {duration_text(seconds)} of CPU for training labels"
