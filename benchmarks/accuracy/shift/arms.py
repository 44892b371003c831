"""What may be done about frames that lie outside, as `shift.frames` tries it."""

import math
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata, spearmanr

from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import LabelSet
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.two_heads import TwoHeadPotential
from alloop.refine.radius import choose_radius, with_radius
from alloop.refine.shifts import SHIFTS, describe_frames, fit_shifts
from alloop.refine.test_time import (
    SCHEDULE,
    TestTimeLabels,
    TestTimeSettings,
    train_at_test_time,
)
from alloop.scores.connectivity import RADIUS, fit_connectivity
from alloop.scores.leverage import fit_leverage
from alloop.scores.qresidual import fit_qresidual
from alloop.training.fit import fit_network
from alloop.training.graph_pool import make_graph_pool
from alloop.training.label_changes import (
    joined_labels,
    select_labels,
    without_references,
)
from alloop.training.stages import Schedule, Stage
from benchmarks.accuracy.shift.sets import ShiftSet

_STEP_FACTOR = 50  # times the steps of a refinement, which the seconds cut short
TIMED_BY = "with replay"
EQUAL_TIME = "cheap training"
TAIL = 0.1  # the share of the frames with the largest errors
MIXTURES = {  # mean ranks
    "all three shifts": SHIFTS,
    "leverage and forces": ("leverage", "forces"),
    "leverage and connectivity": ("leverage", f"connectivity, {RADIUS:g} Å"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """The potential of each system of the test, and that for frames inside."""

    each: Mapping[int, Potential]
    inside: Potential

    def forces(self, test: ShiftSet) -> Floats:
        """Return the forces of all test frames (atoms, 3) in eV/Å."""
        batch = test.cheap.batch
        out = np.zeros_like(batch.positions)
        for system, potential in self.each.items():
            chosen = np.flatnonzero(test.systems == system)
            atoms = np.isin(batch.frame_index, chosen)
            out[atoms] = potential.predict(batch.select(chosen)).forces
        return out


def _same(test: ShiftSet, potential: Potential) -> Refined:
    systems = np.unique(test.systems).tolist()
    return Refined(dict.fromkeys(systems, potential), potential)


def nothing(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:  # noqa: ARG001
    return _same(test, model)


def radius(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:  # noqa: ARG001
    """Another radius for each system, where its graphs are out."""
    batch = test.train.expensive.batch
    reference = fit_shifts(describe_frames(model, batch), model.cutoff)
    potentials: dict[int, Potential] = {}
    for system in np.unique(test.systems).tolist():
        frames = test.cheap.batch.select(np.flatnonzero(test.systems == system))
        choice = choose_radius(reference, frames)
        potentials[system] = (
            with_radius(model, choice.radius) if choice.changed else model
        )
    return Refined(potentials, model)


def test_time(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:
    """Test-time training as in the paper, whatever it does to held-out labels."""
    return _test_time(model, test, options)


def head_again(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:
    """The same, and the expensive head fitted to the labels of the training again."""
    return _test_time(model, test, options, expensive=test.train.expensive)


def replayed(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:
    """The same with the cheap labels of the training beside the new ones."""
    return _test_time(model, test, options, test.train.cheap, test.train.expensive)


def _test_time(
    model: TwoHeadPotential,
    test: ShiftSet,
    options: Namespace,
    replay: LabelSet | None = None,
    expensive: LabelSet | None = None,
) -> Refined:
    free = test.expensive  # decides nothing, without a limit
    labels = TestTimeLabels(test.cheap, free, replay, expensive)
    tuned = train_at_test_time(model, labels, _settings(options, math.inf))
    return _same(test, tuned.potential)


def guarded(model: TwoHeadPotential, test: ShiftSet, options: Namespace) -> Refined:
    """The same, kept where held-out labels get worse by no more than 2 %."""
    train = test.train
    labels = TestTimeLabels(test.cheap, test.held_out, train.cheap, train.expensive)
    tuned = train_at_test_time(model, labels, _settings(options, 0.02))
    return _same(test, tuned.potential if tuned.kept else model)


def _settings(options: Namespace, worse: float) -> TestTimeSettings:
    return TestTimeSettings(
        steps=options.refine_steps,
        schedule=replace(SCHEDULE, compile=False),
        whole=options.whole,
        worse=worse,
    )


def cheap_training(
    model: TwoHeadPotential, test: ShiftSet, options: Namespace
) -> Refined:
    """Ordinary training of the whole network on the same cheap labels.

    It takes the CPU seconds of `with replay`. The energies' references are those of the
    cheap level; test errors are of forces.
    """
    return _same(
        test, _fine_tuned(model, model.cheap(), test.cheap, options, options.seconds)
    )


def bought_labels(
    model: TwoHeadPotential, test: ShiftSet, options: Namespace
) -> Refined:
    """Fine-tuning on the expensive labels that the money for the cheap ones buys."""
    count = max(1, math.floor(len(test.cheap) / test.ratio))
    chosen = np.arange(min(count, len(test.bought)))
    return _same(
        test, _fine_tuned(model, model, select_labels(test.bought, chosen), options)
    )


def _fine_tuned(
    model: TwoHeadPotential,
    level: LearnedPotential,
    labels: LabelSet,
    options: Namespace,
    seconds: float | None = None,
) -> LearnedPotential:
    targets = labels
    if model.repulsion is not None:
        targets = model.repulsion.without(targets)
    rest = without_references(targets, level.references)
    pool = make_graph_pool(rest, model.scale, model.cutoff, model.dtype)
    schedule: Schedule = replace(SCHEDULE, compile=False, energy=0.0, seconds=seconds)
    steps = (
        options.refine_steps if seconds is None else _STEP_FACTOR * options.refine_steps
    )
    stage = Stage("tuning", "cheap", steps, "previous", schedule=schedule)
    network, _ = fit_network(model.network, pool, stage, 0)
    return LearnedPotential(
        network, model.references, model.scale, repulsion=model.repulsion
    )


ARMS: Mapping[str, Callable[[TwoHeadPotential, ShiftSet, Namespace], Refined]] = {
    "nothing": nothing,
    "radius": radius,
    "test-time": test_time,
    "head again": head_again,
    TIMED_BY: replayed,
    "guarded": guarded,
    EQUAL_TIME: cheap_training,
    "expensive labels": bought_labels,
}


def arm_figures(
    name: str, model: TwoHeadPotential, test: ShiftSet, options: Namespace
) -> dict[str, float]:
    """Return errors in meV/Å of all frames and of the worst tenth, and CPU seconds.

    `rarest` is that of the atoms whose element the fewest frames of the training have.
    """
    began = time.process_time()
    refined = ARMS[name](model, test, options)
    seconds = time.process_time() - began
    forces = refined.forces(test)
    errors = _frame_errors(test.expensive, forces)
    rare = test.expensive.batch.numbers == _rarest_element(test)
    rare_errors = np.abs(forces - test.expensive.forces)[rare]
    worst = np.sort(errors)[-max(1, round(TAIL * len(errors))) :]
    held = test.held_out
    inside = _frame_errors(held, refined.inside.predict(held.batch).forces)
    return {
        "test": 1e3 * float(errors.mean()),
        "tail": 1e3 * float(worst.mean()),
        "inside": 1e3 * float(inside.mean()),
        "rarest": 1e3 * float(rare_errors.mean()),
        "cpu": seconds,
    }


def _rarest_element(test: ShiftSet) -> int:
    """Return the element of the test frames that the fewest training frames have."""
    train_frames = test.train.expensive.batch
    frames = {
        int(z): len(np.unique(train_frames.frame_index[train_frames.numbers == z]))
        for z in np.unique(test.expensive.batch.numbers)
    }
    return min(frames, key=lambda z: frames[z])


def _frame_errors(labels: LabelSet, forces: Floats) -> Floats:
    """Return each frame's mean absolute error of a force component, eV/Å."""
    errors = np.abs(forces - labels.forces).mean(axis=1)
    out: Floats = (
        np.add.reduceat(errors, labels.batch.offsets[:-1]) / labels.batch.sizes
    )
    return out


def shift_correlations(
    model: TwoHeadPotential, test: ShiftSet
) -> dict[str, tuple[float, float]]:
    """Return Spearman's correlation of shifts and surprises with the true error.

    On held-out and test frames together, and on the latter alone; the error is the
    largest of an atom. The last entries are mean ranks of several.
    """
    labels = joined_labels(test.held_out, test.expensive)
    batch, train = labels.batch, test.train.expensive.batch
    learned, described = (describe_frames(model, x) for x in (train, batch))
    said = model.predict(batch, descriptors=True)
    errors = largest_force_errors(batch, said.forces, labels.forces)
    shifts = fit_shifts(learned, model.cutoff).measure(described)
    values: dict[str, Floats] = {name: shifts.values.of(name) for name in SHIFTS}
    near = fit_connectivity(train, RADIUS)
    values[f"connectivity, {RADIUS:g} Å"] = near.score(batch, said)
    assert learned.descriptors is not None
    assert described.descriptors is not None
    learned_frames = (train, learned.descriptors)
    values["leverage"] = fit_leverage(learned_frames, learned_frames).score(batch, said)
    values["q-residual"] = fit_qresidual(*learned_frames, *learned_frames).score(
        batch, said
    )
    ranks = {name: rankdata(x) for name, x in values.items()}
    for name, parts in MIXTURES.items():
        values[name] = np.mean([ranks[part] for part in parts], axis=0)
    outside = slice(len(test.held_out), None)
    return {
        name: (_spearman(x, errors), _spearman(x[outside], errors[outside]))
        for name, x in values.items()
    }


def _spearman(values: Floats, errors: Floats) -> float:
    return float(spearmanr(values, errors).statistic) if np.ptp(values) else 0.0
