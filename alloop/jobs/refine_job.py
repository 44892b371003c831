"""Models refined for frames unlike their training set, as generations of their own.

Test-time training has labels from two sources: cheap ones of the new frames, and of
those that models were trained on, expensive ones held out among them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, LabelSet, Unlabelled
from alloop.core.roles import FittedScorer, Potential
from alloop.core.seeds import random_stream
from alloop.core.species import Domain
from alloop.export.choice import Choice, chosen_labels
from alloop.files.labelled_frames import FileUnits
from alloop.generation import Generation
from alloop.history.reader import History
from alloop.intake import read_labels
from alloop.jobs.diagnose_job import diagnose
from alloop.jobs.label_frames import LabelProgress, label_frames
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
    thinned_labels,
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
    diagnosis = diagnose(model.potential, training, frames, radius=trained)
    choice = choose_radius(diagnosis.training, frames.batch, candidates, margin)
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
    domain = model.domain
    if domain is not None:
        domain = Domain(tuple(sorted({*domain.species, *Domain.of(frames).species})))
    return replace(
        model,
        potential=potential,
        scorer=scorer,
        threshold=threshold,
        facts={"refined": facts, "before": model.facts},
        domain=domain,
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


def level_labels(
    frames: Sequence[Frame],
    level: Level,
    workers: int | None = None,
    cache: Path | None = None,
    observe: Callable[[LabelProgress], None] | None = None,
) -> tuple[LabelSet, tuple[str, ...]]:
    """Return the labels of frames at a level, and a sentence on those without.

    Each frame is labelled once. observe: called with the progress. Raises InputError
    where the level cannot treat their elements, and where no frame got a label.
    """
    distinct = list(dict.fromkeys(frames))
    records = label_frames(
        distinct, level, workers=workers, cache=cache, observe=observe
    )
    rows = zip(distinct, records, strict=True)
    good = [(frame, x) for frame, x in rows if isinstance(x, Label)]
    failed = [x for x in records if isinstance(x, Unlabelled)]
    if not good:
        why = failed[0].message or failed[0].failure.name.lower()
        raise InputError(
            f"expected labels of the frames at {level.title}, it gave none of "
            f"{len(failed)} ({why}); choose another level"
        )
    if not failed:
        return _label_set(good), ()
    return _label_set(good), (f"{len(failed)} of {len(records)} frames got no label",)


def require_cheap_level(history: History, level: Level) -> None:
    """Raise InputError where a level is not that of a campaign's cheap labels."""
    stored = history.opened.levels.get("cheap")
    if stored is not None and stored != level.id:
        title = history.attrs.get("levels", {}).get("cheap", {}).get("title", stored)
        raise InputError(
            f"expected the level of the model's cheap head, {title}, got "
            f"{level.title}; give that level"
        )


def store_held_out(history: History, generation: int) -> LabelSet:
    """Return the expensive labels that a generation was not trained on.

    Raises InputError where there are none.
    """
    held = [
        row
        for split in ("validation", "test")
        for row in _store_labels(history, Choice("expensive", split, generation))
    ]
    if not held:
        raise InputError(
            f"expected expensive labels in {history.path} that the model was not "
            "trained on, found none; give `--heldout FILE`"
        )
    return _label_set(held)


def store_expensive(history: History, generation: int) -> LabelSet | None:
    """Return the expensive labels that a generation was trained on."""
    labels = _store_labels(history, Choice("expensive", "train", generation))
    return _label_set(labels) if labels else None


def store_replay(history: History, generation: int) -> LabelSet | None:
    """Return the cheap labels that a generation was trained on, evenly thinned."""
    labels = _store_labels(history, Choice("cheap", "train", generation))
    return thinned_labels(_label_set(labels)) if labels else None


def _store_labels(history: History, choice: Choice) -> list[tuple[Frame, Label]]:
    records = ((x.entry.frame, x.entry.record) for x in chosen_labels(history, choice))
    return [(frame, label) for frame, label in records if isinstance(label, Label)]


def _label_set(rows: Sequence[tuple[Frame, Label]]) -> LabelSet:
    return LabelSet.of(
        [frame for frame, _ in rows],
        [label.energy for _, label in rows],
        [label.forces for _, label in rows],
    )


def file_labels(path: Path, units: FileUnits) -> tuple[LabelSet, tuple[str, ...]]:
    """Return the labels of a file, and sentences on units that do not seem right."""
    labelled = read_labels(path, energy_unit=units.energy, length_unit=units.length)
    labels = LabelSet.of(labelled.frames, labelled.energies, labelled.forces)
    return labels, labelled.warnings
