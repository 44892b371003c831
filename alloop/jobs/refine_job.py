"""Models refined for frames unlike their training set, as generations of their own."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alloop.core.batch import Batch
from alloop.core.roles import FittedScorer, Potential
from alloop.core.seeds import random_stream
from alloop.core.species import Domain
from alloop.generation import Generation
from alloop.jobs.diagnose_job import diagnose
from alloop.jobs.training_set import KnownFrames
from alloop.models.checkpoint import Storable
from alloop.refine.radius import (
    CANDIDATES,
    MARGIN,
    RadiusChoice,
    choose_radius,
    trained_radius,
    with_radius,
)
from alloop.refine.test_time import (
    TestTimeLabels,
    TestTimeOutcome,
    TestTimeSettings,
    require_two_heads,
    train_at_test_time,
)
from alloop.scores.calibrate import surprise_threshold
from alloop.scores.leverage import fit_leverage
from alloop.scores.qresidual import atom_descriptors
from alloop.training.fit import Progress

_QUANTILE = 0.99  # of the surprise of training frames, its threshold


@dataclass(frozen=True, slots=True)
class RadiusRefinement:
    """A refined generation, None where the training radius stays, and the choice."""

    generation: Generation | None
    choice: RadiusChoice


def refine_radius(
    model: Generation,
    frames: KnownFrames,
    training: KnownFrames,
    candidates: tuple[float, ...] = CANDIDATES,
    margin: float = MARGIN,
) -> RadiusRefinement:
    """Return a model with the radius that suits frames of one system best.

    See `alloop.refine.radius.choose_radius`.
    """
    trained = trained_radius(model.potential)
    found = diagnose(model.potential, training, frames, radius=trained)
    choice = choose_radius(found.training, frames.batch, candidates, margin)
    if not choice.changed:
        return RadiusRefinement(None, choice)
    refined = fixed_radius(model, choice.radius, frames, training)
    return RadiusRefinement(refined, choice)


def fixed_radius(
    model: Generation, radius: float, frames: KnownFrames, training: KnownFrames | None
) -> Generation:
    """Return a model with a given radius, Å."""
    potential = with_radius(model.potential, radius)
    facts = {"kind": "radius", "radius": radius}
    return refined_generation(model, potential, facts, frames.batch, training)


@dataclass(frozen=True, slots=True)
class TestTimeRefinement:
    """A refined generation, None where it was rolled back, and the outcome."""

    __test__ = False  # no class of tests, whatever its name

    generation: Generation | None
    outcome: TestTimeOutcome


def refine_at_test_time(
    model: Generation,
    labels: TestTimeLabels,
    settings: TestTimeSettings,
    training: KnownFrames | None = None,
    progress: Progress | None = None,
) -> TestTimeRefinement:
    """Return a model whose representation was trained on cheap labels of new frames.

    See `alloop.refine.test_time.train_at_test_time`.
    """
    potential = require_two_heads(model.potential)
    outcome = train_at_test_time(potential, labels, settings, progress=progress)
    if not outcome.kept:
        return TestTimeRefinement(None, outcome)
    facts = {
        "kind": "test-time",
        "share": outcome.share,
        "frames": len(labels.cheap),
        "cheap_force_mae_eV_per_A": list(outcome.cheap),
        "held_force_mae_eV_per_A": list(outcome.held),
    }
    frames = labels.cheap.batch
    refined = refined_generation(model, outcome.potential, facts, frames, training)
    return TestTimeRefinement(refined, outcome)


def refined_generation(
    model: Generation,
    potential: Storable,
    facts: dict[str, Any],
    frames: Batch,
    training: KnownFrames | None,
) -> Generation:
    """Return a generation of a refined potential.

    Its scorer is fitted anew, by leverage, to the training frames; without these, and
    without descriptors, it has none. It has no limits of its errors: those of the model
    were measured on another potential. Its domain is that of the model, and the frames.
    """
    scorer, threshold = None, None
    if training is not None:
        scorer, threshold = _fitted_scorer(potential, training.batch)
    known = model.domain
    if known is not None:
        known = Domain(tuple(sorted({*known.species, *Domain.of(frames).species})))
    return replace(
        model,
        potential=potential,
        scorer=scorer,
        threshold=threshold,
        facts={"refined": facts, "before": model.facts},
        domain=known,
        error_limits=None,
    )


def _fitted_scorer(
    potential: Potential, frames: Batch
) -> tuple[FittedScorer, float | None]:
    """Fit a scorer to half of the frames; the others give its threshold."""
    order = random_stream(0, "refine/scorer").permutation(len(frames))
    half = max(1, len(order) // 2)
    learned = frames.select(np.sort(order[:half]))
    held = frames.select(np.sort(order[half:]))
    scorer = fit_leverage(
        (learned, atom_descriptors(potential, learned)),
        (held, atom_descriptors(potential, held)),
    )
    surprise = scorer.score(held, potential.predict(held, descriptors=True))
    return scorer, surprise_threshold(surprise, _QUANTILE)
