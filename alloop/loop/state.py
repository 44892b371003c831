"""The state of the loop, as frozen records.

`alloop.loop.reducer` makes new ones. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal, TypeAlias

import numpy as np

from alloop.core.doubts import Doubt
from alloop.core.frame import Frame, FrameId
from alloop.core.label_cost import Cost
from alloop.core.levels import Fidelity, LevelId
from alloop.core.records import Candidate, MinimumPath, Walker
from alloop.core.seeds import BEYOND, EXAMINATION, Purpose, name_share, split_of
from alloop.core.units import Floats
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    ModelId,
    Train,
    TrainPart,
)
from alloop.loop.events import Explored, Trained

Exclusion: TypeAlias = tuple[FrameId, Fidelity | Literal["all"]]
Stage: TypeAlias = Literal[
    "new", "opened", "seed", "train", "explore", "flag", "bias", "examine"
]
TEST: Literal["test"] = "test"
_UNPAID = (TEST, EXAMINATION, BEYOND, "given")  # purposes that no budget pays for
_LEAST_HELDOUT = 8
_FIRST_STEPS = 20  # MD steps; a walker stopped earlier got nowhere


@dataclass(frozen=True, slots=True)
class LabelState:
    """A label that was asked for (or supplied by the user), and its outcome.

    bias: ASTEROID's B in eV/Å. limit_ratio: of a control frame at the expensive level,
    its largest force error over the limit that was promised for it, without the
    limit's factor; limit_held: whether the error was below the limit.
    """

    frame: FrameId
    fidelity: Fidelity
    purpose: Purpose
    molecule: int
    good: bool
    cpu_seconds: float
    bias: float | None = None
    doubts: frozenset[Doubt] = frozenset()
    supplied: bool = False
    limit_ratio: float | None = None
    limit_held: bool | None = None


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """The number of labels spent, by fidelity, and the CPU seconds of all labels.

    Labels that only test and those that the user supplied are not spent.
    """

    cheap: int = 0
    expensive: int = 0
    cpu_seconds: float = 0.0

    def add(self, entries: Iterable[LabelState]) -> "LabelTotals":
        """Return the totals with further labels, summed in their order."""
        counts = {"cheap": self.cheap, "expensive": self.expensive}
        cpu_seconds = self.cpu_seconds
        for entry in entries:
            cpu_seconds += entry.cpu_seconds
            if entry.purpose not in _UNPAID:
                counts[entry.fidelity] += 1
        return LabelTotals(**counts, cpu_seconds=cpu_seconds)


@dataclass(frozen=True, slots=True)
class LabelBlock:
    """The labels of a closed step; totals: of all labels up to its end."""

    entries: tuple[LabelState, ...]
    totals: LabelTotals


def label_blocks(
    steps: Iterable[tuple[LabelState, ...]], before: tuple[LabelBlock, ...] = ()
) -> tuple[LabelBlock, ...]:
    """Return `before` and a block for each further step."""
    blocks = list(before)
    for entries in steps:
        totals = blocks[-1].totals if blocks else LabelTotals()
        blocks.append(LabelBlock(entries, totals.add(entries)))
    return tuple(blocks)


@dataclass(frozen=True, slots=True, eq=False)
class SummedLabels:
    """The totals of labels, which hold for these very blocks and this open step."""

    blocks: tuple[LabelBlock, ...]
    recent: tuple[LabelState, ...]
    totals: LabelTotals


@dataclass(frozen=True, slots=True, eq=False)
class PartErrors:
    """The errors after a short training on `cheap` and `expensive` labels.

    errors (frames,): of each judged frame, eV/Å.
    """

    cheap: int
    expensive: int
    errors: Floats


@dataclass(frozen=True, slots=True, eq=False)
class CampaignLabels:
    """The labels asked for, and what is known of them.

    blocks: entries of closed steps, with running totals, so that the cost of an event
    depends on the size of the open step, not on the length of the campaign; recent:
    those of the open step. summed: the totals as of the last entry, so that an event
    does not sum those of its whole step. excluded: by hand. retries: lost labels asked
    for again,
    until they are answered; unlearned: True if one of them came back good, or a
    generation was refined, and no training has followed. costs: by level id; rechecks:
    names of all that were asked for.
    """

    blocks: tuple[LabelBlock, ...] = ()
    recent: tuple[LabelState, ...] = ()
    summed: SummedLabels | None = field(default=None, repr=False, compare=False)
    excluded: frozenset[Exclusion] = frozenset()
    retries: Mapping[str, LabelFrame] = field(default_factory=dict)
    unlearned: bool = False
    costs: Mapping[str, Cost] = field(default_factory=dict)
    rechecks: frozenset[str] = frozenset()

    def with_entry(self, name: str, entry: LabelState) -> "CampaignLabels":
        """Return the labels with the outcome of the command of this name.

        A label that was asked for again takes the place of its failure, so that it
        counts once.
        """
        if name not in self.retries:
            recent = (*self.recent, entry)
            summed = SummedLabels(self.blocks, recent, self.totals().add([entry]))
            return replace(self, recent=recent, summed=summed)
        return replace(
            self,
            blocks=label_blocks(_replace_entry(x.entries, entry) for x in self.blocks),
            recent=_replace_entry(self.recent, entry),
            retries={k: v for k, v in self.retries.items() if k != name},
            unlearned=self.unlearned
            or (entry.good and split_of(entry.purpose) != "test"),
        )

    def close_step(self) -> "CampaignLabels":
        """Return the labels with the entries of the open step as a block."""
        steps = [self.recent] if self.recent else []
        return replace(self, blocks=label_blocks(steps, self.blocks), recent=())

    def exclude(self, frame: FrameId, fidelity: Fidelity | None) -> "CampaignLabels":
        """Return the labels without one of a frame, or (None) without all of it."""
        pair: Exclusion = (frame, fidelity or "all")
        return replace(self, excluded=self.excluded | {pair})

    def include(self, frame: FrameId, fidelity: Fidelity | None) -> "CampaignLabels":
        """Return the labels with one exclusion, or (None) all of a frame, undone."""
        gone = {
            (x, what)
            for x, what in self.excluded
            if x == frame and fidelity in (None, what)
        }
        return replace(self, excluded=self.excluded - gone)

    def entries(self) -> Iterable[LabelState]:
        """Yield all labels asked for, in journal order."""
        for block in self.blocks:
            yield from block.entries
        yield from self.recent

    def trained_on(
        self, fidelity: Fidelity, barred: Set[Doubt] = frozenset()
    ) -> tuple[FrameId, ...]:
        """Return sorted ids of the good labels that training may use.

        barred: the doubts that such a label must not have.
        """
        frames = (
            entry.frame
            for entry in self.entries()
            if entry.good
            and entry.fidelity == fidelity
            and split_of(entry.purpose) == "train"
            and not entry.doubts & barred
        )
        return tuple(sorted(set(frames) - self._excluded_frames(fidelity)))

    def held_out(
        self, seed: int, share: float, barred: Set[Doubt] = frozenset()
    ) -> tuple[FrameId, ...]:
        """Return sorted ids of the first cheap frames that are kept from training.

        A frame's side never changes. Empty where they are too few to calibrate on.
        barred: the doubts that a cheap label must not have.
        """
        ordinary = {x.frame for x in self.entries() if x.purpose in ("seed", "given")}
        eligible = ordinary - set(self.trained_on("expensive"))
        out = tuple(
            frame
            for frame in self.trained_on("cheap", barred)
            if frame in eligible and name_share(seed, f"heldout/{frame}") < share
        )
        return out if len(out) >= _LEAST_HELDOUT else ()

    def validation_frames(
        self, barred: Set[Doubt] = frozenset()
    ) -> tuple[FrameId, ...]:
        """Return sorted ids of the validation set, without labels of barred doubts."""
        frames = {
            entry.frame
            for entry in self.entries()
            if entry.purpose == TEST and entry.good and not entry.doubts & barred
        }
        return tuple(sorted(frames - self._excluded_frames("expensive")))

    def limit_ratios(self, frames: Set[FrameId]) -> tuple[float, ...]:
        """Return the limit ratios of these frames, in journal order."""
        return tuple(
            entry.limit_ratio
            for entry in self.entries()
            if entry.limit_ratio is not None and entry.frame in frames
        )

    def first_blocks(self, blocks: int) -> "CampaignLabels":
        """Return only the first `blocks` blocks of entries, as if no step were open."""
        return replace(self, blocks=self.blocks[:blocks], recent=())

    def totals(self) -> LabelTotals:
        """Return the totals of all labels; the cost is that of the open step's."""
        last = self.summed
        if last and last.blocks is self.blocks and last.recent is self.recent:
            return last.totals
        closed = self.blocks[-1].totals if self.blocks else LabelTotals()
        return closed.add(self.recent)

    def used(self, fidelity: Fidelity) -> int:
        """Return the number of labels spent at the fidelity, failed ones included.

        Labels that only test and those that the user supplied do not count.
        """
        totals = self.totals()
        return totals.cheap if fidelity == "cheap" else totals.expensive

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all labels so far."""
        return self.totals().cpu_seconds

    def _excluded_frames(self, fidelity: Fidelity) -> set[FrameId]:
        return {frame for frame, what in self.excluded if what in (fidelity, "all")}


def _replace_entry(
    block: tuple[LabelState, ...], entry: LabelState
) -> tuple[LabelState, ...]:
    """Return the block with the entry in place of its failure.

    The CPU seconds of both add up.
    """
    key = (entry.frame, entry.fidelity, False)
    places = [i for i, x in enumerate(block) if (x.frame, x.fidelity, x.good) == key]
    if not places:
        return block
    place = places[0]
    paid = block[place].cpu_seconds + entry.cpu_seconds
    return (*block[:place], replace(entry, cpu_seconds=paid), *block[place + 1 :])


@dataclass(frozen=True, slots=True, eq=False)
class Generations:
    """The generations so far, and the trainings that are due.

    count: their number, which is the newest one's; model: the one that the next
    training starts from. errors: force MAE on the validation set by generation, eV/Å;
    models: by generation. rejected: those that failed a check and are not used;
    unaccepted: those that failed one and explore all the same.

    labelled: the newest generation whose labels are fixed; waiting: the generations up
    to it whose training is yet to be asked for, with the number of blocks that they
    learn from; refined: the newest one that was refined rather than trained, kept or
    not. summaries: of the last that explored and of all since; part_errors: by
    generation and name, after short trainings on parts of the labels.
    """

    count: int = 0
    model: ModelId | None = None
    errors: tuple[float, ...] = ()
    models: tuple[ModelId, ...] = ()
    rejected: frozenset[int] = frozenset()
    unaccepted: frozenset[int] = frozenset()
    labelled: int = 0
    waiting: Mapping[int, int] = field(default_factory=dict)
    refined: int = 0
    summaries: Mapping[int, Trained] = field(default_factory=dict)
    part_errors: Mapping[int, Mapping[str, PartErrors]] = field(default_factory=dict)

    def with_trained(self, event: Trained) -> "Generations":
        """Return the generations with a further one."""
        number = event.generation
        failed = bool(event.failed_checks)
        rejects = failed and (event.refinement is not None or bool(self.accepted))
        explores = failed and not rejects  # since no generation was accepted before it
        evaluation = event.evaluation
        error = float("nan") if evaluation is None else evaluation.error
        return replace(
            self,
            count=number,
            model=self.model if rejects else event.model,
            rejected=self.rejected | {number} if rejects else self.rejected,
            unaccepted=self.unaccepted | {number} if explores else self.unaccepted,
            summaries={**self.summaries, number: event.summary()},
            errors=(*self.errors, error),
            models=(*self.models, event.model),
        )

    def with_training(self, command: Train) -> "Generations":
        """Return the generations once a training is under way."""
        number = command.generation
        return replace(
            self,
            labelled=max(self.labelled, number),
            refined=number if command.refine else self.refined,
            waiting={k: v for k, v in self.waiting.items() if k != number},
        )

    def with_waiting(self, number: int, blocks: int) -> "Generations":
        """Return the generations with the labels of one fixed: the first `blocks`."""
        if number <= self.labelled:
            return self
        waiting = {**self.waiting, number: blocks}
        return replace(self, labelled=number, waiting=waiting)

    def with_part(self, command: TrainPart, errors: Floats) -> "Generations":
        """Return the generations with the errors after a short training."""
        number, count = command.generation, len(command.cheap)
        part = PartErrors(count, len(command.expensive), errors)
        parts = {**self.part_errors.get(number, {}), command.part: part}
        return replace(self, part_errors={**self.part_errors, number: parts})

    def since(self, number: int) -> "Generations":
        """Return the generations without summaries of those before one.

        None of them will explore again.
        """
        later = {k: v for k, v in self.summaries.items() if k >= number}
        return replace(self, summaries=later)

    @property
    def best(self) -> int:
        """The generation with the least error on the validation set.

        The newest of equal ones; the newest of all where none was tested; 0 where there
        is none. Generations that failed a check do not count, unless all did.
        """
        barred = self.rejected | (self.unaccepted if self.accepted else frozenset())
        errors = enumerate(self.errors, 1)
        tested = [(x, -n) for n, x in errors if isfinite(x) and n not in barred]
        return -min(tested)[1] if tested else self.usable_until(len(self.models))

    @property
    def accepted(self) -> frozenset[int]:
        """The generations that failed no check."""
        every = frozenset(range(1, len(self.models) + 1))
        return every - self.rejected - self.unaccepted

    @property
    def model_accepted(self) -> bool:
        """False if `model` is a generation that failed a check."""
        return self.usable_until(len(self.models)) not in self.unaccepted

    def usable_until(self, number: int) -> int:
        """Return the newest generation up to `number` that MD may run on.

        It failed no check; where none was accepted before it, it may have failed some.
        """
        while number in self.rejected:
            number -= 1
        return number


@dataclass(frozen=True, slots=True, eq=False)
class ExplorationState:
    """The newest round: its walkers and the frames that they came upon.

    generation: the one that explores, with its threshold and landmarks; pieces: the
    answers of the round by name, without walkers. paths: those that
    were found last, by the batch of walkers. moved_steps: MD steps of each walker
    in the round; stalled_rounds: rounds in a row in which no walker got beyond its
    first steps.
    """

    round: int = 0
    generation: int = 0
    threshold: float | None = None
    landmarks: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    walkers: Mapping[int, Walker] = field(default_factory=dict)
    pieces: Mapping[str, Explored] = field(default_factory=dict)
    moved_steps: Mapping[int, int] = field(default_factory=dict)
    stalled_rounds: int = 0
    paths: Mapping[int, tuple[MinimumPath, ...]] = field(default_factory=dict)

    def with_command(
        self, command: Explore, summary: Trained | None
    ) -> "ExplorationState":
        """Return the exploration once a piece of a round is under way.

        summary: of the generation that explores.
        """
        walkers = {walker.index: walker for walker in command.walkers}
        after = replace(
            self,
            round=command.round,
            walkers={**self.walkers, **walkers},
            generation=command.generation,
        )
        if summary is None:
            return after
        return replace(after, threshold=summary.threshold, landmarks=summary.landmarks)

    def with_piece(
        self, event: Explored, before: Sequence[Walker]
    ) -> "ExplorationState":
        """Return the exploration after a piece; before: the walkers that it moved."""
        walkers = {walker.index: walker for walker in event.walkers}
        steps = {
            walker.index: self.moved_steps.get(walker.index, 0)
            + walkers[walker.index].step
            - walker.step
            for walker in before
            if walker.index in walkers
        }
        paths = {event.batch: event.paths} if event.explorer == "paths" else {}
        return replace(
            self,
            walkers={**self.walkers, **walkers},
            pieces={**self.pieces, event.name: event.without_walkers()},
            moved_steps={**self.moved_steps, **steps},
            paths={**self.paths, **paths},
        )

    def with_top(self, frame: FrameId, energy: float) -> "ExplorationState":
        """Return the exploration once a frame has an expensive label, of energy eV."""
        if not any(path.top == frame for path in self.all_paths):
            return self
        paths = {
            batch: tuple(
                replace(x, error=energy - x.energy) if x.top == frame else x
                for x in paths
            )
            for batch, paths in self.paths.items()
        }
        return replace(self, paths=paths)

    @property
    def all_paths(self) -> tuple[MinimumPath, ...]:
        """The paths of all batches."""
        return tuple(x for _, paths in sorted(self.paths.items()) for x in paths)

    def end_round(self) -> "ExplorationState":
        """Return the exploration with the round counted, if its walkers got nowhere."""
        return replace(self, stalled_rounds=self.stalled_rounds + 1 if self.died else 0)

    def candidate(self, frame: FrameId) -> Candidate | None:
        """Return the round's candidate or control frame, None where it has none."""
        for _, piece in sorted(self.pieces.items(), key=lambda item: item[0]):
            for candidate in (*piece.candidates, *piece.controls):
                if candidate.frame.id == frame:
                    return candidate
        return None

    @property
    def died(self) -> bool:
        """True if guards stopped all walkers of the last round in their first steps."""
        stopped = (
            self.walkers[index].stopped is not None for index in self.moved_steps
        )
        farthest = max(self.moved_steps.values(), default=_FIRST_STEPS)
        return farthest < _FIRST_STEPS and all(stopped)


@dataclass(frozen=True, slots=True, eq=False)
class ExaminationState:
    """The examination at the end of a campaign.

    reason: why the campaign ends, once its examination has begun; last: the last
    command of MD, without walkers; frame_counts: the number of frames asked for, by the
    model that gave at least one; posed_frames: those of another campaign's examination,
    with the start molecule of each.
    """

    reason: str | None = None
    last: Examine | None = None
    frame_counts: Mapping[ModelId, int] = field(default_factory=dict)
    posed_frames: tuple[Frame, ...] = ()
    posed_molecules: tuple[int, ...] = ()

    def with_posed(
        self, frames: tuple[Frame, ...], molecules: tuple[int, ...]
    ) -> "ExaminationState":
        """Return an examination that is yet to come, on another campaign's frames."""
        return ExaminationState(
            last=self.last, posed_frames=frames, posed_molecules=molecules
        )

    def with_frames(self, command: Examine) -> "ExaminationState":
        """Return the examination after a piece that gave frames."""
        count = max(command.wanted, self.frame_counts.get(command.model, 0))
        return replace(self, frame_counts={**self.frame_counts, command.model: count})


@dataclass(frozen=True, slots=True, eq=False)
class LoopState:
    """Open work, counters and ids; never all frames.

    open: commands without an answer, by name; attempts: of those that were lost.
    finished: why the campaign ended; broken: why it cannot go on.
    """

    stage: Stage = "new"
    seed: int = 0
    levels: Mapping[Fidelity, LevelId] = field(default_factory=dict)
    start: tuple[Frame, ...] = ()
    conformers: Mapping[int, tuple[Frame, ...]] = field(default_factory=dict)
    seeds: Mapping[int, tuple[Frame, ...]] = field(default_factory=dict)
    open: Mapping[str, Command] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    labels: CampaignLabels = CampaignLabels()
    generations: Generations = Generations()
    exploration: ExplorationState = field(default_factory=ExplorationState)
    examination: ExaminationState = ExaminationState()
    finished: str | None = None
    broken: str | None = None
