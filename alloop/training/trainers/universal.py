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

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.models.network import Network, build_network
from alloop.models.settings import network_settings
from alloop.potentials.learned import LearnedPotential
from alloop.training.replay import Replay, fitted_references, with_original
from alloop.training.stages import Fidelity, Stage
from alloop.training.state_folder import StateKeeper
from alloop.training.trainers.staged_trainer import StagedTrainer, held_out_split
from alloop.training.tuning_errors import StartingErrors, forgetting, starting_errors


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

        Raises InputError for elements that the network does not know, for charges
        and spins that it cannot tell apart, and where the errors before the first step
        are far above those of the potential as it comes.
        """
        beginning = self._beginning(data, parent)
        history: dict[str, Any] = {}
        if (errors := self._starting_errors(beginning, data)) is not None:
            errors.require_close_start()
            history = errors.history
        trainer = replace(
            self.staged,
            stages=beginning.stages,
            given=beginning.references,
            repulsion=None,
        )
        potential, rest = trainer.train(data, beginning.start, seed)
        own_error = rest.get("replayed/force_mae") if self.staged.own_head else None
        after = self._forgetting(potential, data, own_error)
        return potential, {**rest, **history, **after}

    def _forgetting(
        self, potential: LearnedPotential, data: TrainingData, own_error: float | None
    ) -> dict[str, Any]:
        """Return what was forgotten; own_error: that of a head of replayed frames."""
        labels = data.expensive if len(data.expensive) else data.cheap
        replay = self.staged.replay
        original = None if replay is None else replay.original
        if original is None and self._has_no_original:
            return {}
        return forgetting(
            potential,
            original or self.original(),
            labels.batch,
            None if replay is None else replay.frames,
            own_error,
        )

    @property
    def _has_no_original(self) -> bool:
        """True for a model file of the user that holds no other weights than its own.

        They cannot be made again from its settings.
        """
        return self.staged.settings.get("model") is not None

    def starting_errors(
        self, data: TrainingData, parent: Potential | None
    ) -> StartingErrors | None:
        """Return the errors before the first step, None without labels of forces.

        They are those of the held-out expensive frames, of all where none are held out.
        """
        return self._starting_errors(self._beginning(data, parent), data)

    def _beginning(self, data: TrainingData, parent: Potential | None) -> "_Beginning":
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
        references: dict[Fidelity, Mapping[int, float]] = {}
        if len(data.cheap):
            references["cheap"] = fitted_references(network, data.cheap)
        if len(training):
            references["expensive"] = fitted_references(network, training)
        return _Beginning(network, stages, {**references, **staged.given})

    def _starting_errors(
        self, beginning: "_Beginning", data: TrainingData
    ) -> StartingErrors | None:
        training, held_out = held_out_split(data.expensive, self.staged.validation)
        labels = training if held_out is None else held_out
        if not (len(labels) and np.isfinite(labels.forces).any()):
            return None
        alone = self._has_no_original
        pretrained = beginning.network if alone else self.original().network
        start = LearnedPotential(
            beginning.network, {**beginning.references["expensive"]}
        )
        fitted = fitted_references(pretrained, training)
        if set(labels.batch.numbers.tolist()) - set(start.references):
            return None  # an element that only held-out frames have
        return starting_errors(pretrained, start, fitted, labels)


@dataclass(frozen=True, slots=True, eq=False)
class _Beginning:
    """The beginning of fine-tuning: network, stages, and references by level."""

    network: Network
    stages: tuple[Stage, ...]
    references: Mapping[Fidelity, Mapping[int, float]]

    @property
    def start(self) -> LearnedPotential:
        """The network with all references, those of the expensive level last."""
        return LearnedPotential(
            self.network, {z: e for x in self.references.values() for z, e in x.items()}
        )


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
