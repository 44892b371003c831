"""Shifts of frames made by hand: hotter, stretched, with a new element."""

from dataclasses import dataclass

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.potentials.analytic import Morse
from alloop.refine.shifts import (
    SHIFTS,
    DescribedFrames,
    describe_frames,
    fit_shifts,
    force_norms,
)


@dataclass(frozen=True)
class Described:
    """Morse pairs with the least and the largest distance of an atom, or without."""

    has: bool = True

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        found = Morse().predict(batch)
        if not (descriptors and self.has):
            return Predictions(found.energies, found.forces)
        rows = np.zeros((len(batch.numbers), 2))
        for atoms in batch.atom_slices():
            x = batch.positions[atoms]
            apart = np.sort(np.linalg.norm(x[:, None] - x, axis=-1), axis=1)
            rows[atoms] = apart[:, [1, -1]]
        return Predictions(found.energies, found.forces, rows)


def waters(count: int, width: float, seed: int = 0, stretch: float = 1.0) -> Batch:
    frames = []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.rattle(width, seed=1000 * seed + k)
        atoms.positions[1] = atoms.positions[0] + stretch * (
            atoms.positions[1] - atoms.positions[0]
        )
        frames.append(from_atoms(atoms))
    return pack_frames(frames)


@pytest.fixture(scope="module")
def training() -> DescribedFrames:
    return describe_frames(Described(), waters(200, 0.03))


def test_frames_like_those_of_training_are_inside(training: DescribedFrames) -> None:
    known = fit_shifts(training, 2.0)
    new = describe_frames(Described(), waters(200, 0.03, seed=1))
    found = known.measure(new)
    for shift in SHIFTS:
        assert found.out[shift].mean() <= 0.03
        assert abs(found.deviations[shift].mean()) < 0.3
    assert found.outside.sum() <= 10
    assert [(x.number, x.atoms, x.trained) for x in found.elements] == [
        (1, 400, 400),
        (8, 200, 200),
    ]
    assert all(x.out <= 0.03 for x in found.elements)


def test_each_shift_sees_what_it_is_made_for(training: DescribedFrames) -> None:
    known = fit_shifts(training, 2.0)
    hot = known.measure(describe_frames(Described(), waters(20, 0.2, seed=2)))
    broken = known.measure(
        describe_frames(Described(), waters(5, 0.03, seed=3, stretch=3.0))
    )
    assert hot.out["features"].mean() > 0.5
    assert hot.out["forces"].mean() > 0.5
    assert hot.out["connectivity"].mean() < 0.2
    assert broken.out["connectivity"].all()
    assert "connectivity" in broken.out_by(0)
    assert (broken.values.from_mean > 0.1).all()
    far = broken.deviations["features"]
    assert (far > 10.0).all()


def test_an_unknown_element_is_outside_and_not_predicted(
    training: DescribedFrames,
) -> None:
    known = fit_shifts(training, 2.0)
    batch = pack_frames([from_atoms(molecule(name)) for name in ("SH2", "H2O")])
    found = known.measure(describe_frames(Described(), batch, elements=(1, 8)))
    assert found.out["features"].tolist() == [True, False]
    assert np.isnan(found.values.forces).tolist() == [True, False]
    (sulfur,) = (x for x in found.elements if x.number == 16)
    assert (sulfur.atoms, sulfur.trained, sulfur.out) == (1, 0, 1.0)


def test_labels_take_the_place_of_the_models_forces() -> None:
    batch = waters(3, 0.03)
    forces = np.tile([3.0, 0.0, 4.0], (9, 1))
    forces[:3] = 0.0
    assert force_norms(batch, forces) == pytest.approx([0.0, 5.0, 5.0])
    given = describe_frames(Described(), batch, forces)
    assert given.norms == pytest.approx([0.0, 5.0, 5.0])


def test_a_potential_without_descriptors_has_no_feature_shift() -> None:
    known = fit_shifts(describe_frames(Described(False), waters(20, 0.03)), 2.0)
    found = known.measure(describe_frames(Described(False), waters(4, 0.03, 1, 3.0)))
    assert np.isnan(found.values.features).all()
    assert not found.out["features"].any()
    assert found.out["connectivity"].all()


def test_graphs_that_join_all_atoms_are_told() -> None:
    frames = describe_frames(Morse(), waters(20, 0.03))
    assert fit_shifts(frames, 5.0).complete
    assert not fit_shifts(frames, 1.2).complete


def test_too_few_frames_and_no_radius_are_refused() -> None:
    frames = describe_frames(Morse(), waters(20, 0.03))
    with pytest.raises(InputError, match="10 training frames or more"):
        fit_shifts(describe_frames(Morse(), waters(4, 0.03)), 2.0)
    with pytest.raises(InputError, match="radius above 0"):
        fit_shifts(frames, 0.0)
