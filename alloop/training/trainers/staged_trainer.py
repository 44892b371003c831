"""The trainer that runs a list of stages.

ASTEROID, standard training, pretraining alone and whatever lies between them are lists
of stages; `alloop.training.stages` has the usual ones.

A network with a cheap and an expensive head on one representation is trained as in
Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (section 4.2): it is trained on
cheap labels, its representation is frozen, and a copy of its head is fine-tuned on
expensive ones. So both heads stand on features that the cheap level shaped, and
gradient steps on cheap labels move them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.core.seeds import held_out
from alloop.models.heads import free_only, head_names
from alloop.potentials.devices import Device, torch_device
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.repulsion import ZBL, Zbl
from alloop.potentials.two_heads import CheapHead, TwoHeadPotential
from alloop.training.bias_weights import DEFAULT, Gamma
from alloop.training.dipole_fit import fit_dipoles
from alloop.training.fit import Progress
from alloop.training.graph_pool import force_scale
from alloop.training.label_changes import References, level_references, select_labels
from alloop.training.replay import (
    Replay,
    ReplayedLabels,
    fitted_references,
    replayed_labels,
)
from alloop.training.stages import (
    FINE_TUNING,
    SCHEDULE,
    STEPS,
    Adapters,
    Fidelity,
    Schedule,
    Stage,
    asteroid_stages,
    standard_stages,
)
from alloop.training.state_folder import StateKeeper
from alloop.training.trainers.stage_runner import (
    StageRunner,
    TrainingState,
    training_history,
)

_ENERGY_RATE, _ENERGY_STEPS = 0.1, 6  # factors of stages on energies alone


@dataclass(frozen=True, slots=True, eq=False)
class StagedTrainer:
    """A trainer that runs a network through a list of stages; implements Trainer.

    kind and settings are those of `alloop.models.network.build_network`. gammas: one γ,
    or several, of which the one with the least validation error after the last stage is
    taken. least: the share of the cheap frames that the weights must leave effective.
    validation: the share of the expensive frames that is held out, by the hash of their
    ids. given: reference energies (eV) by fidelity and atomic number; fitted where
    there are none. progress is called with stage, step, steps and mean loss. With a
    keeper, a training that was killed resumes from its last saved state. repulsion: a
    fixed potential added to the network, which learns the labels less it. replay:
    frames that fine-tuning goes on learning; references are then fitted to the labels
    less the energies of the network that it starts from, and with `own_head` they have
    readouts of their own. adapters: what is trained instead of matrices. device: where
    networks are trained; InputError in `train` where there is none. dipoles: whether
    the potential learns those of the labels, see `alloop.training.dipole_fit`.
    """

    kind: str
    settings: Mapping[str, Any]
    stages: tuple[Stage, ...]
    gammas: tuple[Gamma, ...] = (DEFAULT,)
    least: float = 0.3
    validation: float = 0.0
    given: Mapping[Fidelity, Mapping[int, float]] = field(default_factory=dict)
    progress: Progress | None = None
    keeper: StateKeeper | None = None
    repulsion: Zbl | None = ZBL
    replay: Replay | None = None
    own_head: bool = False
    adapters: Adapters | None = None
    device: Device = "cpu"
    dipoles: bool = False

    def __post_init__(self) -> None:
        if len(self.gammas) > 1 and self.validation <= 0.0:
            raise InputError(
                f"expected held-out frames to choose among {len(self.gammas)} gammas, "
                "got validation = 0; set a share of frames, or give one gamma"
            )

    def scaled_steps(self, factor: float) -> "StagedTrainer":
        """Return the same trainer with `factor` times the steps of each stage."""
        stages = (
            replace(stage, steps=ceil(factor * stage.steps)) for stage in self.stages
        )
        return replace(self, stages=tuple(stages))

    def replaying(self, replay: Replay) -> "StagedTrainer":
        """Return the same trainer, which replays these frames too."""
        return replace(self, replay=replay)

    def saving_to(self, keeper: StateKeeper) -> "StagedTrainer":
        """Return the same trainer, which resumes from the keeper's states."""
        return replace(self, keeper=keeper)

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[LearnedPotential, dict[str, Any]]:
        """Return the potential of the last stage's level, and the training history.

        history["bias"] holds B in eV/Å of each cheap frame, in their order. Where one
        level has no labels, the first stage on the other gets all steps.
        """
        stages = runnable_stages(self.stages, data)
        if self.repulsion is not None:
            without = self.repulsion.without
            data = TrainingData(without(data.cheap), without(data.expensive))
        runner = self._stage_runner(data, parent, seed)
        state = best_training(runner, stages, self.gammas)
        history = training_history(state, runner.scale)
        if (error := runner.replay_error(state)) is not None:
            history["replayed/force_mae"] = error
        return self._with_dipoles(runner.final_potential(state), data, seed, history)

    def _with_dipoles(
        self,
        potential: LearnedPotential,
        data: TrainingData,
        seed: int,
        history: dict[str, Any],
    ) -> tuple[LearnedPotential, dict[str, Any]]:
        if not self.dipoles:
            return potential, history
        fitted = fit_dipoles(potential, (data.cheap, data.expensive), seed)
        if fitted is None:
            return potential, {**history, "dipole/frames": 0}
        facts = {"dipole/frames": fitted.frames, "dipole/mae": fitted.error}
        return fitted.potential, {**history, **facts}

    def _stage_runner(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> StageRunner:
        training, held_out = held_out_split(data.expensive, self.validation)
        levels: dict[Fidelity, LabelSet] = {"cheap": data.cheap, "expensive": training}
        learned = parent if isinstance(parent, LearnedPotential) else None
        if learned is None and self.replay is not None:
            learned = self.replay.original
        start = learned if any(s.start == "parent" for s in self.stages) else None
        references = self._references(levels, start)
        scaled = len(training) and training.has_forces
        scale = force_scale(training if scaled else data.cheap)
        return StageRunner(
            kind=self.kind,
            settings=self.settings,
            labels=levels,
            references=references,
            held_out=held_out,
            scale=start.scale if start else scale,
            parent=start.network if start else None,
            least=self.least,
            seed=seed,
            progress=self.progress,
            keeper=self.keeper,
            repulsion=self.repulsion,
            replayed=self._replayed(start),
            own_head=self.own_head,
            adapters=self.adapters,
            device=torch_device(self.device),
        )

    def _references(
        self, levels: Mapping[Fidelity, LabelSet], start: LearnedPotential | None
    ) -> dict[Fidelity, References]:
        energies = dict(self.given)
        if self.replay is not None and start is not None:
            network, scale = start.frozen_network, start.scale
            for level, labels in levels.items():
                if level not in energies and len(labels):
                    energies[level] = fitted_references(network, labels, scale)
        return {
            level: level_references(labels, energies.get(level))
            for level, labels in levels.items()
        }

    def _replayed(self, start: LearnedPotential | None) -> ReplayedLabels | None:
        if self.replay is None:
            return None
        original = self.replay.original or start
        if original is None:
            raise InputError(
                "expected a trained potential whose frames are replayed, got a new "
                "network; start from a universal potential or a model file"
            )
        return replayed_labels(self.replay, original)


def best_training(
    runner: StageRunner, stages: Sequence[Stage], gammas: Sequence[Gamma]
) -> TrainingState:
    """Run all stages and return the state of the training.

    Of several γ, the one whose last stage has the least error on the held-out frames is
    taken. Stages before the first weighted one run once.
    """
    runner = replace(runner, stages=tuple(stages))
    weighed = [i for i, stage in enumerate(stages) if stage.weights != "uniform"]
    first = weighed[0] if weighed else len(stages)
    start = TrainingState(runner.first_network(stages[0]))
    common = runner.run_stages(start, stages[:first], gammas[0])
    tried = gammas if weighed else gammas[:1]
    states = [runner.run_stages(common, stages[first:], gamma) for gamma in tried]
    return min(states, key=runner.validation_error)


def runnable_stages(stages: Sequence[Stage], data: TrainingData) -> tuple[Stage, ...]:
    """Return the stages with steps that these labels allow.

    Where a level has no labels, the first stage on the other level gets all steps:
    ASTEROID without cheap labels is standard training. See `unweighted_stages` for
    expensive labels without forces. Raises InputError where there are no labels for any
    stage.
    """
    present: list[Fidelity] = ["cheap"] if len(data.cheap) else []
    present += ["expensive"] if len(data.expensive) else []
    if not data.expensive.has_forces:
        stages = unweighted_stages(stages)
    active = tuple(stage for stage in stages if stage.steps > 0)
    if all(level in present for stage in active for level in stage.levels):
        return active
    usable = [stage for stage in active if set(stage.levels) & set(present)]
    if not usable:
        raise InputError(
            f"expected labels for one of the stages {[s.name for s in stages]}, got "
            "none; label some frames first"
        )
    return (
        _single_level_stage(
            usable[0], present[0], sum(stage.steps for stage in stages)
        ),
    )


def unweighted_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages for expensive labels that are energies alone.

    ASTEROID's bias compares forces, which no network has learned from a few energies:
    all cheap frames count alike, and a stage on expensive labels whose network the next
    one does not go on with leaves its steps to that. Stages on energies take six
    times the steps, which cost half, at a tenth of the rate: at higher rates forces
    become rough between the energies (`docs/benchmarks/training.md`).
    """
    plain = [replace(stage, weights="uniform") for stage in stages]
    for index, (stage, after) in enumerate(pairwise(plain)):
        if stage.on == "expensive" and after.start != "previous":
            plain[index] = replace(stage, steps=0)
            plain[index + 1] = replace(after, steps=stage.steps + after.steps)
    return tuple(
        _slower_stage(stage) if stage.on == "expensive" else stage for stage in plain
    )


def _slower_stage(stage: Stage) -> Stage:
    schedule = replace(stage.schedule, lr=_ENERGY_RATE * stage.schedule.lr)
    return replace(stage, schedule=schedule, steps=_ENERGY_STEPS * stage.steps)


def _single_level_stage(stage: Stage, level: Fidelity, steps: int) -> Stage:
    start = "scratch" if stage.start == "previous" else stage.start
    return replace(
        stage, on=level, steps=steps, start=start, weights="uniform", labels="plain"
    )


def held_out_split(
    labels: LabelSet, fraction: float
) -> tuple[LabelSet, LabelSet | None]:
    """Return training and held-out labels, chosen by each frame's id alone.

    Nothing is held out where one side would be empty.
    """
    ids = [frame.id for frame in labels.batch.frames()] if fraction > 0.0 else []
    chosen = held_out(ids, fraction)
    if not chosen:
        return labels, None
    out = np.array([id in chosen for id in ids], dtype=np.bool_)
    return select_labels(labels, np.flatnonzero(~out)), select_labels(
        labels, np.flatnonzero(out)
    )


def asteroid_trainer(
    kind: str, settings: Mapping[str, Any], **options: Any
) -> StagedTrainer:
    """Return a trainer with ASTEROID's default stages; options are StagedTrainer's."""
    return StagedTrainer(kind, settings, asteroid_stages(), **options)


def standard_trainer(
    kind: str, settings: Mapping[str, Any], **options: Any
) -> StagedTrainer:
    """Return a trainer on expensive labels alone, with as many steps as ASTEROID.

    options are StagedTrainer's.
    """
    return StagedTrainer(kind, settings, standard_stages(), **options)


@dataclass(frozen=True, slots=True, eq=False)
class TwoHeadTrainer(StagedTrainer):
    """A trainer of two stages, see `two_head_stages`; implements Trainer."""

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[TwoHeadPotential, dict[str, Any]]:
        """Return the potential of the expensive level, and the training history.

        Raises InputError where a level has no labels, and for networks of other kinds
        than `alloop.models.settings.HEADED`.
        """
        for level, labels in (("cheap", data.cheap), ("expensive", data.expensive)):
            if not len(labels):
                raise InputError(
                    f"expected {level} labels for the {level} head of the network, got "
                    "none; label some frames first"
                )
        if self.repulsion is not None:
            without = self.repulsion.without
            data = TrainingData(without(data.cheap), without(data.expensive))
        runner = replace(self._stage_runner(data, parent, seed), stages=self.stages)
        prior, head = self.stages
        first = runner.first_network(prior)
        names = head_names(first)
        (gamma, *_) = self.gammas
        before = runner.run_stages(TrainingState(first), [prior], gamma)
        free_only(before.network, names)
        state = runner.run_stages(before, [head], gamma)
        cheap = CheapHead.of(before.network, runner.references["cheap"])
        history = training_history(state, runner.scale)
        return TwoHeadPotential(runner.final_potential(state), cheap), history


def two_head_stages(
    steps: tuple[int, int] = (STEPS[0] + STEPS[1], STEPS[2]),
    schedule: Schedule = SCHEDULE,
    fine_tuning: float = FINE_TUNING,
) -> tuple[Stage, Stage]:
    """Return the stages of a network with two heads: prior, then the expensive head.

    fine_tuning: the peak learning rate of the head.
    """
    fine = replace(schedule, lr=fine_tuning)
    prior = Stage("prior", "cheap", steps[0], "scratch", schedule=schedule)
    return prior, Stage("head", "expensive", steps[1], schedule=fine)
