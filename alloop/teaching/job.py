"""One training: labels to a model file, a history and a table of errors."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from alloop.config.build import scoring
from alloop.config.plan import Plan
from alloop.config.teacher import network, trainer
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Trainer
from alloop.core.seeds import torch_seed
from alloop.core.species import Domain
from alloop.files.targets import MODELS, refuse_target
from alloop.files.whole import whole
from alloop.generation import Generation, from_bytes, to_bytes
from alloop.grading import Errors, errors, fit_scorer
from alloop.potentials.storable import Storable
from alloop.teaching.material import Material, Shares
from alloop.training.correct import joined
from alloop.training.fit import Progress
from alloop.training.keeping import FolderKeeper
from alloop.training.staged import StagedTrainer
from alloop.training.universal import PRETRAINED, UniversalTrainer, untouched

Rows: TypeAlias = Mapping[str, Errors]
_STREAM = "train"  # the name of the training's random numbers


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A trained generation, its history, and its errors by the name of a set.

    before: errors of a universal potential as it came, with fitted references.
    """

    generation: Generation
    history: Mapping[str, Any]
    errors: Rows
    before: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is learned from, how, and where the model goes.

    model: the generation that the potential starts from, where its plan names one.
    """

    plan: Plan
    material: Material
    shares: Shares
    out: Path
    model: bytes | None = None

    @property
    def story(self) -> Path:
        """The JSON beside the model."""
        return self.out.with_name(f"{self.out.name}.json")

    @property
    def kept(self) -> Path:
        """Where the training is kept until it is done, to go on after a kill."""
        return self.out.with_name(f"{self.out.name}.training")

    @property
    def request(self) -> str:
        """32 hexadecimal digits of what is asked for: plan, labels and start."""
        digest = hashlib.sha256(self.plan.model_dump_json().encode())
        digest.update(repr(self.shares).encode())
        digest.update(self.model or b"")
        for labels in sets(self.material).values():
            for part in (*(frame.id for frame in labels.batch.frames()), "end"):
                digest.update(part.encode())
            for array in (labels.energies, labels.forces):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def done(self) -> bool:
        """Whether the model is there already and is the answer to this request."""
        return self.out.is_file() and self._answered()

    def refuse(self, force: bool = False) -> None:
        """InputError where there is nowhere to write, or something else is there.

        force: replace it. What an ended run of the same request left is its own.
        """
        refuse_target(self.out, MODELS, force=force)
        taken = not (self.kept.is_dir() or self._answered())
        refuse_target(self.story, (".json",), force=force, taken=taken)

    def _answered(self) -> bool:
        """Whether the history beside the model is that of this request."""
        try:
            told = json.loads(self.story.read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(told, dict) and told.get("request") == self.request

    def run(self, observe: Progress) -> Taught:
        """Train, write the model and its history, and say how good it is.

        What is kept of a training that was ended or killed is taken up where it was.
        observe: called with stage, step, steps and loss; what it raises ends the
        training. Raises InputError where the labels cannot be learned from.
        """
        taught = self._taught(observe)
        text = json.dumps(self._told(taught), indent=1, sort_keys=True)
        with whole(self.story) as partial:
            partial.write_text(text, encoding="utf-8")
        with whole(self.out) as partial:  # last: what is there is done
            partial.write_bytes(to_bytes(taught.generation)[1])
        shutil.rmtree(self.kept, ignore_errors=True)
        return taught

    def _taught(self, observe: Progress) -> Taught:
        data = self.material
        teacher, learned = self._teacher(observe)
        parent = None if self.model is None else from_bytes(self.model).potential
        seed = torch_seed(self.plan.seed, _STREAM)
        potential, history = teacher.train(learned, parent, seed)
        if not isinstance(potential, Storable):
            raise TypeError("the trainer's potential has no checkpoint()")
        seen = TrainingData(data.cheap, data.expensive)
        scored = fit_scorer(
            potential, seen, data.validation.batch, scoring(self.plan), self.plan.seed
        )
        graded = grades(potential, data)
        domain = Domain.of(data.cheap.batch, data.expensive.batch)
        generation = Generation(
            potential, scored.scorer, scored.threshold, _facts(data, graded), domain
        )
        return Taught(generation, history, graded, self._before())

    def _teacher(self, observe: Progress) -> tuple[Trainer, TrainingData]:
        """Who trains, and on what: networks split off the validation frames again, by
        the same rule, and look at them on the way."""
        data = self.material
        whole = joined(data.expensive, data.validation)
        match trainer(self.plan):
            case StagedTrainer() as staged:
                watched = self._watched(staged, observe)
                return watched, TrainingData(data.cheap, whole)
            case UniversalTrainer(staged=staged):
                tuner = UniversalTrainer(self._watched(staged, observe))
                return tuner, TrainingData(data.cheap, whole)
            case other:
                return other, TrainingData(data.cheap, data.expensive)

    def _watched(self, staged: StagedTrainer, observe: Progress) -> StagedTrainer:
        validation = self.shares.validation if len(self.material.validation) else 0.0
        keeper = FolderKeeper(self.kept)
        return replace(staged, validation=validation, progress=observe, keeper=keeper)

    def _before(self) -> Rows:
        kind, settings = network(self.plan)
        if kind not in PRETRAINED or self.model is not None:
            return {}
        return grades(untouched(kind, settings, self.material.expensive), self.material)

    def _told(self, taught: Taught) -> dict[str, Any]:
        """The history's JSON: energies in eV, forces in eV/Å."""
        return {
            "request": self.request,
            "potential": self.plan.potential.model_dump(mode="json"),
            "training": self.plan.training
            and self.plan.training.model_dump(mode="json"),
            "seed": self.plan.seed,
            "labels": {name: len(x) for name, x in sets(self.material).items()},
            "errors": {name: asdict(x) for name, x in taught.errors.items()},
            "errors_before": {name: asdict(x) for name, x in taught.before.items()},
            "threshold": taught.generation.threshold,
            "history": dict(taught.history),
        }


def sets(material: Material) -> dict[str, LabelSet]:
    """The labels by the name of their set, those that are not learned from at last."""
    return {
        "cheap": material.cheap,
        "expensive": material.expensive,
        "validation": material.validation,
        "test": material.test,
    }


def grades(potential: Potential, material: Material) -> dict[str, Errors]:
    """The errors of a potential on each set that is not empty."""
    return {
        name: errors(potential.predict(labels.batch), labels)
        for name, labels in sets(material).items()
        if len(labels)
    }


def _facts(material: Material, graded: Rows) -> dict[str, int | float]:
    facts: dict[str, int | float] = {
        "cheap_labels": len(material.cheap),
        "expensive_labels": len(material.expensive),
        "validation_frames": len(material.validation),
    }
    if "test" in graded:
        facts["test_force_mae_eV_per_A"] = graded["test"].force_mae
        facts["test_frames"] = graded["test"].frames
    return facts
