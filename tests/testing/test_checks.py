"""The laws themselves: each passes what is right and catches what breaks it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.distance import pdist

from alloop import testing
from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import (
    Candidate,
    Failure,
    Label,
    LabelSet,
    Predictions,
    TrainingData,
    Unlabelled,
)
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.analytic import Morse
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from tests.potentials.harmonic import HarmonicWell

FRAMES = [from_atoms(molecule(name)) for name in ("H2O", "CH4", "H2O2")]
BASIS = PairBasis((1, 6, 8), radial=4, cutoff=4.0)


def right() -> PairwisePotential:
    return PairwisePotential(BASIS, np.random.default_rng(2).normal(size=BASIS.size))


@dataclass(frozen=True)
class Broken:
    """A right potential with one fault."""

    spoil: Callable[[Batch, Predictions], Predictions]
    cutoff: float = BASIS.cutoff

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        return self.spoil(batch, right().predict(batch, descriptors=descriptors))


def wrong_forces(batch: Batch, said: Predictions) -> Predictions:
    return replace(said, forces=said.forces * 1.0001)


def lazy_atom(batch: Batch, said: Predictions) -> Predictions:
    """One force component of one atom is forgotten."""
    forces = said.forces.copy()
    forces[-1, 2] = 0.0
    return replace(said, forces=forces)


def slope(batch: Batch, said: Predictions) -> Predictions:
    """An outer field along x."""
    slopes = np.bincount(batch.frame_index, 1e-3 * batch.positions[:, 0])
    forces = said.forces - 1e-3 * np.array([1.0, 0.0, 0.0])
    return Predictions(said.energies + slopes, forces)


def compass(batch: Batch, said: Predictions) -> Predictions:
    """An energy that knows where x is."""
    apart = _bonds_of_the_first_atom(batch, 1)
    return replace(said, energies=said.energies + 0.01 * apart[0][:, 0])


def handed(batch: Batch, said: Predictions) -> Predictions:
    """An energy that tells left from right."""
    a, b, c = _bonds_of_the_first_atom(batch, 3)
    volume = np.einsum("fd,fd->f", a, np.cross(b, c))
    return replace(said, energies=said.energies + 0.01 * volume)


def first_atom(batch: Batch, said: Predictions) -> Predictions:
    """An energy that prefers the atom listed first."""
    first = batch.numbers[batch.offsets[:-1]]
    return replace(said, energies=said.energies + 0.01 * first)


def neighbours(batch: Batch, said: Predictions) -> Predictions:
    """Frames of one batch that see each other."""
    return replace(said, energies=said.energies + 1e-3 * said.energies.mean())


def place(batch: Batch, said: Predictions) -> Predictions:
    """A frame whose answer depends on its place in the batch."""
    return replace(said, energies=said.energies + 1e-3 * np.arange(len(batch)))


def long_range(batch: Batch, said: Predictions) -> Predictions:
    """Atoms that count each other at any distance."""
    return replace(said, energies=said.energies + 1e-3 * batch.sizes**2)


def jump(batch: Batch, said: Predictions) -> Predictions:
    """A pair energy that is cut and not brought to zero."""
    near = [np.count_nonzero(pdist(f.positions) < BASIS.cutoff) for f in batch.frames()]
    return replace(said, energies=said.energies + 1e-3 * np.array(near))


def kink(batch: Batch, said: Predictions) -> Predictions:
    """A force that jumps at the cutoff, where its energy does not."""
    near = [np.count_nonzero(pdist(f.positions) < BASIS.cutoff) for f in batch.frames()]
    pulls = 1e-3 * np.repeat(near, batch.sizes)[:, None] * np.array([1.0, 0.0, 0.0])
    return replace(said, forces=said.forces + pulls)


def forgetful() -> Callable[[Batch, Predictions], Predictions]:
    """Never gives the same answer twice."""
    calls = itertools.count()

    def spoil(batch: Batch, said: Predictions) -> Predictions:
        return replace(said, forces=said.forces + 1e-13 * next(calls))

    return spoil


def meddling(batch: Batch, said: Predictions) -> Predictions:
    batch.positions[0] += 1.0
    return said


def single_precision(batch: Batch, said: Predictions) -> Predictions:
    return replace(said, energies=said.energies.astype(np.float32))


def undefined(batch: Batch, said: Predictions) -> Predictions:
    return replace(said, forces=said.forces * np.nan)


def undescribed(batch: Batch, said: Predictions) -> Predictions:
    return replace(said, descriptors=None)


def _bonds_of_the_first_atom(batch: Batch, count: int) -> list[Floats]:
    first = batch.offsets[:-1]
    x = batch.positions
    return [x[first + k] - x[first] for k in range(1, count + 1)]


class BadlyStored(PairwisePotential):
    """Forgets the last digits when it is stored."""

    def checkpoint(self) -> Checkpoint:
        whole = super().checkpoint()
        rounded = {k: np.round(v, 6) for k, v in whole.tensors.items()}
        return replace(whole, tensors=rounded)


class LeftOver(PairwisePotential):
    """Counts no reference energies to its atoms."""

    def atom_energies(self, batch: Batch) -> Floats:
        return super().atom_energies(batch) - 1.0


def test_energies_of_atoms_that_do_not_sum_to_the_frame_s_are_caught() -> None:
    potential = right()
    testing.check_atom_energies(potential, FRAMES)
    wrong = LeftOver(potential.basis, potential.coefficients)
    with pytest.raises(AssertionError, match="energies of atoms sum to"):
        testing.check_atom_energies(wrong, FRAMES)
    with pytest.raises(AssertionError, match="energies of atoms sum to"):
        testing.check_potential(wrong, FRAMES)


def test_a_right_potential_passes_all_laws() -> None:
    testing.check_potential(right(), FRAMES)


@pytest.mark.parametrize(
    ("law", "fault", "sentence"),
    [
        (testing.check_forces, wrong_forces, "not minus the energy's gradient"),
        (testing.check_forces, lazy_atom, "not minus the energy's gradient"),
        (testing.check_translation, slope, "energy changes with translation"),
        (testing.check_rotation, compass, "energy changes with rotation"),
        (testing.check_reflection, handed, "energy changes with reflection"),
        (testing.check_permutation, first_atom, "energy changes with permutation"),
        (testing.check_batching, neighbours, "energy changes with batching"),
        (testing.check_batching, place, "energy changes with batching"),
        (testing.check_far_molecules, long_range, "between far molecules"),
        (testing.check_predictions, forgetful(), "not give the same bits"),
        (testing.check_predictions, meddling, "changed the positions"),
        (testing.check_predictions, single_precision, "got float32"),
        (testing.check_predictions, undefined, "forces are not all finite"),
        (testing.check_predictions, undescribed, "expected descriptors"),
    ],
)
def test_each_law_catches_its_fault(law: Any, fault: Any, sentence: str) -> None:
    law(right(), FRAMES)
    with pytest.raises(AssertionError, match=sentence):
        law(Broken(fault), FRAMES)


@pytest.mark.parametrize("fault", [jump, kink, wrong_forces, long_range, compass])
def test_all_laws_together_catch_each_fault(fault: Any) -> None:
    with pytest.raises(AssertionError):
        testing.check_potential(Broken(fault), FRAMES)


def test_an_outer_field_is_no_free_potential() -> None:
    with pytest.raises(AssertionError, match="changes with translation"):
        testing.check_translation(HarmonicWell(), FRAMES)


def test_rotation_alone_does_not_catch_handedness() -> None:
    """Which is why there is a law for reflections."""
    testing.check_rotation(Broken(handed), FRAMES)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [(jump, "energy changes with crossing"), (kink, "do not follow crossing")],
)
def test_a_jump_at_the_cutoff_is_caught(fault: Any, sentence: str) -> None:
    testing.check_cutoff(right(), FRAMES, cutoff=4.0)
    with pytest.raises(AssertionError, match=sentence):
        testing.check_cutoff(Broken(fault), FRAMES, cutoff=4.0)


def test_a_potential_that_is_stored_badly_is_caught() -> None:
    testing.check_stored(right(), FRAMES)
    with pytest.raises(AssertionError, match="stored and restored"):
        testing.check_stored(BadlyStored(BASIS, right().coefficients), FRAMES)


def test_charged_frames_are_passed_over_where_sums_need_not_hold() -> None:
    cation = from_atoms(molecule("H2O"), charge=1, spin=1)
    testing.check_far_molecules(Broken(long_range), [cation])


# --- labellers -----------------------------------------------------------------------


@dataclass
class Labels:
    """Morse labels with a fault on demand."""

    fault: str = ""
    count: int = 0

    def label(self, frame: Frame) -> Label | Unlabelled:
        self.count += 1
        if self.fault == "refuses":
            return Unlabelled(frame.id, "morse", Failure.UNSUPPORTED)
        if self.fault == "gives up" and self.count % 2 == 0:
            return Unlabelled(frame.id, "morse", Failure.LOST)
        said = Morse().predict(pack_frames([frame]))
        energy, forces = float(said.energies[0]), said.forces
        if self.fault == "drifts":
            energy += 1e-9 * self.count
        if self.fault == "force":
            forces = 1.02 * forces
        name = "another" if self.fault == "name" else frame.id
        level = f"morse {self.count}" if self.fault == "level" else "morse"
        return Label(name, level, energy, forces)


@pytest.mark.parametrize("fault", ["", "refuses"])
def test_labellers_that_label_or_refuse_are_right(fault: str) -> None:
    testing.check_labeller(Labels(fault), FRAMES)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("drifts", "two different labels"),
        ("gives up", "labelled once in two"),
        ("force", "not minus the energy's gradient"),
        ("name", "was labelled as another"),
        ("level", "the level changed"),
    ],
)
def test_faults_of_a_labeller_are_caught(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_labeller(Labels(fault), FRAMES)


# --- scorers -------------------------------------------------------------------------


@dataclass(frozen=True)
class Loudest:
    """The largest descriptor norm of a frame, with a fault on demand."""

    fault: str = ""
    scale: float = 1.0

    def fit(self, potential, learned, heldout, retrain):  # noqa: ARG002
        chance = np.random.default_rng().random() if self.fault == "chance" else 0.0
        return Loudest(self.fault, len(learned) + chance)

    def restore(self, arrays, read_potential):  # noqa: ARG002
        stored = 1.0 if self.fault == "forgets" else float(arrays["scale"][0])
        return Loudest(self.fault, stored)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"scale": np.array([self.scale])}

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        assert predictions.descriptors is not None
        norms = np.linalg.norm(predictions.descriptors, axis=1)
        out: Floats = self.scale * np.maximum.reduceat(norms, batch.offsets[:-1])
        if self.fault == "others":
            out = out / out.max()
        if self.fault == "place":
            out = out + 0.1 * np.arange(len(out)) * (len(out) > 1)
        if self.fault == "first":
            out = norms[batch.offsets[:-1]]
        if self.fault == "nan":
            out = out * np.nan
        return out


def test_a_right_scorer_passes() -> None:
    testing.check_scorer(Loudest(), right(), FRAMES)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("others", "depends on the other frames"),
        ("place", "depends on the other frames"),
        ("first", "depends on the order of atoms"),
        ("nan", "surprise are not all finite"),
        ("chance", "the same fit gives another surprise"),
        ("forgets", "the restored scorer gives another surprise"),
    ],
)
def test_faults_of_a_scorer_are_caught(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_scorer(Loudest(fault), right(), FRAMES)


# --- selectors -----------------------------------------------------------------------


@dataclass
class Top:
    """The most surprising candidates, with a fault on demand."""

    fault: str = ""
    calls: int = 0

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Sequence[Candidate],
        quota: int,
        rng: np.random.Generator,
        threshold: float | None,  # noqa: ARG002
    ) -> tuple[int, ...]:
        self.calls += 1
        ties = rng.permutation(len(candidates))
        order = np.lexsort((ties, [-c.surprise for c in candidates])).tolist()
        if self.fault == "greedy":
            return tuple(order[: quota + 1])
        if self.fault == "twice":
            return tuple((order[:1] * 2 + order)[:quota])
        if self.fault == "outside":
            return tuple(len(known) + i for i in order[:quota])
        if self.fault == "moody":
            order = order[self.calls % 2 :] + order[: self.calls % 2]
        picked = order[:quota]
        return picked if self.fault == "list" else tuple(picked)


def candidates() -> list[Candidate]:
    frame = FRAMES[0]
    zeros = np.zeros((3, 3))
    return [
        Candidate(frame, 0, 0, i, float(i), 0.0, zeros, np.array([float(i)]))
        for i in range(9)
    ]


def test_a_right_selector_passes() -> None:
    testing.check_selector(Top(), candidates())


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("greedy", "selected 1 with a quota of 0"),
        ("twice", "one candidate twice"),
        ("outside", r"expected indices in 0\.\.5"),
        ("moody", "selected other candidates"),
        ("list", "expected a tuple, got list"),
    ],
)
def test_faults_of_a_selector_are_caught(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_selector(Top(fault), candidates())


# --- trainers ------------------------------------------------------------------------


@dataclass
class LeastSquares:
    """Fits a pair potential to the expensive forces, with a fault on demand."""

    fault: str = ""
    calls: int = 0

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[Potential, dict[str, Any]]:
        self.calls += 1
        labels = data.expensive
        rows = BASIS.design_matrix(labels.batch).forces.reshape(-1, BASIS.size)
        target = labels.forces.ravel()
        if self.fault == "moody":
            target = target * (1.0 + 1e-9 * self.calls)
        fitted, *_ = np.linalg.lstsq(rows, target, rcond=1e-9)
        if isinstance(parent, PairwisePotential) and self.fault == "greedy":
            parent.coefficients *= 1.01
        history = {"seed": np.int64(seed) if self.fault == "history" else seed}
        return PairwisePotential(BASIS, fitted), history


def training_data() -> TrainingData:
    batch = pack_frames(FRAMES)
    said = Morse().predict(batch)
    labels = LabelSet(batch, said.energies, said.forces)
    return TrainingData(cheap=labels, expensive=labels)


def test_a_right_trainer_passes() -> None:
    testing.check_trainer(LeastSquares(), training_data())


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("moody", "training with the same seed"), ("greedy", "the parent of a training")],
)
def test_faults_of_a_trainer_are_caught(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_trainer(LeastSquares(fault), training_data())


def test_a_history_that_is_no_json_is_caught() -> None:
    with pytest.raises(TypeError, match="int64"):
        testing.check_trainer(LeastSquares("history"), training_data())
