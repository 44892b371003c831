"""Radius refinement: the radius at which graphs look most like those trained on.

Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (arXiv 2503.08674, section 4.1).
The paper chooses a radius for each frame and leaves the network's envelope where it was
trained, so that a larger radius changes nothing. Here it is chosen once for all frames
of one system, since the energy of MD would jump with it; the envelope follows
(`alloop.models.layers.Envelope`); and the radius of the training stays where the frames
are not out by connectivity, or another radius is hardly better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.atoms import hill_formula
from alloop.core.batch import Batch, evenly_thinned
from alloop.core.errors import InputError
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.models.network import build_network
from alloop.models.settings import NETWORKS, check_radius
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.two_heads import TwoHeadPotential
from alloop.refine.shifts import TrainingShifts

CANDIDATES = tuple(np.linspace(3.0, 9.0, 10).tolist())  # Å, those of the paper
MARGIN = 0.25
_MAX_FRAMES = 100  # frames that are looked at
# Networks whose records have a radius.
KINDS = tuple(kind for kind, record in NETWORKS.items() if hasattr(record, "radius"))


@dataclass(frozen=True, slots=True)
class RadiusChoice:
    """The radius chosen for a system.

    radius: Å; trained: that of the training. distances: by radius, the mean over frames
    of the distance from the nearest training spectrum. limit: that distance which
    training frames seldom exceed. why: the reason, as a phrase.
    """

    radius: float
    trained: float
    distances: Mapping[float, float]
    limit: float
    why: str

    @property
    def changed(self) -> bool:
        """True where the radius is not that of the training."""
        return self.radius != self.trained


def trained_radius(potential: Potential) -> float:
    """Return the cutoff that a network was trained with, Å.

    Raises InputError for a potential whose radius cannot be changed.
    """
    return float(_network_of(potential).frozen_network.settings["cutoff"])


def choose_radius(
    training: TrainingShifts,
    frames: Batch,
    candidates: Sequence[float] = CANDIDATES,
    margin: float = MARGIN,
) -> RadiusChoice:
    """Return the radius at which frames of one system look most like those trained on.

    training: its graphs are those of the training radius. margin: by this share a
    distance must be smaller than that at the training radius. Raises InputError for
    frames of several compositions, and without frames.
    """
    _require_one_system(frames)
    trained = training.connectivity.radius
    sample = evenly_thinned(len(frames), _MAX_FRAMES)
    shown = frames.select(np.arange(len(frames))[sample])
    usable = {trained, *(r for r in candidates if _is_usable(r, trained))}
    distances = {r: _mean_distance(training, shown, r) for r in sorted(usable)}
    limit = training.usual["connectivity"].limit
    best = min(distances, key=lambda r: (distances[r], abs(r - trained)))
    present = distances[trained]
    chosen, why = trained, "the graphs are like those of the training"
    if present > limit:
        if best != trained and distances[best] < (1.0 - margin) * present:
            chosen = best
            why = f"distance {distances[best]:.3g} in place of {present:.3g}"
        else:
            why = f"no radius brings the distance {present:.3g} down by {margin:.0%}"
    return RadiusChoice(chosen, trained, distances, limit, why)


def with_radius(potential: Potential, radius: float) -> LearnedPotential:
    """Return a potential whose network ends at another radius (Å), weights unchanged.

    Raises InputError for a radius that the network cannot use, and for potentials of
    other kinds than `KINDS`.
    """
    learned = _network_of(potential)
    network = learned.frozen_network
    settings = {k: v for k, v in network.settings.items() if k != "radius"}
    if radius != settings["cutoff"]:
        settings["radius"] = float(radius)
    refined = build_network(network.kind, settings, dtype=learned.dtype)
    refined.load_state_dict(network.state_dict())
    if isinstance(learned, TwoHeadPotential):
        return learned.with_network(refined)
    return LearnedPotential(
        refined, learned.references, learned.scale, learned.device, learned.repulsion
    )


def _network_of(potential: Potential) -> LearnedPotential:
    kind = "another kind"
    if isinstance(potential, LearnedPotential):
        kind = potential.frozen_network.kind
        if kind in KINDS:
            return potential
    raise InputError(
        f"expected a network of kind {' or '.join(KINDS)} to change its radius, got "
        f"{kind}"
    )


def _is_usable(radius: float, cutoff: float) -> bool:
    try:
        check_radius(radius, cutoff)
    except InputError:
        return False
    return True


def _mean_distance(training: TrainingShifts, frames: Batch, radius: float) -> float:
    spectra = training.connectivity
    distances: Floats = spectra.nearest(spectra.quantiles(frames, radius))
    return float(distances.mean())


def _require_one_system(frames: Batch) -> None:
    if not len(frames):
        raise InputError("expected frames of the system to refine, got none")
    formulas = sorted({hill_formula(frame) for frame in frames.frames()})
    if len(formulas) > 1:
        raise InputError(
            f"expected frames of one system, got {', '.join(formulas)}; refine the "
            "model for each on its own"
        )
