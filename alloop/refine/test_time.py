"""Test-time training: cheap labels of new frames move a network's representation.

Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (arXiv 2503.08674, section 4.2):
gradient steps on the beginning of a network, with its cheap head, on cheap labels of
the frames that it is to be used on; then the expensive head predicts again. Here that
head is first fitted again to the expensive labels of the training, on features that
have moved below it, and the step is kept only where held-out expensive labels do not
get worse: the whole step, a half or a quarter of it, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch, evenly_thinned
from alloop.core.errors import InputError
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.models.heads import beginning_names, free_only, head_names
from alloop.models.layers import Network
from alloop.potentials.two_heads import TwoHeadPotential
from alloop.refine.settings import SCHEDULE as SCHEDULE
from alloop.refine.settings import TestTimeSettings as TestTimeSettings
from alloop.training.fit import Progress, fit_stage
from alloop.training.graph_pool import make_graph_pool
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.references import without_references
from alloop.training.stage_task import StageTask
from alloop.training.stages import Stage
from alloop.training.state_folder import StateKeeper

SHARES = (1.0, 0.5, 0.25)  # of the step, tried in turn
_REPLAYED = 500  # cheap labels of the training
_ALL = "all"
_TINY = 1e-12  # eV/Å
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


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """An error of the forces on held-out labels that decided, eV/Å.

    atoms: all, or the symbol of an element; limit: the largest error that is kept.
    """

    atoms: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class TestTimeOutcome:
    """A test-time training's outcome.

    potential: after the share of the step that was tried last. share: of the step that
    was kept, 0 where none was. cheap: mean absolute error of the forces on the cheap
    labels, before and after; held: on the held-out expensive labels, eV/Å. worst: the
    error on the latter that lies highest over its limit, of all atoms or of those of an
    element of the new frames.
    """

    __test__ = False

    potential: TwoHeadPotential
    share: float
    cheap: tuple[float, float]
    held: tuple[float, float]
    worst: HeldOutError

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


def require_elements(potential: TwoHeadPotential, batch: Batch) -> None:
    """Raise InputError for elements that the model was not trained on."""
    known = {*potential.references, *potential.head.references}
    new = sorted({int(z) for z in batch.numbers} - known)
    if new:
        names = ", ".join(chemical_symbol(z) for z in new)
        raise InputError(
            f"expected elements that the model was trained on, got {names}; no cheap "
            "label can teach its expensive head another element"
        )


def require_judged_elements(batch: Batch, held_out: Batch) -> None:
    """Raise InputError for elements of new frames that no held-out label has.

    Nobody would see how wrong the model gets on them.
    """
    new = sorted(set(batch.numbers.tolist()) - set(held_out.numbers.tolist()))
    if new:
        names = ", ".join(map(chemical_symbol, new))
        raise InputError(
            f"expected held-out expensive labels with {names}, which the frames have, "
            "to see whether the model gets worse on them, got none; bring some "
            "(`--heldout FILE`)"
        )


def train_at_test_time(
    potential: TwoHeadPotential,
    labels: TestTimeLabels,
    settings: TestTimeSettings = USUAL,
    keeper: StateKeeper | None = None,
    progress: Progress | None = None,
) -> TestTimeOutcome:
    """Train the representation on cheap labels of new frames; keep it if it may be.

    keeper: stores states, from which a killed training resumes. Raises InputError for
    elements that the model or the held-out labels do not know and without labels.
    """
    cheap, held_out = labels.cheap, labels.held_out
    for name, own in (("cheap", cheap), ("held-out expensive", held_out)):
        if not len(own):
            raise InputError(f"expected {name} labels to refine a model, got none")
    require_elements(potential, cheap.batch)
    require_judged_elements(cheap.batch, held_out.batch)
    moved = _moved_network(potential, labels.learned, settings, keeper, progress)
    before = _error(potential.cheap(), cheap), _held_errors(potential, labels)
    for share in SHARES:
        refined = potential.with_network(_blended(potential, moved, share))
        if labels.expensive is not None:
            tuned = _tuned_head(refined, labels.expensive, settings, keeper, progress)
            refined = refined.with_network(tuned)
        outcome = _judged(refined, share, labels, before, settings.worse)
        if outcome.kept:
            break
    return outcome


def _judged(
    refined: TwoHeadPotential,
    share: float,
    labels: TestTimeLabels,
    before: tuple[float, Mapping[str, float]],
    worse: float,
) -> TestTimeOutcome:
    """Return the outcome of a share of the step; before: cheap and held-out errors."""
    held = _held_errors(refined, labels)
    found = [
        HeldOutError(atoms, held[atoms], (1.0 + worse) * error)
        for atoms, error in before[1].items()
    ]
    worst = max(found, key=lambda each: each.value / max(each.limit, _TINY))
    return TestTimeOutcome(
        refined,
        share if all(each.value <= each.limit for each in found) else 0.0,
        (before[0], _error(refined.cheap(), labels.cheap)),
        (before[1][_ALL], held[_ALL]),
        worst,
    )


def _held_errors(
    potential: TwoHeadPotential, labels: TestTimeLabels
) -> dict[str, float]:
    """Return the force MAE (eV/Å) on held-out labels: of all atoms, and by element.

    The elements are those of the new frames.
    """
    batch = labels.held_out.batch
    wrong = np.abs(potential.predict(batch).forces - labels.held_out.forces)
    found = {_ALL: float(wrong.mean())}
    for z in np.unique(labels.cheap.batch.numbers).tolist():
        found[chemical_symbol(z)] = float(wrong[batch.numbers == z].mean())
    return found


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
    pool = make_graph_pool(rest, potential.scale, potential.cutoff, potential.dtype)
    schedule = replace(settings.schedule, lr=_HEAD_LR * settings.schedule.lr)
    stage = Stage("head", "expensive", settings.steps, "previous", schedule=schedule)
    network = potential.network
    free = free_only(network, head_names(network))
    return fit_stage(StageTask(free, pool, stage, settings.seed), keeper, progress)[0]


def _moved_network(
    potential: TwoHeadPotential,
    labels: LabelSet,
    settings: TestTimeSettings,
    keeper: StateKeeper | None,
    progress: Progress | None,
) -> Network:
    """Return the network with the cheap head after the gradient steps."""
    own = potential.cheap()
    aligned = _aligned_energies(own.predict(labels.batch).energies, labels)
    if own.repulsion is not None:
        aligned = own.repulsion.without(aligned)
    rest = without_references(aligned, own.references)
    pool = make_graph_pool(rest, own.scale, own.cutoff, own.dtype)
    network = own.network
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
        own = np.array([each == key for each in keys], dtype=np.bool_)
        energies[own] += (predicted[own] - energies[own]).mean()
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
