"""The checks of Labeller, Scorer, Selector and Trainer."""

import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Candidate, Label, TrainingData, Unlabelled
from alloop.core.roles import (
    FittedScorer,
    Labeller,
    Potential,
    Retrain,
    Scorer,
    Selector,
    Trainer,
)
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.models.checkpoint import (
    Checkpoint,
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.potentials.restore import restore_potential
from alloop.testing.potentials import (
    check_forces,
    require,
    require_close,
    require_equal_bits,
    require_shape,
    shuffled_atoms,
)


def check_labeller(
    labeller: Labeller, frames: Sequence[Frame], *, tolerance: float = 1e-3
) -> None:
    """Check the ids of labels, that they repeat bit for bit, and their forces.

    Forces must be minus the gradient of the energies; labels of eight more frames for
    each frame are made for that.
    """
    labelled = []
    for frame in frames:
        label, again = labeller.label(frame), labeller.label(frame)
        require(isinstance(label, Label | Unlabelled), f"got a {type(label).__name__}")
        require(type(label) is type(again), "the same frame was labelled once in two")
        require(label.frame == frame.id, f"{frame.id} was labelled as {label.frame}")
        require(label.level == again.level, "the level changed between two labels")
        if isinstance(label, Label) and isinstance(again, Label):
            _check_labelled(label, again, frame)
            labelled.append(frame)
    oracle = LabellerPotential(labeller)
    check_forces(oracle, labelled, tolerance=tolerance, directions=2)


def check_scorer(
    scorer: Scorer,
    potential: Potential,
    frames: Sequence[Frame],
    *,
    retrain: Retrain | None = None,
    restore: Callable[[Checkpoint], Storable] = restore_potential,
    tolerance: float = 1e-6,
) -> None:
    """Check that a scorer can be fitted and stored, and that its surprise is sound.

    It is fitted to half of the frames, the rest are held out: the same fit must give
    the same bits, and so must the scorer restored from its arrays. The surprise of all
    frames must pass `check_fitted_scorer`. retrain: gives the further potentials that a
    scorer asks for, by default the same one again. restore: restores a potential.
    """

    def same_potential(number: int, share: float = 1.0) -> Potential:  # noqa: ARG001
        return potential

    learned, heldout = pack_frames(frames[::2]), pack_frames(frames[1::2])
    fitted, again = (
        scorer.fit(potential, learned, heldout, retrain or same_potential)
        for _ in range(2)
    )
    check_fitted_scorer(fitted, potential, frames, tolerance=tolerance)
    stored = checkpoint_to_bytes(Checkpoint("scorer", {}, fitted.arrays()))
    restored = scorer.restore(
        checkpoint_from_bytes(stored).tensors,
        lambda data: restore(checkpoint_from_bytes(data)),
    )
    batch = pack_frames(frames)
    predictions = potential.predict(batch, descriptors=True)
    surprise = fitted.score(batch, predictions)
    for other, sentence in (
        (again, "the same fit gives another surprise"),
        (restored, "the restored scorer gives another surprise"),
    ):
        require(np.array_equal(other.score(batch, predictions), surprise), sentence)


def check_fitted_scorer(
    scorer: FittedScorer,
    potential: Potential,
    frames: Sequence[Frame],
    *,
    tolerance: float = 1e-6,
) -> None:
    """Check that surprise is one finite number for each frame.

    It must depend neither on the other frames nor on the order of frames and atoms.
    """

    def surprise(batch: Batch) -> Floats:
        return scorer.score(batch, potential.predict(batch, descriptors=True))

    batch, other, _ = shuffled_atoms(frames)
    values = surprise(batch)
    require_shape("surprise", values, (len(batch),))
    limit = tolerance * max(1.0, float(np.abs(values).max(initial=0.0)))
    single = np.array([surprise(pack_frames([frame]))[0] for frame in frames])
    require_close("surprise depends on the other frames", single, values, limit)
    backwards = surprise(pack_frames(frames[::-1]))[::-1]
    require_close("surprise depends on the order of frames", backwards, values, limit)
    require_close(
        "surprise depends on the order of atoms", surprise(other), values, limit
    )


def check_selector(selector: Selector, candidates: Sequence[Candidate]) -> None:
    """Check that a selector keeps to the quota and is reproducible.

    It must return each index at most once, all in range, and the same ones for the same
    random stream; with none known, and with a third of the candidates known; without a
    threshold, and with one between the candidates' surprises.
    """
    middle = float(np.median([candidate.surprise for candidate in candidates]))
    third = len(candidates) // 3
    points = np.array([candidate.descriptor for candidate in candidates])
    for landmarks, new in (
        (points[:0], candidates),
        (points[:third], candidates[third:]),
    ):
        quotas = (0, 1, len(new) // 2, len(new), len(new) + 3)
        for quota, threshold in itertools.product(quotas, (None, middle)):
            picks = [
                selector.select(
                    new, landmarks, quota, random_stream(0, name), threshold
                )
                for name in ["testing/selector"] * 2
            ]
            _check_selected(picks[0], quota, len(new))
            require(picks[0] == picks[1], "the same call selected other candidates")


def check_trainer(trainer: Trainer, data: TrainingData, *, seed: int = 1) -> None:
    """Check that equal seeds give equal bits.

    The parent must not change, and the history must be JSON. The check trains four
    times: give it little to do.
    """
    frames = data.expensive.batch
    first, history = trainer.train(data, None, seed)
    json.dumps(history)
    before = first.predict(frames)
    again, _ = trainer.train(data, None, seed)
    require_equal_bits("training with the same seed", again.predict(frames), before)
    child, _ = trainer.train(data, first, seed)
    require_equal_bits("the parent of a training", first.predict(frames), before)
    twin, _ = trainer.train(data, again, seed)
    require_equal_bits(
        "training an equal parent", twin.predict(frames), child.predict(frames)
    )


def _check_labelled(label: Label, again: Label, frame: Frame) -> None:
    require_shape("forces", label.forces, (len(frame), 3))
    require(np.isfinite(label.energy), f"the energy is {label.energy}")
    same = label.energy == again.energy and np.array_equal(label.forces, again.forces)
    require(same, "the same frame got two different labels")


def _check_selected(picked: tuple[int, ...], quota: int, size: int) -> None:
    require(isinstance(picked, tuple), f"expected a tuple, got {type(picked).__name__}")
    require(len(picked) <= quota, f"selected {len(picked)} with a quota of {quota}")
    require(len(set(picked)) == len(picked), f"selected one candidate twice: {picked}")
    require(all(0 <= i < size for i in picked), f"expected indices in 0..{size - 1}")
