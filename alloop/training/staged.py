"""The executor of stage lists: a Trainer made of facts.

ASTEROID, standard training, pretraining alone and whatever lies between them are lists
of stages; `alloop.training.asteroid` writes down the usual ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alloop.core.batch import take_atoms
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.core.seeds import share
from alloop.core.units import Integers
from alloop.potentials.learned import LearnedPotential
from alloop.training.bench import Bench, Path
from alloop.training.fit import Progress
from alloop.training.history import history
from alloop.training.pool import force_scale
from alloop.training.references import references
from alloop.training.stages import Fidelity, Stage
from alloop.training.weights import DEFAULT, Gamma


@dataclass(frozen=True, slots=True, eq=False)
class StagedTrainer:
    """Trains a network through a list of stages; implements Trainer.

    kind and settings are those of `alloop.models.network.build`. gammas: one γ, or
    several of which the validation error after the last stage picks one. least: the
    share of the cheap frames that the weights must leave effective. validation: the
    share of the expensive frames that is held out, by the hash of their ids. given:
    reference energies (eV) by fidelity and atomic number; fitted where there are none.
    progress is called with stage, step, steps and mean loss.
    """

    kind: str
    settings: Mapping[str, Any]
    stages: tuple[Stage, ...]
    gammas: tuple[Gamma, ...] = (DEFAULT,)
    least: float = 0.3
    validation: float = 0.0
    given: Mapping[Fidelity, Mapping[int, float]] = field(default_factory=dict)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if len(self.gammas) > 1 and self.validation <= 0.0:
            raise InputError(
                f"expected held-out frames to choose among {len(self.gammas)} gammas, "
                "got validation = 0; set a share of frames, or give one gamma"
            )

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[LearnedPotential, dict[str, Any]]:
        """The potential of the last stage's level, and what happened on the way.

        history["bias"] holds B in eV/Å of each cheap frame, in their order. Without
        labels of one level the other's first stage gets all steps.
        """
        stages = runnable(self.stages, data)
        bench = self._bench(data, parent, seed)
        weighed = [i for i, stage in enumerate(stages) if stage.weights == "bias"]
        parting = weighed[0] if weighed else len(stages)
        start = Path(bench.fresh(stages[0].name))
        common = bench.walk(start, stages[:parting], self.gammas[0])
        gammas = self.gammas if weighed else self.gammas[:1]
        paths = [bench.walk(common, stages[parting:], gamma) for gamma in gammas]
        best = min(paths, key=bench.error)
        return bench.potential(best), history(best, bench)

    def _bench(self, data: TrainingData, parent: Potential | None, seed: int) -> Bench:
        training, held_out = held_out_split(data.expensive, self.validation)
        levels: dict[Fidelity, LabelSet] = {"cheap": data.cheap, "expensive": training}
        known = {
            level: references(labels, self.given.get(level))
            for level, labels in levels.items()
        }
        heir = parent if isinstance(parent, LearnedPotential) else None
        takes_over = heir if any(s.start == "parent" for s in self.stages) else None
        scale = force_scale(training if len(training) else data.cheap)
        return Bench(
            kind=self.kind,
            settings=self.settings,
            labels=levels,
            references=known,
            held_out=held_out,
            scale=takes_over.scale if takes_over else scale,
            parent=takes_over.network if takes_over else None,
            least=self.least,
            seed=seed,
            progress=self.progress,
        )


def runnable(stages: Sequence[Stage], data: TrainingData) -> tuple[Stage, ...]:
    """The stages with steps that these labels allow.

    Where a level has no labels, the first stage of the other level gets all steps:
    ASTEROID without cheap labels is standard training.
    """
    present = {"cheap": len(data.cheap) > 0, "expensive": len(data.expensive) > 0}
    wanted = [stage for stage in stages if stage.steps > 0]
    kept = [stage for stage in wanted if present[stage.on]]
    if not kept:
        raise InputError(
            f"expected labels for one of the stages {[s.name for s in stages]}, got "
            "none; label some frames first"
        )
    if kept == wanted:
        return tuple(kept)
    steps = sum(stage.steps for stage in stages)
    start = "scratch" if kept[0].start == "previous" else kept[0].start
    return (replace(kept[0], steps=steps, weights="uniform", start=start),)


def held_out_split(
    labels: LabelSet, fraction: float
) -> tuple[LabelSet, LabelSet | None]:
    """Training and held-out labels; a frame's id decides, whatever the other frames.

    Nothing is held out where one side would be empty.
    """
    ids = [frame.id for frame in labels.batch.frames()] if fraction > 0.0 else []
    out = np.array(
        [share(0, f"validation/{i}") < fraction for i in ids], dtype=np.bool_
    )
    if not out.any() or out.all():
        return labels, None
    return _pick(labels, np.flatnonzero(~out)), _pick(labels, np.flatnonzero(out))


def _pick(labels: LabelSet, frames: Integers) -> LabelSet:
    batch = labels.batch
    atoms = take_atoms(batch.offsets, frames)
    return LabelSet(batch.take(frames), labels.energies[frames], labels.forces[atoms])
