"""The frames of walkers as scorers, collectors and observers see them."""

from dataclasses import dataclass, replace

import numpy as np

from alloop.core.arrays import Place, to_numpy
from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.core.roles import (
    Arrays,
    DevicePotential,
    DeviceScorer,
    FittedScorer,
    Potential,
)
from alloop.core.units import Booleans, Floats
from alloop.md.frame_collector import ScoredFrames
from alloop.md.md_state import MDState
from alloop.md.walker_batch import WalkerBatch


def placed_scorer(
    scorer: FittedScorer | None, potential: Potential
) -> FittedScorer | None:
    """Return the scorer in the form that takes this potential's arrays.

    Predictions on a device are copied for a scorer that takes numpy's arrays only.
    """
    if scorer is None or not isinstance(potential, DevicePotential):
        return scorer
    if isinstance(scorer, DeviceScorer):
        return scorer.placed(potential.place)
    return _HostScorer(scorer, potential.place)


@dataclass(frozen=True, slots=True, eq=False)
class _HostScorer:
    """A scorer that takes numpy's arrays only, for predictions on a device."""

    scorer: FittedScorer
    place: Place

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        on_host = predictions.moved(to_numpy)
        surprise: Floats = self.place(self.scorer.score(host_batch(batch), on_host))
        return surprise

    def arrays(self) -> Arrays:
        return self.scorer.arrays()


def host_batch(batch: Batch) -> Batch:
    """Return the batch in numpy's arrays."""
    return batch.with_cells(to_numpy(batch.positions), to_numpy(batch.cells))


def surprise_at(
    system: WalkerBatch,
    scorer: FittedScorer | None,
    state: MDState,
    predictions: Predictions | None = None,
) -> Floats:
    """Return the surprise (walkers,), where arrays are kept; 0 without a scorer.

    predictions: those at the state with descriptors, the state's own by default.
    """
    if scorer is None:
        none: Floats = system.place(np.zeros(len(system.batch)))
        return none
    return scorer.score(system.frames_at(state), predictions or state.phase.predictions)


def predicted_frames(
    system: WalkerBatch, scorer: FittedScorer | None, state: MDState, moving: Booleans
) -> ScoredFrames:
    """Return the frames of a state, predicted and scored anew.

    Eligible are those of the wanted walkers (walkers,) whose values are finite.
    """
    batch = system.frames_at(state)
    predictions = system.predict(batch, descriptors=scorer is not None)
    surprise = surprise_at(system, scorer, state, predictions)
    eligible = moving & np.isfinite(to_numpy(surprise))
    eligible = eligible & np.isfinite(to_numpy(predictions.energies))
    return scored_frames(system, state, predictions, surprise, eligible)


def scored_frames(
    system: WalkerBatch,
    state: MDState,
    predictions: Predictions,
    surprise: Floats,
    eligible: Booleans,
) -> ScoredFrames:
    """Return the frames of a state with these values, descriptors left where they are.

    Only those of candidates are wanted, and they are by far the largest.
    """
    on_host = replace(predictions, descriptors=None).moved(to_numpy)
    return ScoredFrames(
        walkers=system.walkers,
        batch=host_batch(system.frames_at(state)),
        predictions=replace(on_host, descriptors=predictions.descriptors),
        surprise=to_numpy(surprise),
        eligible=eligible,
        step=state.step,
        velocities=to_numpy(state.phase.velocities),
    )
