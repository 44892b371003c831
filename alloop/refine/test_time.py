"""Test-time training: cheap labels of new frames move a network's representation.

Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (arXiv 2503.08674, section 4.2):
gradient steps on the beginning of a network, with its cheap head, on cheap labels of
the frames that it is to be used on; then the expensive head predicts again. Here that
head is first fitted again to the expensive labels of the training, on features that
have moved below it, and the step is kept only where held-out expensive labels do not
get worse: the whole step, a half or a quarter of it, or none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch, evenly_thinned
from alloop.core.errors import InputError
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet
from alloop.core.roles import Potential
from alloop.core.text import plural
from alloop.core.units import Floats
from alloop.models.heads import beginning_names, free_only, head_names
from alloop.models.layers import Network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.two_heads import CheapHead, TwoHeadPotential
from alloop.refine.settings import SCHEDULE as SCHEDULE
from alloop.refine.settings import TestTimeSettings as TestTimeSettings
from alloop.training.fit import Progress, fit_stage
from alloop.training.graph_pool import make_graph_pool
from alloop.training.label_changes import (
    fit_references,
    joined_labels,
    select_labels,
    without_references,
)
from alloop.training.stage_state import StageTask
from alloop.training.stages import Stage
from alloop.training.state_folder import StateKeeper

SHARES = (1.0, 0.5, 0.25)  # of the step, tried in turn
_REPLAYED = 500  # cheap labels of the training
_FEW, _RARE = 20, 0.05  # labels with an element, and their share
_HEAD_LR = 3.0  # the head's peak learning rate over the representation's


@dataclass(frozen=True, slots=True, eq=False)
class TestTimeLabels:
    """The labels of a test-time training.

    cheap: of the new frames, at the level of the cheap head; held_out: expensive ones
    that the model was not trained on, which decide. replay: further cheap ones to train
    on, such as those of the training. expensive: those of the training, to which the
    expensive head is fitted again; without them it stays as it was.
    """

    __test__ = False

    cheap: LabelSet
    held_out: LabelSet
    replay: LabelSet | None = None
    expensive: LabelSet | None = None

    @property
    def learned(self) -> LabelSet:
        """The labels that the gradient steps see.

        New ones are repeated, so that half of the frames are new.
        """
        if self.replay is None:
            return self.cheap
        count = len(self.cheap)
        again = np.resize(np.arange(count), max(count, len(self.replay)))
        return joined_labels(select_labels(self.cheap, again), self.replay)


@dataclass(frozen=True, slots=True, eq=False)
class TestTimeOutcome:
    """A test-time training's outcome.

    potential: after the share of the step that was tried last. share: of the step that
    was kept, 0 where none was. cheap: mean absolute error of the forces on the cheap
    labels, before and after; held: on the held-out expensive labels, eV/Å. limit: the
    largest error on the latter that is kept, eV/Å.
    """

    __test__ = False

    potential: TwoHeadPotential
    share: float
    cheap: tuple[float, float]
    held: tuple[float, float]
    limit: float

    @property
    def kept(self) -> bool:
        """False where the training is to be rolled back."""
        return self.share > 0.0


USUAL = TestTimeSettings()


def thinned_labels(labels: LabelSet) -> LabelSet:
    """Return labels of a training to replay: at most 500, evenly thinned."""
    count = len(labels)
    return select_labels(labels, np.arange(count)[evenly_thinned(count, _REPLAYED)])


def require_two_heads(potential: Potential) -> TwoHeadPotential:
    """Return the potential; raise InputError where it has no cheap head."""
    if not isinstance(potential, TwoHeadPotential):
        raise InputError(
            "expected a model with a cheap head, this one has none; train it with "
            "`training: {kind: two-heads}`"
        )
    return potential


def require_network(potential: Potential) -> LearnedPotential:
    """Return the potential; raise InputError where it cannot have two heads."""
    if not isinstance(potential, LearnedPotential):
        raise InputError(
            "expected a trained network to refine, got a potential of another kind; "
            "train a `painn`, `tensor-painn` or `gemnet`"
        )
    head_names(potential.frozen_network)
    return potential


def with_cheap_head(
    potential: Potential,
    cheap: LabelSet | None,
    settings: TestTimeSettings = USUAL,
    progress: Progress | None = None,
) -> TwoHeadPotential:
    """Return an ordinary potential with a cheap head; one with two heads as it is.

    cheap: labels of training frames at the cheap level, None where there are none. The
    cheap head begins as a copy of the head and is fitted to them on features that stay
    as they are, so that the predictions of the expensive level do not change. Raises
    InputError for networks of other kinds than `alloop.models.settings.HEADED`, and
    where a head is to be fitted without labels.
    """
    if isinstance(potential, TwoHeadPotential):
        return potential
    potential = require_network(potential)
    network = potential.network
    free = free_only(network, head_names(network))
    if cheap is None or not len(cheap):
        raise InputError(
            "expected cheap labels of the training to fit a cheap head to, got none; "
            "label its frames at that level (`alloop label`) and give them with "
            "`--replay FILE`"
        )
    if potential.repulsion is not None:
        cheap = potential.repulsion.without(cheap)
    references = fit_references(cheap)
    head = _fitted_head(
        potential,
        free,
        without_references(cheap, references),
        settings=settings,
        keeper=None,
        progress=progress,
    )
    return TwoHeadPotential(potential, CheapHead.of(head, references))


def truth_warning(batch: Batch, held_out: LabelSet) -> str | None:
    """Return a sentence where no expensive label is of the new frames themselves."""
    if len(known_truth(batch, held_out)):
        return None
    return (
        "no expensive label of the refined frames is known: what becomes of their own "
        "errors cannot be told, and the shape of a path or a scan may get worse while "
        "held-out labels get better; label some of them at the expensive level and add "
        "these to `--heldout`"
    )


def known_truth(batch: Batch, held_out: LabelSet) -> LabelSet:
    """Return the held-out labels that are of the new frames themselves."""
    ids = {frame.id for frame in batch.frames()}
    in_batch = [frame.id in ids for frame in held_out.batch.frames()]
    return select_labels(held_out, np.flatnonzero(in_batch))


def require_elements(potential: LearnedPotential, batch: Batch) -> None:
    """Raise InputError for elements that the model was not trained on."""
    elements = {*potential.references}
    if isinstance(potential, TwoHeadPotential):
        elements |= {*potential.head.references}
    new = sorted({int(z) for z in batch.numbers} - elements)
    if new:
        names = ", ".join(chemical_symbol(z) for z in new)
        raise InputError(
            f"expected elements that the model was trained on, got {names}; no cheap "
            "label can teach its expensive head another element"
        )


def element_warnings(
    batch: Batch, held_out: LabelSet, expensive: LabelSet | None
) -> list[str]:
    """Return a sentence for each element on which a refined model may be worse unseen.

    It is one of the new frames that few expensive labels of the training have (None
    where they are not known), or no held-out one. The errors of all atoms together fell
    in such cases, those of the element's own atoms did not always.
    """
    new = sorted(set(batch.numbers.tolist()))
    held = _frames_with(new, held_out.batch)
    places = {z: f"in {plural(held[z], 'held-out label')}" for z in new if not held[z]}
    if expensive is not None:
        counts = _frames_with(new, expensive.batch)
        minimum = min(_FEW, math.ceil(_RARE * len(expensive)))
        places = {
            z: f"in {plural(counts[z], 'expensive label')} of the training and in "
            f"{plural(held[z], 'held-out one')}"
            for z in new
            if counts[z] < minimum or not held[z]
        }
    return [
        f"{chemical_symbol(z)} is {place}: forces on its atoms may get worse without a "
        "sign of it; label more frames with it at the expensive level"
        for z, place in places.items()
    ]


def _frames_with(elements: Sequence[int], batch: Batch) -> dict[int, int]:
    """Return the number of frames with each of these elements."""
    index, numbers = batch.frame_index, batch.numbers
    return {z: len(np.unique(index[numbers == z])) for z in elements}


def train_at_test_time(
    potential: TwoHeadPotential,
    labels: TestTimeLabels,
    settings: TestTimeSettings = USUAL,
    keeper: StateKeeper | None = None,
    progress: Progress | None = None,
) -> TestTimeOutcome:
    """Train the representation on cheap labels of new frames; keep it if it may be.

    keeper: stores states, from which a killed training resumes. Raises InputError for
    elements that the model does not know, and without labels.
    """
    cheap, held_out = labels.cheap, labels.held_out
    for name, label_set in (("cheap", cheap), ("held-out expensive", held_out)):
        if not len(label_set):
            raise InputError(f"expected {name} labels to refine a model, got none")
    require_elements(potential, cheap.batch)
    moved = _moved_network(potential, labels.learned, settings, keeper, progress)
    before = _error(potential.cheap(), cheap), _error(potential, held_out)
    limit = (1.0 + settings.worse) * before[1]
    # The largest share that the held-out labels bear; smaller ones are tried only
    # then.
    for share in SHARES:
        refined = potential.with_network(_blended(potential, moved, share))
        if labels.expensive is not None:
            tuned = _tuned_head(refined, labels.expensive, settings, keeper, progress)
            refined = refined.with_network(tuned)
        held = _error(refined, held_out)
        outcome = TestTimeOutcome(
            refined,
            share if held <= limit else 0.0,
            (before[0], _error(refined.cheap(), cheap)),
            (before[1], held),
            limit,
        )
        if outcome.kept:
            break
    return outcome


def _tuned_head(
    potential: TwoHeadPotential,
    labels: LabelSet,
    settings: TestTimeSettings,
    keeper: StateKeeper | None,
    progress: Progress | None,
) -> Network:
    """Return the network with its expensive head fitted again to labels."""
    if potential.repulsion is not None:
        labels = potential.repulsion.without(labels)
    rest = without_references(labels, potential.references)
    network = potential.network
    free = free_only(network, head_names(network))
    return _fitted_head(
        potential, free, rest, settings=settings, keeper=keeper, progress=progress
    )


def _fitted_head(
    potential: LearnedPotential,
    free: Network,
    rest: LabelSet,
    *,
    settings: TestTimeSettings,
    keeper: StateKeeper | None,
    progress: Progress | None,
) -> Network:
    """Return a network whose free weights were fitted to labels less references."""
    pool = make_graph_pool(
        rest, potential.scale, potential.cutoff, potential.dtype, potential.device
    )
    schedule = replace(settings.schedule, lr=_HEAD_LR * settings.schedule.lr)
    stage = Stage("head", "expensive", settings.steps, "previous", schedule=schedule)
    return fit_stage(StageTask(free, pool, stage, settings.seed), keeper, progress)[0]


def _moved_network(
    potential: TwoHeadPotential,
    labels: LabelSet,
    settings: TestTimeSettings,
    keeper: StateKeeper | None,
    progress: Progress | None,
) -> Network:
    """Return the network with the cheap head after the gradient steps."""
    cheap_head = potential.cheap()
    aligned = _aligned_energies(cheap_head.predict(labels.batch).energies, labels)
    if cheap_head.repulsion is not None:
        aligned = cheap_head.repulsion.without(aligned)
    rest = without_references(aligned, cheap_head.references)
    pool = make_graph_pool(
        rest, cheap_head.scale, cheap_head.cutoff, cheap_head.dtype, cheap_head.device
    )
    network = cheap_head.network
    head = head_names(network)
    names = beginning_names(network)
    if settings.whole:
        names = frozenset(name for name, _ in network.named_parameters()) - head
    stage = Stage(
        "test-time", "cheap", settings.steps, "previous", schedule=settings.schedule
    )
    task = StageTask(free_only(network, names), pool, stage, settings.seed)
    return fit_stage(task, keeper, progress)[0]


def _aligned_energies(predicted: Floats, labels: LabelSet) -> LabelSet:
    """Return the labels, shifted to the predictions' mean for each composition.

    References fitted to a few molecules say nothing of another one's energy; forces do
    not depend on it.
    """
    energies = labels.energies.copy()
    keys = [np.sort(frame.numbers).tobytes() for frame in labels.batch.frames()]
    for key in set(keys):
        members = np.array([other == key for other in keys], dtype=np.bool_)
        energies[members] += (predicted[members] - energies[members]).mean()
    return replace(labels, energies=energies)


@torch.no_grad()
def _blended(potential: TwoHeadPotential, moved: Network, share: float) -> Network:
    """Return the network with the expensive head, a share of the way to the moved."""
    network = potential.network
    head = head_names(network)
    for (name, weight), other in zip(
        network.named_parameters(), moved.parameters(), strict=True
    ):
        if name not in head:
            weight.lerp_(other, share)
    return network


def _error(potential: Potential, labels: LabelSet) -> float:
    return prediction_errors(potential.predict(labels.batch), labels).force_mae
