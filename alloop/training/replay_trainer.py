"""A trainer that replays frames; torch is imported only where there are some."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet
from alloop.core.roles import Potential, Trainer

if TYPE_CHECKING:
    from alloop.training.replay import Replay


@runtime_checkable
class ReplayingTrainer(Protocol):
    """A trainer that can replay frames while it fine-tunes a potential."""

    def replaying(self, replay: "Replay") -> Trainer:
        """Return the same trainer, which replays these frames too."""
        ...


def replaying_trainer(
    trainer: Trainer,
    frames: LabelSet | Batch,
    share: float,
    original: Potential | None,
) -> Trainer:
    """Return a trainer that replays frames with this share in the loss.

    original: the model that fine-tuning began with, None for a pretrained network.
    Raises InputError where trainer or model cannot do so.
    """
    from alloop.potentials.learned import LearnedPotential
    from alloop.training.replay import Replay

    network = original is None or isinstance(original, LearnedPotential)
    if not isinstance(trainer, ReplayingTrainer) or not network:
        raise InputError(
            "expected a pretrained network to replay frames with, got another "
            "potential; leave `training: replay` out"
        )
    assert original is None or isinstance(original, LearnedPotential)
    return trainer.replaying(Replay(frames, share, original))
