"""Training that starts from a universal potential instead of random weights.

"scratch" means the pretrained weights here, in every stage and every generation, so
that a generation depends on its labels alone. The network's unit stays the eV that it
was pretrained in. Its zero of energy is another program's, so each level gets reference
energies that are fitted to its labels less the pretrained network's energies. It has
learned its own short-range repulsion, and gets no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alloop.core.batch import Batch
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.models.network import build_network
from alloop.models.settings import network_settings
from alloop.potentials.learned import LearnedPotential
from alloop.training.replay import Replay, fitted_references, with_original
from alloop.training.stages import Fidelity, Stage
from alloop.training.state_folder import StateKeeper
from alloop.training.trainers.staged_trainer import StagedTrainer, held_out_split


@dataclass(frozen=True, slots=True, eq=False)
class UniversalTrainer:
    """A trainer that fine-tunes a pretrained network in stages; implements Trainer.

    Stages that start from a "parent" take the last generation's weights, where there is
    one. Reference energies that were given to `staged` are used as they are.
    """

    staged: StagedTrainer

    def scaled_steps(self, factor: float) -> "UniversalTrainer":
        """Return the same trainer with `factor` times the steps of each stage."""
        return UniversalTrainer(self.staged.scaled_steps(factor))

    def saving_to(self, keeper: StateKeeper) -> "UniversalTrainer":
        """Return the same trainer, which resumes from the keeper's states."""
        return UniversalTrainer(self.staged.saving_to(keeper))

    def replaying(self, replay: Replay) -> "UniversalTrainer":
        """Return the same trainer, which replays these frames too."""
        completed = with_original(replay, self.original())
        return UniversalTrainer(self.staged.replaying(completed))

    def original(self) -> LearnedPotential:
        """Return the pretrained network as it comes, without reference energies."""
        return LearnedPotential(
            build_network(self.staged.kind, self.staged.settings), {}
        )

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[LearnedPotential, dict[str, Any]]:
        """Return the potential and the history, as `StagedTrainer.train` does.

        Raises InputError for elements that the network does not know, and for charges
        and spins that it cannot tell apart.
        """
        staged = self.staged
        for labels in (data.cheap, data.expensive):
            require_covered(staged.kind, staged.settings, labels.batch)
        stages = staged.stages
        heirs = any(stage.start == "parent" for stage in stages)
        if heirs and isinstance(parent, LearnedPotential):
            network = parent.network
        else:
            network = build_network(staged.kind, staged.settings)
            stages = tuple(map(_from_pretrained, stages))
        training, _ = held_out_split(data.expensive, staged.validation)
        references: dict[Fidelity, Mapping[int, float]] = {
            **(
                {"cheap": fitted_references(network, data.cheap)}
                if len(data.cheap)
                else {}
            ),
            **(
                {"expensive": fitted_references(network, training)}
                if len(training)
                else {}
            ),
            **staged.given,
        }
        start = LearnedPotential(
            network, {z: e for x in references.values() for z, e in x.items()}
        )
        trainer = replace(staged, stages=stages, given=references, repulsion=None)
        return trainer.train(data, start, seed)


def _from_pretrained(stage: Stage) -> Stage:
    """Return the stage, started from the pretrained network where it was from scratch.

    The network becomes the stage's parent, and its eV the unit.
    """
    return replace(stage, start="parent") if stage.start == "scratch" else stage


def untrained_potential(
    kind: str, settings: Mapping[str, Any], labels: LabelSet
) -> LearnedPotential:
    """Return the universal potential as it is, with references fitted to the labels.

    Raises InputError for frames that it was not made for.
    """
    require_covered(kind, settings, labels.batch)
    network = build_network(kind, settings)
    return LearnedPotential(network, fitted_references(network, labels))


def require_covered(kind: str, settings: Mapping[str, Any], batch: Batch) -> None:
    """Raise InputError for frames that a universal potential was not made for."""
    if (published := network_settings(kind, settings).weights) is not None:
        published.require(batch)
