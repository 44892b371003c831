"""Training jobs: from labels to a model file, a history and a table of errors.

They are prepared from YAML files, from stores or from sections.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from alloop.config.build import (
    make_trainer,
    network_settings,
    replay_share,
    scorer_settings,
)
from alloop.config.sections.plan import Plan
from alloop.config.sections.training import BiasWeighedSection, Standard
from alloop.config.starting_data import frames_digest, read_replay, replays
from alloop.config.train_sections import (
    chosen_preset,
    preset_name,
    training_plan,
    with_preset,
)
from alloop.core.batch import Batch
from alloop.core.prediction_errors import (
    ErrorSummary,
    largest_force_errors,
    prediction_errors,
)
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Trainer
from alloop.core.settings import identity
from alloop.evaluation import (
    TrainedGeneration,
    TrainingInputs,
    calibrate,
    train_generation,
)
from alloop.files.targets import MODELS, refuse_target, replace_atomically
from alloop.generation import Generation, potential_from_bytes, to_bytes
from alloop.jobs.train_data import HeldOutShares, TrainMaterial, read_material
from alloop.models.settings import is_pretrained
from alloop.scores.calibrate import ScorerSettings
from alloop.training.fit import Progress
from alloop.training.label_changes import joined_labels
from alloop.training.replay_trainer import replaying_trainer
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential

Rows: TypeAlias = Mapping[str, ErrorSummary]
_STREAM = "train"  # name of the training's random stream
_VALIDATION = 0.1  # default share of the expensive frames


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A trained generation, its history, and its errors by the name of a set.

    before: errors of an untrained universal potential, with fitted references.
    """

    generation: Generation
    history: Mapping[str, Any]
    errors: Rows
    before: Rows


@dataclass(frozen=True, slots=True, eq=False)
class TrainJob:
    """A training job: plan, labels and output file.

    model: the generation that the potential starts from, if the plan names one. replay:
    frames that fine-tuning goes on learning, with or without labels. preset: the name
    of that which the plan was completed with, None without one.
    """

    plan: Plan
    material: TrainMaterial
    shares: HeldOutShares
    out: Path
    model: bytes | None = None
    replay: LabelSet | Batch | None = None
    preset: str | None = None

    @property
    def length(self) -> str:
        """The length of the training: `12000 steps in batches of 5`."""
        training = self.plan.training or Standard(kind="standard")
        return f"{training.total} steps in batches of {training.batch}"

    @property
    def history_file(self) -> Path:
        """The JSON file of the history, beside the model."""
        return self.out.with_name(f"{self.out.name}.json")

    @property
    def state_folder(self) -> Path:
        """The folder of the training state, for resuming; removed at the end."""
        return self.out.with_name(f"{self.out.name}.training")

    @property
    def request(self) -> str:
        """A hash of plan, shares, labels and start model, as 32 hexadecimal digits."""
        digest = hashlib.sha256(self.plan.model_dump_json().encode())
        digest.update(json.dumps(identity(self.shares), sort_keys=True).encode())
        digest.update(self.model or b"")
        if self.replay is not None:
            digest.update(frames_digest(self.replay))
        for labels in label_sets(self.material).values():
            for part in (*(frame.id for frame in labels.batch.frames()), "end"):
                digest.update(part.encode())
            for array in (labels.energies, labels.forces):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def done(self) -> bool:
        """Return True if the model exists already and is the result of this request."""
        return self.out.is_file() and self._answered()

    def check_request(self, force: bool = False) -> None:
        """Raise InputError if a file cannot be written, or another one is there.

        force: replace it. Files of an earlier run of the same request are accepted.
        """
        refuse_target(self.out, MODELS, force=force)
        taken = not (self.state_folder.is_dir() or self._answered())
        refuse_target(self.history_file, (".json",), force=force, taken=taken)

    def _answered(self) -> bool:
        """Return True if the history beside the model is that of this request."""
        try:
            history = json.loads(self.history_file.read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(history, dict) and history.get("request") == self.request

    def run(self, observe: Progress) -> TrainedModel:
        """Train, write the model and its history, and return both with the errors.

        A training that was interrupted or killed is resumed from its saved state.
        observe: called with stage, step, steps and loss; an exception in it ends the
        training. Raises InputError where the labels cannot be learned from.
        """
        trained = self._train_model(observe)
        text = json.dumps(self._history_json(trained), indent=1, sort_keys=True)
        with replace_atomically(self.history_file) as partial:
            partial.write_text(text, encoding="utf-8")
        with replace_atomically(self.out) as partial:  # last: marks the end
            partial.write_bytes(to_bytes(trained.generation)[1])
        shutil.rmtree(self.state_folder, ignore_errors=True)
        return trained

    def starting_errors(self) -> Rows:
        """Return the errors of a universal potential before the first step, or none.

        By name: the potential as it comes, with fitted references, and the start.
        """
        trainer = self._observed_trainer(None)
        if not isinstance(trainer, UniversalTrainer):
            return {}
        data = self.material
        expensive = (
            joined_labels(data.expensive, data.validation)
            if len(data.validation)
            else data.expensive
        )
        errors = trainer.starting_errors(
            TrainingData(data.cheap, expensive), self._start_model()
        )
        return {} if errors is None else errors.rows

    def _train_model(self, observe: Progress) -> TrainedModel:
        data = self.material
        trainer = self._replaying_trainer(self._observed_trainer(observe))
        own_split = isinstance(trainer, StagedTrainer | UniversalTrainer)
        inputs = TrainingInputs(
            data=TrainingData(data.cheap, data.expensive),
            heldout=data.validation.batch,
            scoring=scorer_settings(self.plan),
            seed=self.plan.seed,
            name=_STREAM,
            parent=self._start_model(),
            monitored=data.validation if own_split else None,
            folder=self.state_folder,
            replayed=self.replay if replay_share(self.plan) else None,
        )
        trained = train_generation(trainer, inputs)
        errors = set_errors(trained.generation.potential, data)
        trained = _calibrated(trained, data.validation, inputs.scoring)
        facts = _model_facts(data, errors)
        generation = replace(trained.generation, facts=facts)
        before = self._untrained_errors()
        return TrainedModel(generation, trained.history, errors, before)

    def _observed_trainer(self, observe: Progress | None) -> Trainer:
        match make_trainer(self.plan):
            case StagedTrainer() as staged:
                return self._with_progress(staged, observe)
            case UniversalTrainer(staged=staged):
                return UniversalTrainer(self._with_progress(staged, observe))
            case other:
                return other

    def _start_model(self) -> Potential | None:
        return None if self.model is None else potential_from_bytes(self.model)

    def _replaying_trainer(self, trainer: Trainer) -> Trainer:
        share = replay_share(self.plan)
        if self.replay is None or not share:
            return trainer
        return replaying_trainer(trainer, self.replay, share, self._start_model())

    def _with_progress(
        self, staged: StagedTrainer, observe: Progress | None
    ) -> StagedTrainer:
        validation = self.shares.validation if len(self.material.validation) else 0.0
        return replace(staged, validation=validation, progress=observe)

    def _untrained_errors(self) -> Rows:
        kind, settings = network_settings(self.plan)
        if not is_pretrained(kind) or self.model is not None:
            return {}
        return set_errors(
            untrained_potential(kind, settings, self.material.expensive), self.material
        )

    def _history_json(self, trained: TrainedModel) -> dict[str, Any]:
        """Return the JSON tree of the history; energies in eV, forces in eV/Å."""
        return {
            "request": self.request,
            "potential": self.plan.potential.model_dump(mode="json"),
            "training": self.plan.training
            and self.plan.training.model_dump(mode="json"),
            "preset": self.preset,
            "seed": self.plan.seed,
            "labels": {name: len(x) for name, x in label_sets(self.material).items()},
            "errors": {name: _summary_json(x) for name, x in trained.errors.items()},
            "errors_before": {
                name: _summary_json(x) for name, x in trained.before.items()
            },
            "threshold": trained.generation.threshold,
            "history": dict(trained.history),
        }


def _summary_json(summary: ErrorSummary) -> dict[str, float | None]:
    """Return the errors, None for those of forces where no label has some."""
    return {k: v if np.isfinite(v) else None for k, v in asdict(summary).items()}


def label_sets(material: TrainMaterial) -> dict[str, LabelSet]:
    """Return the labels by the name of their set, the held-out sets last."""
    return {
        "cheap": material.cheap,
        "expensive": material.expensive,
        "validation": material.validation,
        "test": material.test,
    }


def set_errors(
    potential: Potential, material: TrainMaterial
) -> dict[str, ErrorSummary]:
    """Return the errors of a potential on each set that is not empty."""
    return {
        name: prediction_errors(potential.predict(labels.batch), labels)
        for name, labels in label_sets(material).items()
        if len(labels)
    }


def _calibrated(
    trained: TrainedGeneration, labels: LabelSet, scoring: ScorerSettings
) -> TrainedGeneration:
    """Return the generation, calibrated on these labels where there are any."""
    model = trained.generation
    if model.scorer is None or not len(labels):
        return trained
    said = model.predict(labels.batch, descriptors=True)
    surprise = model.scorer.score(labels.batch, said)
    errors = largest_force_errors(labels.batch, said.forces, labels.forces)
    return calibrate(trained, surprise, errors, scoring, batch=labels.batch)


def _model_facts(material: TrainMaterial, errors: Rows) -> dict[str, int | float]:
    facts: dict[str, int | float] = {
        "cheap_labels": len(material.cheap),
        "expensive_labels": len(material.expensive),
        "validation_frames": len(material.validation),
    }
    if "test" in errors:
        if np.isfinite(errors["test"].force_mae):
            facts["test_force_mae_eV_per_A"] = errors["test"].force_mae
        else:
            facts["test_energy_spread_eV"] = errors["test"].energy_spread
        facts["test_frames"] = errors["test"].frames
    return facts


def prepare_training(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    validation: float | None = None,
    test_share: float = 0.0,
    preset: str | None = None,
) -> TrainJob:
    """Return the training that a YAML file, a store or a mapping of sections describes.

    Arguments are those of `train`. Creates no files; raises InputError for errors in
    the sections and their labels.
    """
    name = preset_name(preset)
    sections = source if isinstance(source, Mapping) else read_sections(Path(source))
    plan, model = training_plan(dict(sections))
    share_of_file = (
        plan.training.validation
        if isinstance(plan.training, BiasWeighedSection)
        else 0.0
    )
    share = share_of_file or _VALIDATION if validation is None else validation
    shares = HeldOutShares(share, test_share)
    replay = read_replay(plan, Path())[0] if replays(plan) else None
    data = read_material(plan, shares)
    labels = len(data.expensive)
    chosen = name or chosen_preset(plan, len(data.cheap), labels)
    if chosen is not None:
        plan = with_preset(plan, chosen, labels)
    return TrainJob(
        plan=plan,
        material=data,
        shares=shares,
        out=Path(out),
        model=model,
        replay=replay,
        preset=chosen,
    )


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections that a YAML file or a store stands for."""
    if path.is_dir():
        store = {"store": str(path)}
        return {"start": [store], "test": store}
    return {"extends": [str(path)]}


def train(  # noqa: PLR0913 - one keyword for each option of the command
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    validation: float | None = None,
    test_share: float = 0.0,
    preset: str | None = None,
    force: bool = False,
    observe: Progress | None = None,
) -> TrainedModel:
    """Train a potential on existing labels; write a model file and its history.

    Parameters
    ----------
    source
        A YAML file, a campaign's store, or sections as in
        `alloop.config.train_sections`.
    out
        The model file, which `alloop.load` opens; its history goes to `out`.json.
    validation
        Share of the expensive frames for validation; by default that of the `training`
        section, or a tenth.
    test_share
        Share of the expensive frames for a test at the end, if no test set is given.
    preset
        "quick", "standard" or "best": steps, batch and learning rates that `source`
        does not set; by default chosen by the number of labels.
    force
        Replace existing files.
    observe
        Called with stage, step, steps and mean loss; an exception in it ends the
        training.

    Raises InputError for errors in the sections, the labels or `out`.
    """
    job = prepare_training(source, out, validation, test_share, preset)
    job.check_request(force)
    return job.run(observe or _ignore_progress)


def _ignore_progress(_stage: str, _step: int, _steps: int, _loss: float) -> None:
    pass
