"""`plan`: what a campaign will cost, from one label of each kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from statistics import mean
from typing import Any

from rich.table import Table

from alloop.cli.machine import cores
from alloop.config import Setup
from alloop.config.data import Sampled
from alloop.config.plan import Inline, Local
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.isolated import IsolatedLabeller, Limits

_RELAXING = 30  # force calls until a molecule is relaxed, roughly
_FRAME = 400  # bytes an atom of a labelled frame takes, journal and columns together
_PROPOSED = 4  # frames that are kept for each one that is labelled


@dataclass(frozen=True, slots=True)
class Count:
    """Labels of one purpose at one level; seconds is the CPU price of one, or None."""

    purpose: str
    fidelity: str
    labels: int
    seconds: float | None = None

    @property
    def total(self) -> float | None:
        """CPU seconds of all of them."""
        return None if self.seconds is None else self.seconds * self.labels


def counts(setup: Setup) -> list[tuple[str, str, int]]:
    """Purpose, fidelity and number of the labels that the campaign will ask for."""
    rules, test = setup.rules, setup.rules.seeding.test
    cheap = "cheap" if "cheap" in setup.levels else "expensive"
    modes = sum(_RELAXING + 6 * len(frame) for frame in setup.start)
    spacing = setup.plan.test.spacing if isinstance(setup.plan.test, Sampled) else 0
    rows = [
        ("training", "cheap", rules.budget.cheap),
        ("training", "expensive", rules.budget.expensive),
        ("test set", "expensive", test),
        ("test set's MD", cheap, spacing * test),
        ("first frames", cheap, modes),
    ]
    return [row for row in rows if row[2]]


def measured(level: Level, frames: tuple[Frame, ...], seconds: float) -> list[float]:
    """CPU seconds of a label at the level for each frame; the second try counts, as
    the first one pays for imports."""
    with IsolatedLabeller(level, Limits(seconds=seconds)) as labeller:
        labeller.label(frames[0])
        records = [labeller.label(frame) for frame in frames]
    return [record.cpu_seconds for record in records if isinstance(record, Label)]


def table(setup: Setup, measure: bool) -> Iterator[Any]:
    """What to show: a table of labels, then sentences."""
    prices: dict[str, float | None] = dict.fromkeys(setup.levels)
    if measure:
        for name, level in setup.levels.items():
            found = measured(level, setup.start, setup.plan.limits.label_time)
            prices[name] = mean(found) if found else None
    rows = [Count(p, f, n, prices.get(f)) for p, f, n in counts(setup)]
    yield _table(setup, rows)
    yield from _sentences(setup, rows)


def _table(setup: Setup, rows: list[Count]) -> Table:
    shown = Table("labels for", "level", "labels", "CPU s each", "CPU", box=None)
    for row in rows:
        title = setup.levels[row.fidelity].title
        price = "?" if row.seconds is None else f"{row.seconds:.3g}"
        cost = "?" if row.total is None else duration(row.total)
        shown.add_row(row.purpose, title, str(row.labels), price, cost)
    return shown


def _sentences(setup: Setup, rows: list[Count]) -> Iterator[str]:
    totals = [row.total for row in rows if row.total is not None]
    workers = _workers(setup)
    if len(totals) == len(rows):
        spent = sum(totals)
        wall = duration(spent / workers)
        yield (
            f"labels: {duration(spent)} of CPU, at least {wall} on {workers} cores; "
            "training and MD come on top"
        )
    else:
        yield "labels: not priced (measuring is off, or a level gave no label)"
    atoms = mean(len(frame) for frame in setup.start)
    frames = _PROPOSED * sum(row.labels for row in rows if "first" not in row.purpose)
    yield f"store: about {max(0.1, frames * atoms * _FRAME / 1e6):.1f} MB beside models"


def _workers(setup: Setup) -> int:
    cluster = setup.plan.cluster
    if isinstance(cluster, Local):
        return cluster.workers or cores()
    return 1 if isinstance(cluster, Inline) else cores()


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `5 h 10 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(ceil(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
