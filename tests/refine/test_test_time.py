"""Two heads on one representation, and gradient steps on it at test time."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, TrainingData
from alloop.models.checkpoint import checkpoint_from_bytes, checkpoint_to_bytes
from alloop.models.heads import beginning_names, head_names
from alloop.potentials.analytic import Morse
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.repulsion import ZBL
from alloop.potentials.restore import restore_potential
from alloop.potentials.two_heads import TwoHeadPotential
from alloop.refine.radius import with_radius
from alloop.refine.test_time import (
    TestTimeLabels,
    TestTimeSettings,
    element_warnings,
    known_truth,
    require_network,
    require_two_heads,
    train_at_test_time,
    truth_warning,
    with_cheap_head,
)
from alloop.testing import check_potential
from alloop.training.label_changes import joined_labels, select_labels
from alloop.training.stages import Schedule
from alloop.training.trainers.staged_trainer import TwoHeadTrainer, two_head_stages
from tests.models.kinds import small

CHEAP, EXPENSIVE = Morse(1.0, 1.6, 1.1), Morse(1.2, 1.6, 1.05)
SETTINGS = {"channels": 8, "layers": 2, "radial": 5, "cutoff": 4.0}
SCHEDULE = Schedule(batch=5, warmup=5, ema=0.9, compile=False)


def labels(level: Morse, name: str, count: int, width: float = 0.08) -> LabelSet:
    rng = np.random.default_rng(len(name))
    atoms = molecule(name)
    frames = []
    for _ in range(count):
        moved = atoms.copy()
        moved.positions += rng.normal(0, width, moved.positions.shape)
        frames.append(from_atoms(moved))
    batch = pack_frames(frames)
    said = level.predict(batch)
    return LabelSet(batch, said.energies, said.forces)


def error(potential, known: LabelSet) -> float:
    return float(np.abs(potential.predict(known.batch).forces - known.forces).mean())


@pytest.fixture(scope="module")
def trained() -> TwoHeadPotential:
    """Water at two levels."""
    data = TrainingData(labels(CHEAP, "H2O", 20), labels(EXPENSIVE, "H2O", 20))
    stages = two_head_stages((120, 60), SCHEDULE, 5e-3)
    potential, history = TwoHeadTrainer("painn", SETTINGS, stages).train(data, None, 0)
    assert history["stages"] == ["prior", "head"]
    return potential


def test_each_head_predicts_its_own_level(trained: TwoHeadPotential) -> None:
    cheap, expensive = (
        labels(CHEAP, "H2O", 10, 0.07),
        labels(EXPENSIVE, "H2O", 10, 0.07),
    )
    own = trained.cheap()
    assert error(own, cheap) < 0.7 * error(own, expensive)
    assert error(trained, expensive) < 0.7 * error(trained, cheap)
    head = head_names(trained.frozen_network)
    ours, theirs = (x.frozen_network.state_dict() for x in (trained, own))
    equal = {name for name in ours if bool((ours[name] == theirs[name]).all())}
    assert equal.isdisjoint(head)
    assert equal == set(ours) - head


def test_two_heads_are_stored_refined_and_lawful(trained: TwoHeadPotential) -> None:
    told = checkpoint_to_bytes(trained.checkpoint())
    again = restore_potential(checkpoint_from_bytes(told))
    assert isinstance(again, TwoHeadPotential)
    assert checkpoint_to_bytes(again.checkpoint()) == told
    frames = [from_atoms(molecule("H2O"))]
    check_potential(again, frames, tolerance=1e-3)
    wide = with_radius(again, 5.0)
    assert isinstance(wide, TwoHeadPotential)
    assert wide.cheap().cutoff == 5.0
    wrong = trained.checkpoint()
    tensors = {k: v for k, v in wrong.tensors.items() if "cheap/readout.0" not in k}
    with pytest.raises(InputError, match="cheap head"):
        restore_potential(replace(wrong, tensors=tensors))


@pytest.mark.parametrize("kind", ["painn", "gemnet"])
def test_head_and_beginning_are_parts_of_the_network(kind: str) -> None:
    for layers in (1, 3):
        network = small(kind, layers=layers)
        names = {name for name, _ in network.named_parameters()}
        head, beginning = head_names(network), beginning_names(network)
        assert head
        assert beginning
        assert head < names
        assert beginning < names
        assert head.isdisjoint(beginning)
    with pytest.raises(InputError, match="painn or gemnet for two heads, got schnet"):
        head_names(small("schnet"))


def test_cheap_labels_of_new_frames_move_the_beginning_alone(
    trained: TwoHeadPotential,
) -> None:
    new = labels(CHEAP, "H2O2", 10)
    held = labels(EXPENSIVE, "H2O", 8, 0.06)
    settings = TestTimeSettings(40, replace(SCHEDULE, optimiser="adamw"), worse=50.0)
    found = train_at_test_time(trained, TestTimeLabels(new, held), settings)
    assert found.share == 1.0
    assert found.cheap[1] < 0.9 * found.cheap[0]
    before, after = (x.frozen_network.state_dict() for x in (trained, found.potential))
    changed = {name for name in before if bool((before[name] != after[name]).any())}
    state = {"embedding.state.weight"}  # of charged frames and open shells
    assert changed == beginning_names(trained.frozen_network) - state
    again = train_at_test_time(trained, TestTimeLabels(new, held), settings)
    bits = [x.potential.predict(new.batch).forces for x in (found, again)]
    assert np.array_equal(*bits)


def test_the_expensive_head_is_fitted_again(trained: TwoHeadPotential) -> None:
    new, known = labels(CHEAP, "H2O2", 10), labels(EXPENSIVE, "H2O", 20)
    held = labels(EXPENSIVE, "H2O", 8, 0.06)
    settings = TestTimeSettings(40, replace(SCHEDULE, optimiser="adamw"), worse=50.0)
    plain, again = (
        train_at_test_time(trained, TestTimeLabels(new, held, expensive=x), settings)
        for x in (None, known)
    )
    assert again.held[1] < plain.held[1]
    assert again.cheap == plain.cheap
    one, other = (x.potential.frozen_network.state_dict() for x in (plain, again))
    changed = {name for name in one if bool((one[name] != other[name]).any())}
    assert changed <= head_names(trained.frozen_network)
    assert changed


def test_an_element_that_labels_hardly_have_is_told(trained: TwoHeadPotential) -> None:
    """Oxygen in one of thirty labels and in two of them, and in no held-out one."""
    new, held = labels(CHEAP, "H2O2", 2), labels(EXPENSIVE, "H2O", 2)
    hydrogen = labels(EXPENSIVE, "H2", 28)
    rare, enough = (
        TestTimeLabels(new, held, expensive=joined_labels(hydrogen, known))
        for known in (labels(EXPENSIVE, "H2O", n) for n in (1, 2))
    )
    (told,) = element_warnings(new.batch, rare.held_out, rare.expensive)
    assert told.startswith(
        "O is in 1 expensive label of the training and in 2 held-out"
    )
    assert element_warnings(new.batch, enough.held_out, enough.expensive) == []
    (told,) = element_warnings(new.batch, hydrogen, enough.expensive)
    assert "and in 0 held-out ones" in told
    (told,) = element_warnings(new.batch, hydrogen, None)
    assert told.startswith("O is in 0 held-out labels: forces")
    settings = TestTimeSettings(1, SCHEDULE, worse=50.0)
    assert train_at_test_time(trained, rare, settings).kept


def test_an_ordinary_network_gets_a_cheap_head_and_keeps_its_own(
    trained: TwoHeadPotential,
) -> None:
    plain = LearnedPotential(
        trained.frozen_network, trained.references, trained.scale, repulsion=ZBL
    )
    cheap, fresh = labels(CHEAP, "H2O", 20), labels(CHEAP, "H2O", 10, 0.07)
    assert with_cheap_head(trained, None) is trained
    whole = with_cheap_head(plain, cheap, TestTimeSettings(60, SCHEDULE))
    assert np.array_equal(
        whole.predict(fresh.batch).forces, plain.predict(fresh.batch).forces
    )
    own = whole.cheap()
    assert error(own, fresh) < 0.7 * error(plain, fresh)
    said = own.predict(fresh.batch).energies
    assert said == pytest.approx(fresh.energies, abs=0.3)
    before, after = (x.frozen_network.state_dict() for x in (plain, own))
    changed = {name for name in before if bool((before[name] != after[name]).any())}
    assert changed
    assert changed <= head_names(plain.frozen_network)
    held = labels(EXPENSIVE, "H2O", 8, 0.06)
    new = TestTimeLabels(labels(CHEAP, "H2O2", 8), held, cheap)
    settings = TestTimeSettings(20, replace(SCHEDULE, optimiser="adamw"), worse=50.0)
    found = train_at_test_time(whole, new, settings)
    assert found.cheap[1] < found.cheap[0]
    for none in (None, select_labels(cheap, np.arange(0))):
        with pytest.raises(InputError, match="label its frames at that level"):
            with_cheap_head(plain, none)
    with pytest.raises(InputError, match="a trained network to refine"):
        with_cheap_head(CHEAP, cheap)
    with pytest.raises(InputError, match="for two heads, got schnet"):
        require_network(LearnedPotential(small("schnet"), {1: 0.0, 8: 0.0}))


def test_unknown_truth_of_the_refined_frames_is_told() -> None:
    new, held = labels(CHEAP, "H2O", 4), labels(EXPENSIVE, "H2O", 6, 0.06)
    told = truth_warning(new.batch, held)
    assert told is not None
    assert "no expensive label of the refined frames is known" in told
    twin = EXPENSIVE.predict(new.batch)
    theirs = LabelSet(new.batch, twin.energies, twin.forces)
    both = joined_labels(held, select_labels(theirs, np.arange(2)))
    assert truth_warning(new.batch, both) is None
    assert known_truth(new.batch, both).energies == pytest.approx(twin.energies[:2])


def test_new_frames_are_half_of_those_learned() -> None:
    new, known = labels(CHEAP, "H2O2", 3), labels(CHEAP, "H2O", 7)
    learned = TestTimeLabels(new, known, known).learned
    fresh = [len(x) == 4 for x in learned.batch.frames()]
    assert (sum(fresh), len(fresh)) == (7, 14)


def test_a_constant_of_the_energies_does_not_matter(trained: TwoHeadPotential) -> None:
    new, held = labels(CHEAP, "H2O2", 5), labels(EXPENSIVE, "H2O", 4)
    settings = TestTimeSettings(5, SCHEDULE, worse=50.0)
    moved = replace(new, energies=new.energies + 1000.0)
    found = [
        train_at_test_time(trained, TestTimeLabels(x, held), settings).cheap[1]
        for x in (new, moved)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_makes_held_out_labels_worse_is_rolled_back(
    trained: TwoHeadPotential,
) -> None:
    new, held = labels(CHEAP, "H2O2", 5), labels(EXPENSIVE, "H2O", 4)
    said = trained.predict(held.batch)
    perfect = LabelSet(held.batch, said.energies, said.forces)
    found = train_at_test_time(
        trained, TestTimeLabels(new, perfect), TestTimeSettings(10, SCHEDULE)
    )
    assert not found.kept
    assert found.share == 0.0
    assert found.held[1] > found.held[0]


def test_what_cannot_be_refined_is_told_in_a_sentence(
    trained: TwoHeadPotential,
) -> None:
    held = labels(EXPENSIVE, "H2O", 4)
    none = select_labels(held, np.arange(0))
    with pytest.raises(InputError, match="a model with a cheap head"):
        require_two_heads(trained.cheap())
    with pytest.raises(InputError, match="trained on, got C;"):
        train_at_test_time(trained, TestTimeLabels(labels(CHEAP, "CH4", 2), held))
    for cheap, other in ((none, held), (held, none)):
        with pytest.raises(InputError, match="labels to refine a model, got none"):
            train_at_test_time(trained, TestTimeLabels(cheap, other))
    stages = two_head_stages((1, 1), SCHEDULE)
    trainer = TwoHeadTrainer("painn", SETTINGS, stages)
    with pytest.raises(InputError, match="expected cheap labels for the cheap head"):
        trainer.train(TrainingData(none, held), None, 0)
