"""Frames of what a pretrained potential knows, replayed while it is fine-tuned.

Without them fine-tuning forgets: the labels of a campaign say nothing of other frames.
Replayed labels stand in the original network's own zero of energy, so that they hold
the network's energies where they were, and references take up the difference to the
campaign's levels.
"""

from dataclasses import dataclass, replace

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import LabelSet
from alloop.core.units import Floats
from alloop.models.network import Network
from alloop.potentials.learned import LearnedPotential
from alloop.training.label_changes import (
    References,
    add_predictions,
    fit_references,
    joined_labels,
    select_labels,
    without_references,
)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Frames that fine-tuning goes on learning.

    frames: labelled at whatever level the original potential was trained on, or without
    labels, where it labels them itself. share: of these frames in the loss of forces.
    original: the potential before all fine-tuning; None for the pretrained network of
    the trainer's kind.
    """

    frames: LabelSet | Batch
    share: float
    original: LearnedPotential | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedLabels:
    """Labels to replay, in the original network's own zero of energy, and their share.

    references: eV by atomic number, those of the level that the labels come from.
    """

    labels: LabelSet
    share: float
    references: References


def replayed_labels(replay: Replay, original: LearnedPotential) -> ReplayedLabels:
    """Return the labels of a replay, less references and the original's repulsion."""
    frames, network = replay.frames, original.frozen_network
    if isinstance(frames, Batch):
        said = network_only(network, frames, original.scale).predict(frames)
        labels = LabelSet(frames, said.energies, said.forces, said.stress)
        originals = original.references
        references = {
            int(z): originals.get(int(z), 0.0) for z in np.unique(frames.numbers)
        }
        return ReplayedLabels(labels, replay.share, references)
    rest = original.repulsion
    labels = frames if rest is None else rest.without(frames)
    references = fitted_references(network, labels, original.scale)
    return ReplayedLabels(
        without_references(labels, references), replay.share, references
    )


def network_only(
    network: Network, batch: Batch, scale: float = 1.0
) -> LearnedPotential:
    """Return a network as a potential of a batch's elements, without references."""
    nothing = dict.fromkeys(np.unique(batch.numbers).tolist(), 0.0)
    return LearnedPotential(network, nothing, scale)


def fitted_references(
    network: Network, labels: LabelSet, scale: float = 1.0
) -> References:
    """Return reference energies fitted to the labels less a network's energies.

    scale: the network's unit in eV.
    """
    predictions = network_only(network, labels.batch, scale).predict(labels.batch)
    return fit_references(add_predictions(labels, predictions, -1.0))


def with_replay(
    labels: LabelSet, weights: Floats, replayed: LabelSet, share: float
) -> tuple[LabelSet, Floats]:
    """Return labels with replayed ones, and weights (frames,) of mean 1 over atoms.

    Each set is repeated as a whole, so that about `share` of the atoms are those of
    replayed frames, the last `replayed_rows`; weights make it exact. So it is the share
    of the loss of forces, which is a mean over atoms, and of that of energies per atom,
    however small replayed molecules are beside a cell. weights (labels,): of mean 1.
    """
    often, times = _repeats(labels, replayed, share)
    joined = joined_labels(_repeated(labels, often), _repeated(replayed, times))
    new_atoms = often * float(weights @ labels.batch.sizes)
    replayed_atoms = times * len(replayed.batch.numbers)
    per_row = np.concatenate(
        [
            np.tile(weights, often) * (1.0 - share) / new_atoms,
            np.full(times * len(replayed), share / replayed_atoms),
        ]
    )
    return joined, per_row * len(joined.batch.numbers)


def replayed_rows(labels: LabelSet, replayed: LabelSet, share: float) -> int:
    """Return the number of replayed rows in `with_replay`, its last ones."""
    return _repeats(labels, replayed, share)[1] * len(replayed)


def _repeats(labels: LabelSet, replayed: LabelSet, share: float) -> tuple[int, int]:
    atoms = len(labels.batch.numbers) / len(replayed.batch.numbers)
    ratio = share / (1.0 - share) * atoms
    return max(1, round(1.0 / ratio)), max(1, round(ratio))


def _repeated(labels: LabelSet, times: int) -> LabelSet:
    return select_labels(labels, np.tile(np.arange(len(labels)), times))


def with_original(replay: Replay, original: LearnedPotential) -> Replay:
    """Return the replay with an original potential, where it has none yet."""
    return replay if replay.original else replace(replay, original=original)
