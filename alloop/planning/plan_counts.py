"""Counts of what a campaign will do: labels by purpose, trainings, rounds."""

from dataclasses import dataclass
from math import ceil

from alloop.config import Setup
from alloop.config.sections.clusters import BatchSystem, Inline, Local
from alloop.config.sections.data import Sampled
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.levels import Fidelity
from alloop.workers.cluster_plan import available_cores

_RELAXING = 30  # force calls to relax a molecule, roughly


@dataclass(frozen=True, slots=True)
class LabelCount:
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


def label_counts(setup: Setup) -> list[LabelCount]:
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
        ("validation set's MD", cheap, spacing * test),
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


def worker_count(setup: Setup) -> int:
    """Return the number of labels that run side by side."""
    cluster = setup.plan.cluster
    if isinstance(cluster, Local):
        return cluster.workers or available_cores()
    if isinstance(cluster, BatchSystem):
        labels = cluster.labels
        return labels.jobs.most * (labels.tasks or labels.cores)
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
