"""Dipoles read out of a network's features: laws, fit, files."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, TrainingData
from alloop.core.seeds import random_stream
from alloop.models.checkpoint import checkpoint_from_bytes, checkpoint_to_bytes
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.dipoles import DipolePotential
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.restore import restore_potential
from alloop.training.dipole_fit import fit_dipoles
from alloop.training.stages import standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from tests.models.kinds import SMALL, small

KINDS = ("painn", "tensor-painn", "egnn", "schnet")
REFERENCES = {1: -13.0, 8: -2000.0}
CHARGES = {8: -0.6, 1: 0.3}  # e


def waters(count: int, charge: int = 0, seed: int = 0) -> list[Frame]:
    """Distorted water molecules, turned and moved."""
    rng = random_stream(seed, "waters")
    frames = []
    for _ in range(count):
        shape = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        shape += rng.normal(0.0, 0.05, (3, 3))
        turn = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
        positions = shape @ turn.T + rng.normal(size=3)
        frames.append(Frame(np.array([8, 1, 1]), positions, charge=charge))
    return frames


def moment(frame: Frame) -> np.ndarray:
    """Charges that change with the bonds, e Å: charge flows along a stretched bond."""
    q = np.array([CHARGES[int(z)] for z in frame.numbers])
    x = frame.positions
    for hydrogen in (1, 2):
        flow = 0.3 * np.sin(6.0 * (np.linalg.norm(x[hydrogen] - x[0]) - 0.96))
        q[hydrogen] += flow
        q[0] -= flow
    q += frame.charge / 3
    return q @ x


def labels(frames: list[Frame]) -> LabelSet:
    dipoles = np.array([moment(frame) for frame in frames]).reshape(-1, 3)
    forces = [np.zeros((3, 3)) for _ in frames]
    return LabelSet.of(frames, np.zeros(len(frames)), forces, dipoles=dipoles)


def fitted(kind: str = "tensor-painn", count: int = 60) -> DipolePotential:
    potential = LearnedPotential(small(kind), REFERENCES)
    result = fit_dipoles(potential, [labels(waters(count))], seed=1)
    assert result is not None
    return result.potential


def dipoles(potential: DipolePotential, frames: list[Frame]) -> np.ndarray:
    out = potential.dipoles(pack_frames(frames))
    assert out is not None
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_dipoles_turn_with_a_molecule_and_stay_where_it_moves(kind: str) -> None:
    potential, (frame,) = fitted(kind), waters(1, seed=5)
    turn = Rotation.random(random_state=3).as_matrix()
    moved = replace(frame, positions=frame.positions @ turn.T + [1.0, -2.0, 3.0])
    before, after = dipoles(potential, [frame, moved])
    np.testing.assert_allclose(after, before @ turn.T, atol=1e-9)
    assert np.linalg.norm(before) > 0.1


def test_a_charged_molecule_s_dipole_moves_with_its_charge() -> None:
    potential, (frame,) = fitted(), waters(1, charge=2, seed=5)
    moved = replace(frame, positions=frame.positions + np.array([1.0, -2.0, 3.0]))
    before, after = dipoles(potential, [frame, moved])
    np.testing.assert_allclose(after - before, 2 * np.array([1.0, -2.0, 3.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_charges_that_flow_along_bonds_are_learned(kind: str) -> None:
    potential, frames = fitted(kind, 120), waters(20, seed=9)
    off = dipoles(potential, frames) - labels(frames).dipoles
    spread = np.std([np.linalg.norm(moment(x)) for x in frames])
    assert np.abs(off).mean() < 0.15 * spread


def test_the_error_on_frames_left_out_is_that_of_new_frames() -> None:
    potential = LearnedPotential(small("tensor-painn"), REFERENCES)
    result = fit_dipoles(potential, [labels(waters(80))], seed=1)
    assert result is not None
    new = waters(200, seed=4)
    error = np.abs(dipoles(result.potential, new) - labels(new).dipoles).mean()
    assert result.frames == 80
    assert error == pytest.approx(result.error, rel=0.5)


def test_few_expensive_dipoles_move_the_readout_of_many_cheap_ones() -> None:
    potential = LearnedPotential(small("painn"), REFERENCES)
    cheap, few = labels(waters(200)), labels(waters(10, seed=2))
    few = replace(few, dipoles=1.1 * few.dipoles)
    both, alone = (
        fit_dipoles(potential, levels, seed=1) for levels in ([cheap, few], [few])
    )
    new = labels(waters(50, seed=3))
    errors = [
        np.abs(dipoles(x.potential, [*new.batch.frames()]) - 1.1 * new.dipoles).mean()
        for x in (both, alone)
    ]
    assert errors[0] < 0.6 * errors[1], errors


def test_energies_and_forces_stay_as_they_are() -> None:
    potential, batch = fitted(), pack_frames(waters(3))
    plain = LearnedPotential(potential.frozen_network, REFERENCES).predict(batch)
    said = potential.predict(batch)
    np.testing.assert_array_equal(said.forces, plain.forces)
    np.testing.assert_array_equal(said.energies, plain.energies)


def test_a_model_file_holds_the_readout_and_ase_shows_it() -> None:
    potential, (frame,) = fitted(), waters(1)
    blob = checkpoint_to_bytes(potential.checkpoint())
    restored = restore_potential(checkpoint_from_bytes(blob))
    assert isinstance(restored, DipolePotential)
    (before,), (after,) = (dipoles(x, [frame]) for x in (potential, restored))
    np.testing.assert_array_equal(after, before)
    from alloop.core.atoms import to_atoms

    atoms = to_atoms(frame)
    atoms.calc = PotentialCalculator(restored)
    np.testing.assert_array_equal(atoms.get_dipole_moment(), before)


def test_a_readout_of_another_network_is_refused() -> None:
    checkpoint = fitted().checkpoint()
    wrong = {**checkpoint.tensors, "dipole/weights": np.zeros(5)}
    with pytest.raises(Exception, match="readout of dipoles"):
        restore_potential(replace(checkpoint, tensors=wrong))


def test_labels_without_dipoles_and_cells_are_left_out() -> None:
    potential, some = LearnedPotential(small("painn"), REFERENCES), labels(waters(20))
    none = replace(some, dipoles=None)
    assert fit_dipoles(potential, [none], seed=1) is None
    gaps = some.dipoles.copy()
    gaps[:8, 0] = np.nan
    result = fit_dipoles(potential, [replace(some, dipoles=gaps)], seed=1)
    assert result is not None
    assert result.frames == 12
    box = {"cell": 9.0 * np.eye(3), "pbc": (True, True, True)}
    cell = pack_frames([replace(frame, **box) for frame in waters(1)])
    assert result.potential.dipoles(cell) is None
    assert result.potential.predict(cell).dipoles is None


def test_a_trainer_learns_dipoles_where_it_is_told_to() -> None:
    data = TrainingData(labels([]), labels(waters(16)))
    trainer = StagedTrainer("painn", SMALL["painn"], standard_stages(4), dipoles=True)
    potential, history = trainer.train(data, None, seed=1)
    assert isinstance(potential, DipolePotential)
    assert history["dipole/frames"] == 16
    plain, without = replace(trainer, dipoles=False).train(data, None, seed=1)
    assert not isinstance(plain, DipolePotential)
    assert "dipole/mae" not in without
    batch = pack_frames(waters(2))
    forces = potential.predict(batch).forces
    np.testing.assert_array_equal(forces, plain.predict(batch).forces)
