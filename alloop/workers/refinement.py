"""The refinement of a generation on a worker: a test-time training as a generation."""

from dataclasses import dataclass, replace

import numpy as np

from alloop.core.errors import InputError
from alloop.core.records import LabelSet, ModelCheck, Refinement
from alloop.core.seeds import torch_seed
from alloop.evaluation import TrainedMember, TrainingInputs
from alloop.loop.commands import Train
from alloop.models.checkpoint import checkpoint_to_bytes
from alloop.refine.settings import TestTimeSettings
from alloop.training.label_changes import select_labels
from alloop.training.state_folder import StateFolder

_MILLI = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class RefinedMember:
    """A refined potential, what became of it, and the check that it had to pass."""

    member: TrainedMember
    refinement: Refinement
    check: ModelCheck


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
        TestTimeLabels,
        require_elements,
        require_two_heads,
        thinned_labels,
        train_at_test_time,
    )

    if inputs.parent is None or test is None:
        raise TypeError("a refinement needs a model and a validation set in its data")
    cheap = inputs.data.cheap
    chosen = set(command.refine)
    new = np.array([frame.id in chosen for frame in cheap.batch.frames()])
    labels = TestTimeLabels(
        cheap=select_labels(cheap, np.flatnonzero(new)),
        held_out=test,
        replay=None if new.all() else thinned_labels(_others(cheap, new)),
        expensive=inputs.data.expensive,
    )
    try:
        potential = require_two_heads(inputs.parent)
        require_elements(potential, cheap.batch)
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


def _others(labels: LabelSet, chosen: np.ndarray) -> LabelSet:
    return select_labels(labels, np.flatnonzero(~chosen))
