"""From labels to a generation: train, fit the scorer, set the threshold, evaluate."""

from dataclasses import replace

import numpy as np

from alloop.core.batch import Batch, pack
from alloop.core.records import LabelSet, Predictions, TrainingData
from alloop.core.roles import Potential
from alloop.core.seeds import stream, torch_seed
from alloop.core.units import Floats
from alloop.generation import Generation, from_bytes, to_bytes
from alloop.loop import events as e
from alloop.loop.kit import Cargo, Kit, Scoring
from alloop.potentials.storable import Storable
from alloop.scores.calibrate import threshold
from alloop.scores.qresidual import QResidual, fit


def teach(command: e.Train, cargo: Cargo, kit: Kit) -> tuple[e.Trained, bytes]:
    """Train on the cargo's labels; the event without its timing, and the blob."""
    if cargo.data is None:
        raise TypeError("Train needs labels in its cargo")
    parent = (
        None if cargo.model is None else from_bytes(cargo.model, kit.restore).potential
    )
    seed = torch_seed(kit.seed, command.name)
    potential, history = kit.trainer.train(cargo.data, parent, seed)
    if not isinstance(potential, Storable):
        raise TypeError("the trainer's potential has no checkpoint()")
    scorer, limit, landmarks = _scorer(
        potential, cargo.data, cargo.heldout or pack(()), kit
    )
    generation = Generation(potential, scorer, limit, facts={})
    evaluation = _evaluate(generation, cargo.test)
    generation = _with_facts(generation, command, evaluation)
    model, blob = to_bytes(generation)
    event = e.Trained(
        name=command.name,
        generation=command.generation,
        model=model,
        threshold=limit,
        evaluation=evaluation,
        landmarks=landmarks,
        history=history,
    )
    return event, blob


def _scorer(
    potential: Potential, data: TrainingData, heldout: Batch, kit: Kit
) -> tuple[QResidual, float | None, Floats]:
    """The scorer, the flagging threshold, and the landmarks for diversity."""
    scoring = kit.scoring
    seen = pack([*data.cheap.batch.frames(), *data.expensive.batch.frames()])
    seen, heldout = _reference(seen, heldout, kit)
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
    return scorer, limit, _landmarks(seen, described, scoring)


def _reference(seen: Batch, heldout: Batch, kit: Kit) -> tuple[Batch, Batch]:
    """Where no frames are held out, half of the training frames stand in."""
    if len(heldout):
        return seen, heldout
    order = stream(kit.seed, "scorer").permutation(len(seen))
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


def _evaluate(generation: Generation, test: LabelSet | None) -> e.Evaluation | None:
    if test is None or len(test) == 0:
        return None
    said = generation.predict(test.batch, descriptors=True)
    errors = said.forces - test.forces
    offset = said.energies - test.energies
    return e.Evaluation(
        frames=tuple(frame.id for frame in test.batch.frames()),
        energies=said.energies,
        forces=said.forces,
        surprise=_surprise(generation, test.batch, said),
        energy_mae=float(np.abs(offset - offset.mean()).mean()),
        force_mae=float(np.abs(errors).mean()),
        force_rmse=float(np.sqrt((errors**2).mean())),
    )


def _surprise(generation: Generation, batch: Batch, said: Predictions) -> Floats:
    if generation.scorer is None:
        return np.full(len(batch), np.nan)
    return generation.scorer.score(batch, said)


def _with_facts(
    generation: Generation, command: e.Train, evaluation: e.Evaluation | None
) -> Generation:
    facts: dict[str, int | float] = {
        "generation": command.generation,
        "cheap_labels": len(command.cheap),
        "expensive_labels": len(command.expensive),
    }
    if evaluation is not None:
        facts["test_force_mae_eV_per_A"] = evaluation.force_mae
        facts["test_frames"] = len(evaluation.frames)
    return replace(generation, facts=facts)
