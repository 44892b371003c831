"""The optimisation loop that every stage of a network training runs.

Muon or AdamW with a warm-up and a decay, clipped gradients, averaged weights. The
number of steps is planned before the loop starts; no later decision depends on a clock.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from alloop.models.network import Network
from alloop.training.gradients import GradientFunction
from alloop.training.graph_pool import GraphPool
from alloop.training.losses import LabelLoss, Objective
from alloop.training.monitor import LossCurve, TrainingMonitor, force_error
from alloop.training.optimisation import Optimisation
from alloop.training.progress import TrainingProgress
from alloop.training.saved_state import (
    StateKeeper,
    TrainingPosition,
    pack_state,
    training_name,
    unpack_state,
)
from alloop.training.schedule import averaging_decay, learning_rate
from alloop.training.stages import Stage
from alloop.training.step_engine import (
    StageBatches,
    StepPlanner,
    cpu_seconds,
    gradient_engine,
)

__all__ = [
    "LossCurve",
    "Progress",
    "StageOptions",
    "averaging_decay",
    "fit_network",
    "fit_stage",
    "force_error",
    "learning_rate",
]

Progress: TypeAlias = Callable[[str, int, int, float], None]  # stage, step, steps, loss


@dataclass(frozen=True, slots=True, eq=False)
class StageOptions:
    """The options of a stage besides its labels.

    validation: frames to compute errors on. progress is called with stage, step, steps
    and mean loss. objective: the loss to minimise, the schedule's loss on labels where
    it is None. keeper: stores states, to resume after a kill. ahead: steps of the whole
    training that the same compiled program serves, this stage's own where it is 0.
    """

    validation: GraphPool | None = None
    progress: Progress | None = None
    objective: Objective | None = None
    keeper: StateKeeper | None = None
    ahead: int = 0


def fit_network(
    network: Network,
    pool: GraphPool,
    stage: Stage,
    seed: int,
    validation: GraphPool | None = None,
    progress: Progress | None = None,
) -> tuple[Network, LossCurve]:
    """Run one stage on labelled frames; return the averaged network and its loss curve.

    The network given is not changed. Without a patience the last average is the result,
    with one the best. On one thread the same call gives the same bits.
    """
    return fit_stage(network, pool, stage, seed, StageOptions(validation, progress))


def fit_stage(
    network: Network, pool: GraphPool, stage: Stage, seed: int, aids: StageOptions
) -> tuple[Network, LossCurve]:
    """Run one stage like `fit_network`, with all options of a stage.

    With a keeper, a training that was killed resumes from its last saved state with
    bitwise equal results, and one that was finished is not run again. Raises
    FloatingPointError where the loss is not finite.
    """
    run = StageFit(
        network, StageBatches(pool, stage, seed, _stage_objective(stage, aids)), aids
    )
    run.start()
    run.run_steps()
    return run.result()


def _stage_objective(stage: Stage, aids: StageOptions) -> Objective:
    schedule = stage.schedule
    return aids.objective or LabelLoss(schedule.energy, schedule.norm)


class StageFit:
    """One stage while it runs: started or resumed, stepped, and read out."""

    def __init__(
        self, network: Network, lessons: StageBatches, aids: StageOptions
    ) -> None:
        schedule = lessons.stage.schedule
        self._lessons = lessons
        self._aids = aids
        self._name = (
            "" if aids.keeper is None else _training_name(network, lessons, aids)
        )
        self._walk = Optimisation(network, schedule)
        self._watch = TrainingMonitor(
            schedule.every, schedule.patience, aids.validation
        )
        self._at = TrainingPosition()
        self._clock = cpu_seconds()

    def start(self) -> None:
        """Resume from the saved state, or plan the stage where there is none."""
        keeper = self._aids.keeper
        state = None if keeper is None else keeper.load(self._name)
        if state is not None:
            self._at = unpack_state(state, self._walk, self._watch)
            return
        planner = StepPlanner(self._walk, self._lessons, self._aids.ahead)
        self._at.planned, self._at.compile = planner.plan_steps()
        if self._lessons.stage.schedule.seconds is not None:
            self._keep()  # the plan was measured; a resumed run must not measure again

    def run_steps(self) -> None:
        """Take the remaining steps, unless the stage's patience is exhausted."""
        if not self._goes_on():
            return
        slopes, self._at.engine = gradient_engine(
            self._walk.network, self._lessons, self._at.compile
        )
        while self._goes_on():
            self._step(slopes)
            if self._aids.keeper is not None and self._aids.keeper.due():
                self._keep()
        self._keep()

    def result(self) -> tuple[Network, LossCurve]:
        """Return the network and its loss curve.

        The network is the averaged one, or the best average where there is a patience.
        """
        watch, at, network = self._watch, self._at, self._walk.average
        if watch.patience is not None and watch.best is not None:
            network.load_state_dict(watch.best)
        return network, LossCurve(
            steps=tuple(watch.steps),
            losses=tuple(watch.losses),
            validation=tuple(watch.errors),
            planned=at.planned,
            engine=at.engine,
            cpu_seconds=at.cpu_seconds + cpu_seconds() - self._clock,
        )

    def _goes_on(self) -> bool:
        return self._at.step < self._at.planned and self._watch.is_improving

    def _step(self, slopes: GradientFunction) -> None:
        at, stage = self._at, self._lessons.stage.name
        slope = slopes(*self._lessons.batch_at(at.step))
        self._walk.step(at.step, at.planned, slope)
        loss = _finite_loss(slope.loss.item(), stage, at.step)
        at.step += 1
        last = at.step == at.planned
        if self._watch.add_step(at.step, loss, last, self._walk.average):
            self._tell(
                TrainingProgress(stage, at.step, at.planned, self._watch.losses[-1])
            )

    def _tell(self, told: TrainingProgress) -> None:
        if self._aids.progress is not None:
            self._aids.progress(told.stage, told.step, told.steps, told.loss)
        if self._aids.keeper is not None:
            self._aids.keeper.tell(told)

    def _keep(self) -> None:
        if self._aids.keeper is None:
            return
        now = cpu_seconds()
        self._at.cpu_seconds += now - self._clock
        self._clock = now
        state = pack_state(self._walk, self._watch, self._at)
        self._aids.keeper.save(self._name, state)


def _training_name(network: Network, lessons: StageBatches, aids: StageOptions) -> str:
    decisive = (lessons.stage, lessons.seed, lessons.objective, aids.ahead)
    return training_name(network, (lessons.pool, aids.validation), decisive)


def _finite_loss(loss: float, stage: str, step: int) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"expected a finite loss, got {loss} in stage {stage} at step {step}; "
            "lower the stage's lr or look for labels that cannot be right"
        )
    return loss
