"""The training tasks: a generation with its scorer, and short trainings on parts."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from alloop.acceptance import TrainedWith, check_model
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.prediction_errors import (
    frame_errors,
    largest_force_errors,
    prediction_errors,
)
from alloop.core.records import (
    LabelSet,
    ModelCheck,
    Predictions,
    Refinement,
    TrainingData,
)
from alloop.core.roles import Potential, Trainer
from alloop.core.seeds import torch_seed
from alloop.core.units import Floats
from alloop.evaluation import (
    TrainedGeneration,
    TrainedMember,
    TrainingInputs,
    calibrate,
    train_generation,
    train_member,
)
from alloop.generation import Generation, potential_from_bytes, to_bytes
from alloop.loop import events as e
from alloop.loop.commands import Train, TrainPart
from alloop.models.checkpoint import checkpoint_to_bytes
from alloop.refine.settings import TestTimeSettings
from alloop.training.label_changes import select_labels
from alloop.training.replay_trainer import replaying_trainer
from alloop.training.state_folder import StateFolder
from alloop.workers.settings import TaskData, WorkerSettings
from alloop.workers.spool import training_folder

if TYPE_CHECKING:
    from alloop.refine.test_time import TestTimeLabels


@dataclass(frozen=True, slots=True, eq=False)
class RefinedMember:
    """A refined potential, the record of its refinement, and the check on it."""

    member: TrainedMember
    refinement: Refinement
    check: ModelCheck


def perform_training(
    command: Train, task_data: TaskData, settings: WorkerSettings
) -> tuple[e.Trained, bytes]:
    """Train on the labels of a task; return the event without timing, and the blob.

    Potentials that were trained apart are taken from the task's data. Of a refinement,
    the potential is that of the generation before, trained at test time; one that
    cannot be is trained.
    """
    inputs = _training_inputs(command, task_data, settings)
    refined = None
    if command.refine:
        refinement = settings.refine or TestTimeSettings()
        refined = refined_member(command, inputs, task_data.test, refinement)
    trained = _trained_generation(command, task_data, settings, inputs, refined)
    evaluation = _evaluate_test(trained.generation, task_data.test)
    trained = _calibrated(trained, evaluation, task_data, settings)
    generation = _with_facts(trained.generation, command, evaluation)
    model, blob = to_bytes(generation)
    checks = _model_checks(
        generation=generation,
        command=command,
        inputs=inputs,
        task_data=task_data,
        evaluation=evaluation,
        settings=settings,
    )
    event = e.Trained(
        name=command.name,
        generation=command.generation,
        model=model,
        threshold=generation.threshold,
        evaluation=evaluation,
        landmarks=trained.fitted.landmarks,
        history=trained.history,
        calibrated_on=trained.fitted.calibrated_on,
        error_limits=generation.error_limits,
        threshold_from=trained.fitted.source,
        checks=(*(() if refined is None else (refined.check,)), *checks),
        refinement=None if refined is None else refined.refinement,
    )
    return event, blob


def _trained_generation(
    command: Train,
    task_data: TaskData,
    settings: WorkerSettings,
    inputs: TrainingInputs,
    refined: RefinedMember | None,
) -> TrainedGeneration:
    if refined is None:
        apart = task_data.trained
        trainer = _task_trainer(task_data, settings, command.length)
    else:
        apart = (refined.member,)
        trainer = settings.trainer  # which a refinement does not use
    return train_generation(trainer, inputs, apart, settings.restore_on_device)


def _calibrated(
    trained: TrainedGeneration,
    evaluation: e.Evaluation | None,
    task_data: TaskData,
    settings: WorkerSettings,
) -> TrainedGeneration:
    """Return the generation with its surprise calibrated on the test set, if any."""
    test = task_data.test
    if evaluation is None or test is None:
        return trained
    errors = largest_force_errors(test.batch, evaluation.forces, test.forces)
    return calibrate(
        trained=trained,
        surprise=evaluation.surprise,
        errors=errors,
        scoring=settings.scoring,
        ratios=task_data.ratios,
        batch=test.batch,
    )


def _model_checks(
    generation: Generation,
    command: Train,
    inputs: TrainingInputs,
    task_data: TaskData,
    evaluation: e.Evaluation | None,
    settings: WorkerSettings,
) -> tuple[ModelCheck, ...]:
    """Return the checks of a generation.

    Without an accepted one before it, it is compared with the potential that
    fine-tuning began with, where there is one.
    """
    if settings.acceptance is None:
        return ()
    data, sets = inputs.data, task_data.supplied.sets
    parent = inputs.parent if command.parent_accepted else None
    original = _original(task_data, settings) if parent is None and sets else None
    trained = TrainedWith(
        frames=(*data.expensive.batch.frames(), *data.cheap.batch.frames()),
        test=task_data.test,
        parent=parent,
        seed=inputs.seed,
        name=inputs.name,
        test_error=None if evaluation is None else evaluation.error,
        sets=sets,
        original=original,
    )
    return check_model(
        generation.potential, trained, settings.acceptance, settings.dynamics
    )


def _original(task_data: TaskData, settings: WorkerSettings) -> Potential | None:
    """Return the potential that fine-tuning began with, None without one."""
    blob = task_data.supplied.original
    if blob is not None:
        return potential_from_bytes(blob, settings.restore_on_device)
    trainer = settings.trainer
    return trainer.original() if isinstance(trainer, PretrainedTrainer) else None


@runtime_checkable
class PretrainedTrainer(Protocol):
    """A trainer that starts from a pretrained potential."""

    def original(self) -> Potential:
        """Return the pretrained potential, without reference energies."""
        ...


@runtime_checkable
class StepwiseTrainer(Protocol):
    """A trainer whose trainings can take fewer or more steps."""

    def scaled_steps(self, factor: float) -> Trainer:
        """Return the same trainer with `factor` times its steps."""
        ...


def train_part(
    command: TrainPart, task_data: TaskData, settings: WorkerSettings
) -> e.PartTrained:
    """Train briefly on a part of the labels; return its errors, without timing.

    A trainer without a number of steps trains in full.
    """
    if task_data.data is None or task_data.test is None:
        raise TypeError("TrainPart needs labels and judged frames in its data")
    trainer = _task_trainer(task_data, settings, command.share)
    name = f"part/{command.generation}"  # the same random stream for all parts
    potential, _ = trainer.train(task_data.data, None, torch_seed(settings.seed, name))
    judged = task_data.test
    errors = frame_errors(potential.predict(judged.batch), judged)
    return e.PartTrained(command.generation, command.part, errors)


def perform_member(
    command: Train, task_data: TaskData, settings: WorkerSettings
) -> TrainedMember:
    """Train one potential of a training that is split."""
    if task_data.member is None:
        raise TypeError("a split training needs the number of a member in its data")
    inputs = _training_inputs(command, task_data, settings)
    trainer = _task_trainer(task_data, settings, command.length)
    return train_member(trainer, inputs, task_data.member)


def _task_trainer(
    task_data: TaskData, settings: WorkerSettings, factor: float
) -> Trainer:
    """Return the trainer with `factor` times its steps, and frames to replay if any.

    A trainer without a number of steps is left as it is. Raises InputError where it
    cannot replay frames that there are.
    """
    trainer, supplied = settings.trainer, task_data.supplied
    if factor != 1.0 and isinstance(trainer, StepwiseTrainer):
        trainer = trainer.scaled_steps(factor)
    if supplied.replay is None or not settings.replay:
        return trainer
    blob = supplied.original
    original = (
        None if blob is None else potential_from_bytes(blob, settings.restore_on_device)
    )
    return replaying_trainer(trainer, supplied.replay, settings.replay, original)


def _training_inputs(
    command: Train, task_data: TaskData, settings: WorkerSettings
) -> TrainingInputs:
    if task_data.data is None:
        raise TypeError("Train needs labels in its data")
    parent, folder = None, None
    if task_data.model is not None:
        parent = potential_from_bytes(task_data.model, settings.restore_on_device)
    if settings.spool is not None and settings.spool.is_dir():  # it can be reached
        folder = training_folder(settings.spool, command.name)
    return TrainingInputs(
        data=task_data.data,
        heldout=task_data.heldout or pack_frames(()),
        scoring=settings.scoring,
        seed=settings.seed,
        name=command.name,
        parent=parent,
        folder=folder,
        replayed=task_data.supplied.replay if settings.replay else None,
    )


def _evaluate_test(
    generation: Generation, test: LabelSet | None
) -> e.Evaluation | None:
    if test is None or len(test) == 0:
        return None
    predictions = generation.predict(test.batch, descriptors=True)
    errors = prediction_errors(predictions, test)
    return e.Evaluation(
        frames=tuple(frame.id for frame in test.batch.frames()),
        energies=predictions.energies,
        forces=predictions.forces,
        surprise=_test_surprise(generation, test.batch, predictions),
        energy_mae=errors.energy_spread,
        force_mae=errors.force_mae,
        force_rmse=errors.force_rmse,
        energy_absolute=errors.energy_mae,
    )


def _test_surprise(
    generation: Generation, batch: Batch, predictions: Predictions
) -> Floats:
    if generation.scorer is None:
        return np.full(len(batch), np.nan)
    return generation.scorer.score(batch, predictions)


def _with_facts(
    generation: Generation, command: Train, evaluation: e.Evaluation | None
) -> Generation:
    facts: dict[str, int | float] = {
        "generation": command.generation,
        "cheap_labels": len(command.cheap),
        "expensive_labels": len(command.expensive),
    }
    if evaluation is not None:
        if evaluation.has_forces:
            facts["test_force_mae_eV_per_A"] = evaluation.force_mae
        else:
            facts["test_energy_spread_eV"] = evaluation.energy_mae
        facts["test_frames"] = len(evaluation.frames)
    return replace(generation, facts=facts)


_MILLI = 1e3


def refined_member(
    command: Train,
    inputs: TrainingInputs,
    test: LabelSet | None,
    settings: TestTimeSettings,
) -> RefinedMember | None:
    """Train the parent at test time on the cheap labels of `command.refine`.

    The other cheap labels are replayed, the expensive head is fitted again, and the
    validation set must not get worse. Where no share of the step may be kept, the
    smallest one comes back with a failed check. None where the parent cannot be
    refined: it has no cheap head, as before a change of `training:`, or an element is
    new to it.
    """
    from alloop.refine.test_time import (  # torch, which drivers do without
        require_elements,
        require_two_heads,
        train_at_test_time,
    )

    if inputs.parent is None or test is None:
        raise TypeError("a refinement needs a model and a validation set in its data")
    labels = _test_time_labels(command, inputs.data, test)
    try:
        potential = require_two_heads(inputs.parent)
        require_elements(potential, inputs.data.cheap.batch)
    except InputError:
        return None
    seeded = replace(settings, seed=torch_seed(inputs.seed, command.name))
    keeper = None if inputs.folder is None else StateFolder(inputs.folder)
    refined = train_at_test_time(potential, labels, seeded, keeper)
    blob = checkpoint_to_bytes(refined.potential.checkpoint())
    return RefinedMember(
        TrainedMember(0, blob, {}),
        Refinement(len(labels.cheap), refined.share, refined.cheap, refined.held),
        ModelCheck(
            "force error on held-out expensive labels",
            refined.held[1] * _MILLI,
            refined.limit * _MILLI,
            "meV/Å",
        ),
    )


def _test_time_labels(
    command: Train, data: TrainingData, held_out: LabelSet
) -> "TestTimeLabels":
    from alloop.refine.test_time import TestTimeLabels, thinned_labels

    chosen = set(command.refine)
    new = np.array([frame.id in chosen for frame in data.cheap.batch.frames()])
    others = select_labels(data.cheap, np.flatnonzero(~new))
    return TestTimeLabels(
        cheap=select_labels(data.cheap, np.flatnonzero(new)),
        held_out=held_out,
        replay=None if new.all() else thinned_labels(others),
        expensive=data.expensive,
    )
