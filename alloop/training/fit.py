"""The optimisation loop that every stage of a network training runs.

Muon or AdamW with a warm-up and a decay, clipped gradients, averaged weights. The
number of steps is planned before the loop starts; no later decision depends on a clock.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.models.compilation import NotCompiled
from alloop.models.network import Network
from alloop.training.compiled_gradients import compile_gradients, record_gradients
from alloop.training.graph_pool import GraphPool
from alloop.training.losses import (
    GradientFunction,
    LossGradient,
    eager_gradients,
)
from alloop.training.stage_state import PLAIN, StageState, StageTask
from alloop.training.stages import Stage, bounded_steps, worth_compiling
from alloop.training.state_folder import StateKeeper, TrainingProgress

Progress: TypeAlias = Callable[[str, int, int, float], None]  # stage, step, steps, loss

_TIMED = 5  # steps
_WORTH_RECORDING = 1000  # steps


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The losses and errors that a stage recorded.

    steps: when they were recorded. losses: the mean loss since the previous record.
    validation: the error on the validation frames where there are some, in eV/Å, or in
    eV where these have no forces (see `label_error`).
    planned: the number of steps planned. engine: how steps were computed, "compiled" or
    "plain", with the reason where compilation failed. cpu_seconds: of all runs of the
    stage, compilers included.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    planned: int = 0
    engine: str = PLAIN
    cpu_seconds: float = field(default=0.0, compare=False)


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
    task = StageTask(network, pool, stage, seed, validation)
    return fit_stage(task, progress=progress)


def fit_stage(
    task: StageTask,
    keeper: StateKeeper | None = None,
    progress: Progress | None = None,
) -> tuple[Network, LossCurve]:
    """Run one stage; return the averaged network and its loss curve.

    keeper: stores states. With one, a stage that was killed resumes from its last saved
    state with bitwise equal results, and one that was finished is not run again.
    progress: called with stage, step, steps and mean loss. Raises FloatingPointError
    where the loss is not finite.
    """
    clock, state = _CpuClock(), StageState(task.network, task.schedule)
    name = "" if keeper is None else task.fingerprint
    states = keeper or _NoKeeper()

    def save() -> None:
        state.cpu_seconds += clock.lap()
        states.save(name, state.save())

    saved = states.load(name)
    if saved is not None:
        state.load(saved)
    else:
        state.planned, state.compile = plan_steps(task, state)
        if task.schedule.seconds is not None:
            save()  # the plan was measured; a resumed run must not measure again
    if not state.is_finished():
        gradients = _resumed_engine(task, state)
        while not state.is_finished():
            if _take_step(task, state, gradients):
                _report(task, state, states, progress)
            if states.should_save():
                save()
        save()
    return state.result(), _loss_curve(state, clock.lap())


def _resumed_engine(task: StageTask, state: StageState) -> GradientFunction:
    if state.parts > 1:  # programs are made for whole batches
        return eager_gradients(state.network, task.loss)
    gradients, state.engine = gradient_engine(state.network, task, state.compile)
    return gradients


def gradient_engine(
    network: Network, task: StageTask, compile_it: bool
) -> tuple[GradientFunction, str]:
    """Return a gradient function of a network, and a description of it.

    The function is compiled where that is wanted and possible. The description is that
    of `LossCurve.engine`.
    """
    plain = eager_gradients(network, task.loss)
    if not compile_it:
        return _recorded_gradients(network, task) or plain, PLAIN
    try:
        compiled = compile_gradients(
            network, task.loss, task.batch_at(0), task.has_mixed_batches
        )
    except (NotCompiled, torch.OutOfMemoryError) as why:
        return plain, f"{PLAIN}, not compiled: {why}"
    return compiled, "compiled"


def _recorded_gradients(network: Network, task: StageTask) -> GradientFunction | None:
    """Return recorded gradients where they save time, which give plain torch's bits."""
    steps = max(task.stage.steps, task.ahead)
    if steps < _WORTH_RECORDING or task.has_mixed_batches:
        return None
    try:
        return record_gradients(network, task.loss, task.batch_at(0))
    except (NotCompiled, torch.OutOfMemoryError):
        return None


def plan_steps(task: StageTask, state: StageState) -> tuple[int, bool]:
    """Return the number of steps and whether to compile them.

    Only a stage with a time budget is timed: uncompiled, and once more compiled where
    the steps that fit are worth compiling.
    """
    schedule = task.schedule
    limit = bounded_steps(task.stage.steps, len(task.pool), schedule)
    if schedule.seconds is None:
        return limit, _is_worth_compiling(task, limit)
    steps = min(limit, _steps_within(schedule.seconds, task, state, compiled=False))
    if not _is_worth_compiling(task, steps):
        return steps, False
    steps = min(limit, _steps_within(schedule.seconds, task, state, compiled=True))
    return steps, True


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children (compilers)."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class _NoKeeper:
    """A keeper that stores nothing."""

    def should_save(self) -> bool:
        return False

    def save(self, name: str, state: Checkpoint) -> None: ...

    def load(self, name: str) -> Checkpoint | None:  # noqa: ARG002
        return None

    def report(self, progress: TrainingProgress) -> None: ...


class _CpuClock:
    """A clock of CPU seconds since the last lap."""

    def __init__(self) -> None:
        self._last = cpu_seconds()

    def lap(self) -> float:
        before, self._last = self._last, cpu_seconds()
        return self._last - before


def _take_step(task: StageTask, state: StageState, gradients: GradientFunction) -> bool:
    """Take a step; return True if a record was made."""
    gradient = batch_gradient(task, state, gradients, state.step)
    state.descend(gradient, state.step, state.planned)
    loss = gradient.loss.item()
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"expected a finite loss, got {loss} in stage {task.stage.name} at step "
            f"{state.step}; lower the stage's lr or look for labels that cannot be "
            "right"
        )
    return state.add_loss(loss, task.validation)


def batch_gradient(
    task: StageTask, state: StageState, gradients: GradientFunction, step: int
) -> LossGradient:
    """Return loss and gradient of the batch of a step.

    Whenever memory runs out, the batch is divided into twice as many parts, whose
    gradients are added; later batches are too. Raises InputError where a single frame
    does not fit.
    """
    while True:
        engine = gradients
        if state.parts > 1:
            engine = eager_gradients(state.network, task.loss)
        try:
            parts = task.parts_at(step, state.parts)
            return _sum_gradients(engine(*part) for part in parts)
        except torch.OutOfMemoryError:
            pass
        _divide_batches(task, state)  # out here, the error holds no tensors


def _sum_gradients(parts: Iterator[LossGradient]) -> LossGradient:
    total = next(parts)
    for part in parts:
        gradients = torch._foreach_add(total.gradients, part.gradients)
        total = LossGradient(total.loss + part.loss, tuple(gradients))
    return total


def _divide_batches(task: StageTask, state: StageState) -> None:
    frames = min(task.schedule.batch, len(task.pool))
    if state.parts >= frames:
        raise InputError(
            f"expected a frame that fits into the memory of {task.pool.graph.z.device} "
            f"in training, one of the stage {task.stage.name} does not; choose a "
            "smaller network, or `device: cpu`"
        )
    state.parts = min(2 * state.parts, frames)
    state.engine = f"{PLAIN}, in {state.parts} parts, since a batch exceeds the memory"
    torch.cuda.empty_cache()


def _report(
    task: StageTask, state: StageState, keeper: StateKeeper, progress: Progress | None
) -> None:
    stage, loss = task.stage.name, state.losses[-1]
    if progress is not None:
        progress(stage, state.step, state.planned, loss)
    keeper.report(TrainingProgress(stage, state.step, state.planned, loss))


def _loss_curve(state: StageState, seconds: float) -> LossCurve:
    return LossCurve(
        steps=tuple(state.steps),
        losses=tuple(state.losses),
        validation=tuple(state.errors),
        planned=state.planned,
        engine=state.engine,
        cpu_seconds=state.cpu_seconds + seconds,
    )


def _is_worth_compiling(task: StageTask, steps: int) -> bool:
    edges = task.batch_at(0)[0].edge_index.shape[1]
    saved = task.network.compiled_saving
    return worth_compiling(max(steps, task.ahead), edges, saved, task.schedule)


def _steps_within(
    seconds: float, task: StageTask, state: StageState, compiled: bool
) -> int:
    """Return the number of steps that fit into `seconds` of CPU time.

    A few steps are timed.
    """
    gradients, _ = gradient_engine(state.network, task, compiled)
    trial = copy.deepcopy(state)
    began = 0.0
    for index in range(_TIMED + 1):
        gradient = batch_gradient(task, trial, gradients, index)
        trial.descend(gradient, index, _TIMED + 1)
        began = began or time.process_time()  # the first one only warms up
    state.parts = trial.parts
    step_seconds = (time.process_time() - began) / _TIMED
    return max(1, int(seconds / step_seconds))
