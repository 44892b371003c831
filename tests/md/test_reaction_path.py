"""Paths on surfaces whose saddle points are known exactly."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.config.load import parse_level
from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.labels.direct import DirectLabeller
from alloop.md.reaction_path import PathSettings, find_path, with_matched_atoms
from alloop.md.shapes import bonded_atoms
from alloop.md.thermal_frames import numerical_hessian
from alloop.potentials.labeller_potential import LabellerPotential
from tests.conftest import skip_without

BARRIER, WELL = 0.8, 0.9  # eV; Å from the middle


class DoubleWell:
    """Two hydrogens apart by r, minima at 3 ± WELL Å, with a barrier between."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        del descriptors
        self.calls += 1
        arms = batch.positions.reshape(-1, 2, 3)
        arms = arms[:, 1] - arms[:, 0]
        lengths = np.linalg.norm(arms, axis=1)
        x = (lengths - 3.0) / WELL
        slope = BARRIER * 4 * x * (x**2 - 1) / WELL
        pull = (slope / lengths)[:, None] * arms
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        return Predictions(BARRIER * (x**2 - 1) ** 2, forces)


def pair(length: float) -> Frame:
    return from_atoms(Atoms("H2", [[0, 0, 0], [0, 0, length]]))


@pytest.mark.parametrize("images", [3, 6, 9])
def test_the_highest_image_stands_on_the_saddle_point(images: int) -> None:
    path = find_path(
        pair(2.0), pair(4.1), DoubleWell(), PathSettings(images=images, fmax=1e-3)
    )
    assert path.converged
    assert path.force < 1e-3
    assert len(path.batch) == images + 2
    assert path.energies[path.top] == pytest.approx(BARRIER, abs=1e-5)
    assert path.energies[-1] == pytest.approx(0.0, abs=1e-4)
    top = path.batch.frame(path.top).positions
    assert np.linalg.norm(top[1] - top[0]) == pytest.approx(3.0, abs=1e-3)
    assert path.lengths[-1] == pytest.approx(2 * WELL, rel=1e-2)


def test_a_turned_and_shifted_end_is_no_longer_path() -> None:
    turned = replace(pair(4.1), positions=np.array([[5, 0, 0], [5, 4.1, 0]]))
    path = find_path(pair(2.0), turned, DoubleWell(), PathSettings())
    assert path.lengths[-1] == pytest.approx(2 * WELL, rel=1e-2)


def test_hydrogen_walks_around_hydrogen_cyanide() -> None:
    skip_without("tblite")
    potential = LabellerPotential(DirectLabeller(parse_level("gfn2-xtb")))
    cyanide = Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]])
    isocyanide = Atoms("HCN", [[0, 0, 2.15], [0, 0, 0], [0, 0, 1.15]])
    ends = from_atoms(cyanide), from_atoms(isocyanide)
    path = find_path(*ends, potential, PathSettings(images=5))
    assert path.converged
    assert 0 < path.top < 6
    saddle = path.batch.frame(path.top)
    forces = path.predictions.forces.reshape(7, 3, 3)[path.top]
    assert np.abs(forces).max() < 0.06
    curvature = np.linalg.eigvalsh(numerical_hessian(saddle, potential))
    assert (curvature < -0.5).sum() == 1
    assert sorted(np.abs(curvature))[5] < 0.5 < sorted(np.abs(curvature))[6]


def test_all_images_are_predicted_in_one_call() -> None:
    potential = DoubleWell()
    steps: list[int] = []
    path = find_path(
        pair(2.1),
        pair(3.9),
        potential,
        PathSettings(images=6, fmax=1e-3, relax=False),
        observe=lambda step, _: steps.append(step),
    )
    assert steps == sorted(steps)
    assert steps[-1] == path.steps
    assert potential.calls <= path.steps + 8
    assert path.steps > 10


def test_a_search_that_runs_out_of_steps_says_so() -> None:
    settings = PathSettings(images=6, fmax=1e-3, steps=2)
    path = find_path(pair(2.0), pair(4.1), DoubleWell(), settings)
    assert not path.converged
    assert path.steps == 2


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (pair(2.0), "one and the same"),
        (from_atoms(molecule("H2O")), "the same atoms in the same order"),
        (replace(pair(4.0), charge=1), "one charge and multiplicity"),
        (replace(pair(4.0), cell=9 * np.eye(3), pbc=(True,) * 3), "the same cell"),
    ],
)
def test_structures_without_a_path_are_refused(last: Frame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_path(pair(2.05), last, DoubleWell(), PathSettings())


@pytest.mark.parametrize("factor", [1e9, np.nan])
def test_a_surface_that_ends_is_told(factor: float) -> None:
    class Ended(DoubleWell):
        def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
            inside = super().predict(batch, descriptors=descriptors)
            beyond = factor if self.calls > 3 else 1.0
            return Predictions(inside.energies, beyond * inside.forces)

    with pytest.raises(InputError, match="forces along it have grown"):
        find_path(pair(2.0), pair(4.1), Ended(), PathSettings(relax=False))


@pytest.mark.parametrize("name", ["CH3CH2OH", "C3H8", "CH3COOH"])
def test_like_atoms_are_numbered_as_in_the_first_structure(name: str) -> None:
    first = from_atoms(molecule(name))
    rng = np.random.default_rng(5)
    turned = Atoms(first.numbers, first.positions)
    turned.rotate(70, (1.0, 2.0, 3.0))
    turned.rattle(0.02, seed=3)
    order = np.arange(len(first))
    for parent in np.flatnonzero(first.numbers > 1):
        group = np.flatnonzero(bonded_atoms(first)[parent] & (first.numbers == 1))
        order[group] = rng.permutation(group)
    assert not np.array_equal(order, np.arange(len(first)))
    mixed = replace(first, positions=turned.positions[order])
    matched = with_matched_atoms(first, mixed)
    assert matched.positions == pytest.approx(turned.positions, abs=1e-7)


def test_handedness_comes_before_the_shortest_way() -> None:
    first = from_atoms(molecule("CH3CH2OH"))
    atoms = Atoms(first.numbers, first.positions)
    atoms.set_dihedral(1, 0, 2, 3, 60.0, indices=[3])
    bonds = bonded_atoms(first)
    carbon = next(x for x in (0, 1) if bonds[x, 2])
    pair = np.flatnonzero(bonds[carbon] & (first.numbers == 1))
    swapped = atoms.positions.copy()
    swapped[pair] = swapped[pair[::-1]]
    matched = with_matched_atoms(first, replace(first, positions=swapped))
    assert matched.positions == pytest.approx(atoms.positions, abs=1e-7)
