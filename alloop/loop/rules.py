"""The rules that the user may change between two runs: budgets, quotas, stopping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from alloop.core.doubts import Doubt
from alloop.core.levels import Fidelity
from alloop.core.roles import Selector
from alloop.loop.commands import (
    VALIDATION_WALKERS,
    Command,
    Explore,
    Sample,
    moved_walkers,
    with_walkers,
)
from alloop.selection import MostSurprising, PerMolecule

_USUAL = PerMolecule(MostSurprising())


@dataclass(frozen=True, slots=True)
class Budget:
    """The labels that a campaign may make, without those that only test.

    cpu_hours covers all labels, also those of the examination, but not those made a
    second time to measure their noise.
    """

    cheap: int
    expensive: int
    cpu_hours: float | None = None


@dataclass(frozen=True, slots=True)
class SeedRules:
    """The numbers of first labels and of validation frames, over all molecules.

    per_walker: validation frames that one MD run gives.
    """

    cheap: int = 40
    expensive: int = 10
    validation: int = 30
    per_walker: int = 3


@dataclass(frozen=True, slots=True)
class ExploreRules:
    """The walkers of a round: `steps` MD steps each, in batches of `batch` walkers.

    A task moves a batch by `piece` steps. temperatures in K: shared among the walkers
    of each molecule in turn. protocol (Wong & Yang, arXiv 2603.10159): "periodic",
    where walkers go on from round to round, each round on the newest model;
    "non-periodic", where they go on but stay on the first model; "naive", where they
    also start anew in every round.
    """

    walkers: int = 16
    steps: int = 500
    batch: int = 8
    piece: int = 500
    temperatures: tuple[float, ...] = (500.0,)
    timestep: float = 0.5  # fs
    protocol: str = "periodic"


@dataclass(frozen=True, slots=True)
class Examining:
    """The examination, on `frames` frames of MD on the best generation (0: none).

    spacing: MD steps between two frames of a walker. temperatures in K: shared among
    the walkers of each molecule in turn.
    """

    frames: int = 0
    spacing: int = 1000
    temperatures: tuple[float, ...] = (500.0,)


def walker_temperature(
    temperatures: Sequence[float], walker: int, molecules: int
) -> float:
    """Return the temperature of the walker with this index, K.

    Walkers go to the molecules in turn, so those of a molecule are `molecules` apart.
    """
    return temperatures[walker // molecules % len(temperatures)]


@dataclass(frozen=True, slots=True)
class StopRules:
    """The reasons to stop before the budget is spent; None means never.

    target: force error on the validation set, eV/Å. patience: generations in a row that
    improve the best error by less than `improvement` (a fraction). rounds: explorations
    at most.
    """

    target: float | None = None
    patience: int | None = None
    improvement: float = 0.05
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class SplitRules:
    """The measurement of the split of the money between the levels.

    every: generations between two measurements; share: of a training's steps that each
    short training takes.
    """

    every: int = 1
    share: float = 0.3


@dataclass(frozen=True, slots=True)
class RefineRules:
    """The refinement of a generation, before the next one is trained.

    frames: flagged frames above the threshold, with a cheap label, that call for it.
    """

    frames: int = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which the loop decides.

    every: expensive labels between two generations. control: share of them that goes to
    random frames. heldout: share of the first cheap frames that no training sees, on
    which surprise is calibrated; flagged frames cannot serve, since they were chosen
    for their surprise. selection: "flagged" or "random". selector: picks the flagged
    frames of a round; expensive_selector: picks those of them that get an expensive
    label too, by their worth. triage: what this worth is, "bias", "surprise" or "both".
    staleness: number of generations by which exploration lags behind the labels; 0 is a
    barrier between rounds. last: factor of the steps of a training after which no more
    labels are bought.

    recheck: by fidelity, the share of labels that is made again to measure their noise.
    split: None where the counts of the budget stand; else they only say how much money
    there is, at the recorded costs of labels.
    refine: None where no generation is refined.
    doubts: by fidelity, what becomes of a label with this doubt, "accept", "flag" or
    "exclude".
    """

    budget: Budget
    seeding: SeedRules = SeedRules()
    exploring: ExploreRules = ExploreRules()
    stopping: StopRules = StopRules()
    examining: Examining = Examining()
    every: int = 10
    control: float = 0.1
    heldout: float = 0.25
    selection: str = "flagged"
    selector: Selector = _USUAL
    expensive_selector: Selector = _USUAL
    triage: str = "both"
    staleness: int = 0
    last: float = 1.0
    split: SplitRules | None = None
    refine: RefineRules | None = None
    recheck: Mapping[Fidelity, float] = field(default_factory=dict)
    doubts: Mapping[Fidelity, Mapping[Doubt, str]] = field(default_factory=dict)

    def barred_doubts(self, fidelity: Fidelity) -> frozenset[Doubt]:
        """Return the doubts that keep a label of the fidelity out of all learning."""
        verdicts = self.doubts.get(fidelity, {})
        return frozenset(doubt for doubt, what in verdicts.items() if what == "exclude")

    def with_temperatures(self, command: Command, molecules: int) -> Command:
        """Return the command, each of its walkers with a temperature.

        Walkers of an older store's commands have none, nor need those of a user's own
        policy.
        """
        walkers = moved_walkers(command)
        if all(walker.temperature is not None for walker in walkers):
            return command
        return with_walkers(
            command,
            [
                replace(x, temperature=self._temperature(command, x.index, molecules))
                if x.temperature is None
                else x
                for x in walkers
            ],
        )

    def _temperature(self, command: Command, walker: int, molecules: int) -> float:
        part = self.exploring if isinstance(command, Explore) else self.examining
        if isinstance(command, Sample):  # its molecule's walkers count from 0
            walker, molecules = walker % VALIDATION_WALKERS, 1
        return walker_temperature(part.temperatures, walker, molecules)

    @property
    def is_single_fidelity(self) -> bool:
        """True where the campaign has one fidelity only."""
        return self.budget.cheap == 0
