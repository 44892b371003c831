"""The output of `plan`: the predicted cost of a campaign, from label costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from statistics import mean
from typing import Any

from rich.table import Table

from alloop.cli.cost_measurement import LabelPrices, label_prices
from alloop.cli.remaining_work import remaining_sentences as remaining
from alloop.config import Setup
from alloop.config.sections.clusters import Inline, Local, Pbs, Slurm
from alloop.config.sections.data import Sampled
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost, molecule_key
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import plural
from alloop.workers.cluster_plan import available_cores

_RELAXING = 30  # force calls to relax a molecule, roughly
_FRAME = 400  # bytes per atom of a labelled frame, journal and columns together
_PROPOSED = 4  # frames kept per labelled frame


@dataclass(frozen=True, slots=True)
class LabelCount:
    """The number of labels of one purpose at one level, by molecule."""

    purpose: str
    fidelity: str
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
            each = [cost.seconds(frame) * cost.spread(frame) ** sign for frame in start]
            totals.append(sum(n * s for n, s in zip(self.shares, each, strict=True)))
        return tuple(totals)


def label_counts(setup: Setup) -> list[LabelCount]:
    """Return the labels that the campaign will request.

    Molecules share them evenly.
    """
    rules, test = setup.rules, setup.rules.seeding.test
    cheap = "cheap" if "cheap" in setup.levels else "expensive"
    molecules = len(setup.start)
    spacing = setup.plan.test.spacing if isinstance(setup.plan.test, Sampled) else 0
    even = [
        ("training", "cheap", rules.budget.cheap),
        ("training", "expensive", rules.budget.expensive),
        ("frozen set", "expensive", test),
        ("examination", "expensive", rules.examining.frames),
        ("frozen set's MD", cheap, spacing * test),
    ]
    again = [
        ("made again", f, round(share * sum(n for p, at, n in even[:4] if at == f)))
        for f, share in sorted(rules.recheck.items())
    ]
    modes = tuple(float(_RELAXING + 6 * len(frame)) for frame in setup.start)
    rows = [
        LabelCount(p, f, (n / molecules,) * molecules)
        for p, f, n in (*even, *again)
        if n
    ]
    return [*rows, LabelCount("first frames", cheap, modes)]


def plan_table(
    setup: Setup, measure: bool, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Any]:
    """Yield a table of labels, then sentences; `tell` receives progress messages."""
    found = label_prices(setup, measure, tell)
    rows = label_counts(setup)
    yield _label_table(setup, rows, found)
    yield from _plan_sentences(setup, rows, found)
    yield from found.problems


def facts(setup: Setup, measure: bool) -> dict[str, Any]:
    """Return the plan for scripts, fit for `json.dumps`.

    It holds labels by purpose with the CPU seconds of all of them, null where unknown,
    and the sentences.
    """
    found, rows = label_prices(setup, measure, lambda _text: None), label_counts(setup)
    return {
        "labels": [_fact(setup, row, found.costs.get(row.fidelity)) for row in rows],
        "cores": _worker_count(setup),
        "text": [*_plan_sentences(setup, rows, found), *found.problems],
        "units": {"cpu_seconds": "s"},
    }


def _fact(setup: Setup, row: LabelCount, cost: Cost | None) -> dict[str, Any]:
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
    wall = f"wall, {plural(_worker_count(setup), 'core')}"
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
        duration(likely),
        duration(likely / _worker_count(setup)),
    ]


def _plan_sentences(
    setup: Setup, rows: list[LabelCount], found: LabelPrices
) -> Iterator[str]:
    if all(row.fidelity in found.costs for row in rows):
        spent = [row.seconds(found.costs[row.fidelity], setup.start) for row in rows]
        least, likely, most = (duration(sum(each)) for each in zip(*spent, strict=True))
        wall = duration(sum(x for _, x, _ in spent) / _worker_count(setup))
        yield (
            f"labels: {likely} of CPU ({least} to {most}), at least {wall} on "
            f"{plural(_worker_count(setup), 'core')}"
        )
    else:
        yield "labels: not priced (measuring is off, or a level gave no label)"
    yield from remaining(setup, found.costs)
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


def _worker_count(setup: Setup) -> int:
    cluster = setup.plan.cluster
    if isinstance(cluster, Local):
        return cluster.workers or available_cores()
    if isinstance(cluster, Slurm | Pbs):
        labels = cluster.labels
        return labels.jobs.most * (labels.tasks or labels.cores)
    return 1 if isinstance(cluster, Inline) else available_cores()


def duration(seconds: float) -> str:
    """Return a duration as text: `48 s`, `3 min 20 s`, `5 h 10 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(ceil(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
