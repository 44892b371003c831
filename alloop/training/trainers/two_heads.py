"""The trainer of a network with a cheap and an expensive head on one representation.

Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (section 4.2): the network is
trained on cheap labels, its representation is frozen, and a copy of its head is
fine-tuned on expensive ones. So both heads stand on features that the cheap level
shaped, and gradient steps on cheap labels move them together.
"""

from dataclasses import dataclass, replace
from typing import Any

from alloop.core.errors import InputError
from alloop.core.records import TrainingData
from alloop.core.roles import Potential
from alloop.models.heads import free_only, head_names
from alloop.potentials.two_heads import CheapHead, TwoHeadPotential
from alloop.training.schedule import Schedule
from alloop.training.stages import FINE_TUNING, SCHEDULE, STEPS, Stage
from alloop.training.trainers.stage_runner import TrainingState, training_history
from alloop.training.trainers.staged_trainer import StagedTrainer


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
