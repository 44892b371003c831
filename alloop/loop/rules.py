"""The rules that the user may change between two runs: budgets, quotas, stopping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from alloop.core.doubts import Doubt
from alloop.core.levels import Fidelity
from alloop.core.records import Explorer
from alloop.core.roles import ExplorerSettings, Selector
from alloop.core.settings import (
    COUNT,
    LABELS_OR_NONE,
    PARALLEL_COUNT,
    SHARE,
    WHOLE,
    from_milli,
    setting,
)
from alloop.loop.commands import (
    VALIDATION_WALKERS,
    Command,
    Explore,
    Sample,
    moved_walkers,
    with_walkers,
)
from alloop.selection import MostSurprising, PerMolecule

Protocol: TypeAlias = Literal["periodic", "naive", "non-periodic"]
Triage: TypeAlias = Literal["bias", "surprise", "both"]


_USUAL = PerMolecule(MostSurprising())


@dataclass(frozen=True, slots=True)
class Budget:
    """The labels that a campaign may make, without those that only test.

    cpu_hours covers all labels, also those of the examination, but not those made a
    second time to measure their noise.
    """

    cheap: int
    expensive: int
    cpu_hours: float | None = setting(
        None, "most CPU time of all labels, h; no limit by default", gt=0
    )


@dataclass(frozen=True, slots=True)
class SeedRules:
    """The numbers of first labels and of validation frames, over all molecules."""

    cheap: int = 40
    expensive: int = 10
    validation: int = setting(
        30,
        "frames of the validation set, all molecules together; 0 for none",
        key="frames",
        **LABELS_OR_NONE,
    )
    per_walker: int = setting(
        3, "most frames taken from one trajectory", key="each", **PARALLEL_COUNT
    )


@dataclass(frozen=True, slots=True)
class ExploreRules:
    """The walkers of a round.

    temperatures in K: shared among the walkers of each molecule in turn. timestep in
    fs. protocol: Wong & Yang, arXiv 2603.10159.
    """

    walkers: int = setting(
        16, "number of MD trajectories, all molecules together", **PARALLEL_COUNT
    )
    steps: int = setting(500, "MD steps of each walker in a round", **COUNT)
    batch: int = setting(8, "walkers that one task moves together", **PARALLEL_COUNT)
    piece: int = setting(500, "most MD steps of one task", **COUNT)
    temperatures: tuple[float, ...] = (500.0,)
    timestep: float = 0.5
    protocol: Protocol = setting(
        "periodic",
        "model and start of a round: the newest model, where walkers go on; the first "
        "model, where they start anew; the first model, where they go on",
    )


@dataclass(frozen=True, slots=True)
class Examining:
    """The examination, by MD on the best generation.

    temperatures in K: shared among the walkers of each molecule in turn.
    """

    frames: int = setting(
        0,
        "frames of the examination; none by default",
        key="examination",
        **LABELS_OR_NONE,
    )
    spacing: int = setting(
        1000,
        "MD steps before each of a walker's two frames in the examination",
        key="examination_spacing",
        **COUNT,
    )
    temperatures: tuple[float, ...] = (500.0,)
    equilibration: int = setting(
        4,
        "times `examination_spacing` that walkers of a molecule with torsions move "
        "before their first frame, from all conformers known and with bonds turned in "
        "between; 0: they begin at first frames, and MD alone moves them",
        key="examination_equilibration",
        **WHOLE,
    )
    beyond: int = setting(
        0,
        "frames with bonds turned and stretched at random that the model is tested on "
        "beside the examination",
        **LABELS_OR_NONE,
    )


def walker_temperature(
    temperatures: Sequence[float], walker: int, molecules: int
) -> float:
    """Return the temperature of the walker with this index, K.

    Walkers go to the molecules in turn, so those of a molecule are `molecules` apart.
    """
    return temperatures[walker // molecules % len(temperatures)]


@dataclass(frozen=True, slots=True)
class StopRules:
    """The reasons to stop before the budget is spent, with a target in eV/Å."""

    target: float | None = setting(
        None,
        "force error on the validation set at which the campaign ends, meV/Å; none by "
        "default",
        convert=from_milli,
        gt=0,
    )
    patience: int | None = setting(
        None,
        "generations without improvement after which the campaign ends; no limit by "
        "default",
        **COUNT,
    )
    improvement: float = setting(
        0.05,
        "smallest decrease that counts as an improvement, as a share of the error",
        ge=0,
        lt=1,
    )
    rounds: int | None = setting(
        None, "most rounds of exploration; no limit by default", **COUNT
    )


@dataclass(frozen=True, slots=True)
class SplitRules:
    """The measurement of the split of the money between the levels."""

    every: int = setting(
        1,
        "generations between two measurements, with `split: measured`",
        key="split_every",
        **COUNT,
    )
    share: float = setting(
        0.3,
        "share of a training's steps that each of the five short trainings takes, with "
        "`split: measured`",
        key="split_steps",
        gt=0,
        le=1,
    )


@dataclass(frozen=True, slots=True)
class RefineRules:
    """The refinement of a generation, before the next one is trained."""

    frames: int = setting(
        10,
        "flagged frames above the threshold, with a cheap label, that call for a "
        "refinement",
        **COUNT,
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which the loop decides.

    heldout: flagged frames cannot serve to calibrate surprise, since they were chosen
    for it. selection: "flagged" or "random". selector: picks the flagged
    frames of a round; expensive_selector: picks those of them that get an expensive
    label too, by their worth. last: 1 by default, other than in files.

    recheck: by fidelity, the share of labels that is made again to measure their noise.
    split: None where the counts of the budget stand; else they only say how much money
    there is, at the recorded costs of labels.
    refine: None where no generation is refined. explorers: the settings of those that
    propose frames beside MD.
    doubts: by fidelity, what becomes of a label with this doubt, "accept", "flag" or
    "exclude".
    """

    budget: Budget
    seeding: SeedRules = SeedRules()
    exploring: ExploreRules = ExploreRules()
    stopping: StopRules = StopRules()
    examining: Examining = Examining()
    every: int = setting(10, "expensive labels between two generations", **COUNT)
    control: float = setting(
        0.1,
        "share of expensive labels for random frames, whatever their surprise",
        **SHARE,
    )
    random: float = setting(
        0.0,
        "share of MD's labels of flagged frames for frames that are drawn at random, "
        "which lower the error at the lower temperatures",
        **SHARE,
    )
    heldout: float = setting(
        0.25,
        "share of the first cheap frames kept from training, to calibrate surprise",
        **SHARE,
    )
    selection: str = "flagged"
    selector: Selector = _USUAL
    expensive_selector: Selector = _USUAL
    triage: Triage = setting(
        "both",
        "quantity that decides which flagged frames get an expensive label too",
    )
    staleness: int = setting(
        0,
        "generations by which MD may lag behind; 0: MD waits for training",
        **WHOLE,
    )
    last: float = setting(
        1.0,
        "factor of the steps of the last generation, which is trained when the budget "
        "is spent",
        ge=1,
    )
    split: SplitRules | None = None
    explorers: Mapping[Explorer, ExplorerSettings] = field(default_factory=dict)
    refine: RefineRules | None = None
    recheck: Mapping[Fidelity, float] = field(default_factory=dict)
    doubts: Mapping[Fidelity, Mapping[Doubt, str]] = field(default_factory=dict)

    @property
    def shares(self) -> Mapping[Explorer, float]:
        """The shares of the labels of flagged frames, by explorer.

        A control campaign with random selection has those of MD alone.
        """
        shares = {name: x.share for name, x in self.active_explorers.items()}
        return {**shares, "md": 1.0 - sum(shares.values())}

    @property
    def active_explorers(self) -> Mapping[Explorer, ExplorerSettings]:
        """The explorers beside MD; none in a control campaign."""
        return {} if self.selection == "random" else self.explorers

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
