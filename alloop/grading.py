"""What stands beside a trained potential: its scorer, its threshold, its errors."""

from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch, pack
from alloop.core.records import LabelSet, Predictions, TrainingData
from alloop.core.roles import Potential
from alloop.core.seeds import stream
from alloop.core.units import Floats
from alloop.scores.calibrate import threshold
from alloop.scores.qresidual import QResidual, fit


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the scorer of a generation is fitted.

    components: principal components, as a count or a share of the variance. quantile:
    of held-out surprise, above which a frame is flagged. landmarks: frames kept to be
    different from.
    """

    kind: str = "q"
    components: float | int = 0.99
    quantile: float = 0.99
    landmarks: int = 512


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A scorer fitted to a potential, the threshold above which a frame is flagged
    (None: not calibrated), and landmarks (frames, features) to be different from.
    calibrated_on: frames whose surprise the threshold was taken from."""

    scorer: QResidual
    threshold: float | None
    landmarks: Floats
    calibrated_on: int = 0


def fit_scorer(
    potential: Potential,
    data: TrainingData,
    heldout: Batch,
    scoring: Scoring,
    seed: int,
) -> Scored:
    """The scorer of what a potential has learned from; `heldout` sets its scale.

    Where no frames are held out, half of the training frames stand in.
    """
    seen = pack([*data.cheap.batch.frames(), *data.expensive.batch.frames()])
    seen, heldout = _reference(seen, heldout, seed)
    described = _describe(potential, seen)
    apart = _describe(potential, heldout)
    scorer = fit(
        seen,
        described,
        heldout,
        apart,
        components=scoring.components,
        kind=scoring.kind,
    )
    surprise = scorer.score(heldout, potential.predict(heldout, descriptors=True))
    limit = threshold(surprise, scoring.quantile)
    landmarks = _landmarks(seen, described, scoring)
    return Scored(scorer, limit, landmarks, len(heldout))


def _reference(seen: Batch, heldout: Batch, seed: int) -> tuple[Batch, Batch]:
    if len(heldout):
        return seen, heldout
    order = stream(seed, "scorer").permutation(len(seen))
    half = max(1, len(seen) // 2)
    return seen.take(np.sort(order[:half])), seen.take(np.sort(order[half:]))


def _describe(potential: Potential, batch: Batch) -> Floats:
    described = potential.predict(batch, descriptors=True).descriptors
    if described is None:
        raise TypeError("the potential gave no descriptors")
    return described


def frame_means(batch: Batch, per_atom: Floats) -> Floats:
    """Mean over the atoms of each frame: (atoms, d) -> (frames, d)."""
    sums = np.add.reduceat(per_atom, batch.offsets[:-1], axis=0)
    means: Floats = sums / batch.sizes[:, None]
    return means


def _landmarks(seen: Batch, described: Floats, scoring: Scoring) -> Floats:
    means = frame_means(seen, described)
    step = max(1, -(-len(means) // scoring.landmarks))
    return means[::step]


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors against labels: energies in eV a frame, force components in eV/Å.

    energy_spread: mean absolute error of the energies after their mean error is taken
    off, which is what dynamics of one molecule notices.
    """

    frames: int
    energy_mae: float
    energy_rmse: float
    energy_spread: float
    force_mae: float
    force_rmse: float


def errors(said: Predictions, labels: LabelSet) -> Errors:
    """How far predictions of labelled frames, at least one, are off."""
    forces = said.forces - labels.forces
    energies = said.energies - labels.energies
    return Errors(
        frames=len(labels),
        energy_mae=float(np.abs(energies).mean()),
        energy_rmse=float(np.sqrt((energies**2).mean())),
        energy_spread=float(np.abs(energies - energies.mean()).mean()),
        force_mae=float(np.abs(forces).mean()),
        force_rmse=float(np.sqrt((forces**2).mean())),
    )
