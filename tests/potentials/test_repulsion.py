"""ZBL under every network: the formula, the switch, and what networks do with it."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii
from scipy import constants, integrate

from alloop.config.sections.potentials import DEFAULT, NETWORK_SECTIONS
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, TrainingData
from alloop.core.units import Floats
from alloop.models.network import build_network
from alloop.potentials.analytic import Morse
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential, from_checkpoint
from alloop.potentials.repulsion import ZBL, Zbl, repulsion
from alloop.testing import check_potential
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from tests.models.kinds import SMALL

FREE = Zbl(reach=1e6, hydrogen=1e6)  # nowhere near its end


def dimer(one: int, other: int, r: float) -> Frame:
    return Frame(np.array([one, other]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, r]]))


def crowded() -> list[Frame]:
    """Molecules that lost a third of their size: repulsion between many pairs."""
    rng = np.random.default_rng(1)
    made = []
    for name in ("H2O", "CH3OH", "H2O2"):
        atoms = molecule(name)
        atoms.positions *= 0.65
        atoms.positions += rng.normal(0.0, 0.02, atoms.positions.shape)
        made.append(from_atoms(atoms))
    return made


def published(one: int, other: int, r: float) -> float:
    """Ziegler, Biersack, Littmark (1985) in SI units, in eV at r in Å."""
    bohr = constants.physical_constants["Bohr radius"][0]
    x = r * 1e-10 / (0.8854 * bohr / (one**0.23 + other**0.23))
    terms = (
        (0.18175, 3.19980),
        (0.50986, 0.94229),
        (0.28022, 0.40290),
        (0.02817, 0.20162),
    )
    screening = sum(c * np.exp(-d * x) for c, d in terms)
    joule = one * other * constants.e**2 / (4 * np.pi * constants.epsilon_0 * r * 1e-10)
    return float(joule / constants.e * screening)


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 8), (6, 8), (29, 79)])
@pytest.mark.parametrize("r", [0.05, 0.3, 1.0])
def test_energies_are_those_of_the_published_formula(
    one: int, other: int, r: float
) -> None:
    said = FREE.predict(pack_frames([dimer(one, other, r)])).energies[0]
    assert said == pytest.approx(published(one, other, r), rel=1e-6)


def test_it_keeps_the_laws_of_a_potential() -> None:
    check_potential(Zbl(), crowded(), tolerance=1e-6, descriptors=False)


def test_it_ends_before_bonds_with_two_continuous_derivatives() -> None:
    end = Zbl().hydrogen * (covalent_radii[1] + covalent_radii[8])
    gaps = np.array([1e-2, 1e-3])  # Å
    inside = Zbl().predict(pack_frames([dimer(8, 1, end - gap) for gap in gaps]))
    forces = inside.forces[1::2, 2]
    assert inside.energies[0] / inside.energies[1] == pytest.approx(1e3, rel=0.1)
    assert forces[0] / forces[1] == pytest.approx(1e2, rel=0.1)  # so it ends as gap³
    for name in ("H2O", "N2", "C2H2", "LiH", "HF", "H2", "C6H6", "CO"):
        said = Zbl().predict(pack_frames([from_atoms(molecule(name))]))
        assert not said.energies.any()
        assert not said.forces.any()


def test_it_only_ever_pushes() -> None:
    distances = np.linspace(0.05, 0.77, 200)
    said = Zbl().predict(pack_frames([dimer(8, 1, r) for r in distances]))
    assert (said.forces[1::2, 2] > 0.0).all()
    assert (np.diff(said.forces[1::2, 2]) < 0.0).all()  # the closer the harder
    work = -integrate.trapezoid(said.forces[1::2, 2], distances)
    assert work == pytest.approx(said.energies[-1] - said.energies[0], rel=0.02)


def test_atoms_meet_their_images_in_a_cell() -> None:
    crystal = bulk("Ne", cubic=True, a=1.2)
    once = Zbl().predict(pack_frames([from_atoms(crystal)]))
    more = Zbl().predict(pack_frames([from_atoms(crystal.repeat((2, 1, 1)))]))
    assert once.energies[0] > 1.0
    assert more.energies[0] == pytest.approx(2 * once.energies[0], rel=1e-12)
    assert more.stress is not None
    np.testing.assert_allclose(more.stress, once.stress, rtol=1e-10, atol=1e-12)
    assert more.stress[0, 0] < 0.0  # pressed together


def test_it_lies_under_a_network_compiled_or_not() -> None:
    network = build_network("egnn", {"channels": 8, "layers": 1})
    references = {1: 0.0, 6: 0.0, 8: 0.0}
    alone = LearnedPotential(network, references)
    above = LearnedPotential(network, references, repulsion=Zbl())
    batch = pack_frames(crowded())
    known, plain = Zbl().predict(batch), alone.predict(batch)
    said = above.predict(batch)
    np.testing.assert_allclose(said.energies, plain.energies + known.energies)
    np.testing.assert_allclose(said.forces, plain.forces + known.forces)
    fast, _ = compiled_for(above, batch)
    again = fast.predict(batch)
    np.testing.assert_allclose(again.forces, said.forces, rtol=1e-5, atol=1e-4)


def test_a_checkpoint_tells_of_it_and_older_ones_have_none() -> None:
    network = build_network("egnn", {"channels": 8, "layers": 1})
    above = LearnedPotential(network, {1: 0.0}, repulsion=Zbl(0.6, 0.7)).checkpoint()
    alone = LearnedPotential(network, {1: 0.0}).checkpoint()
    assert from_checkpoint(above).repulsion == Zbl(0.6, 0.7)
    assert "repulsion" not in alone.settings
    assert from_checkpoint(alone).repulsion is None
    with pytest.raises(InputError, match="newer alloop"):
        repulsion({"kind": "born-mayer"})
    assert NETWORK_SECTIONS[DEFAULT]().model_dump()["repulsion"] == "zbl"


def labels_of_water() -> LabelSet:
    """Morse labels of water near its minimum, as a campaign's first ones are."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(12):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.02, (3, 3))
        made.append(from_atoms(atoms))
    batch = pack_frames(made)
    said = Morse().predict(batch)
    return LabelSet(batch, said.energies, said.forces)


def closing(potential: LearnedPotential) -> Floats:
    """Forces in eV/Å that part O and H at 0.3 to 0.7 Å."""
    atoms = molecule("H2O")
    bond = atoms.positions[1] - atoms.positions[0]
    unit = bond / np.linalg.norm(bond)
    moved = []
    for r in (0.3, 0.4, 0.5, 0.6, 0.65, 0.7):
        atoms.positions[1] = atoms.positions[0] + r * unit
        moved.append(from_atoms(atoms))
    said = potential.predict(pack_frames(moved)).forces.reshape(-1, 3, 3)
    pushes: Floats = said[:, 1] @ unit
    return pushes


def trained(kind: str, repulsion: Zbl | None) -> LearnedPotential:
    """A network of this kind after a short training on water."""
    none = LabelSet(pack_frames([]), np.zeros(0), np.zeros((0, 3)))
    data = TrainingData(none, labels_of_water())
    stages = standard_stages(15, Schedule(compile=False))
    trainer = StagedTrainer(kind, SMALL[kind], stages, repulsion=repulsion)
    return trainer.train(data, None, 1)[0]


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_every_network_pushes_atoms_apart_after_a_short_training(kind: str) -> None:
    assert (closing(trained(kind, ZBL)) > 0.0).all()


def test_where_labels_are_the_network_is_as_it_would_be_alone() -> None:
    batch = labels_of_water().batch
    above, alone = trained("painn", ZBL), trained("painn", None)
    assert (closing(alone) < 0.0).any()
    np.testing.assert_array_equal(
        above.predict(batch).forces, alone.predict(batch).forces
    )


def test_a_network_learns_what_repulsion_leaves_of_close_labels() -> None:
    batch = pack_frames([dimer(8, 1, r) for r in np.linspace(0.55, 1.2, 30)])
    wide = Zbl(hydrogen=1.0)
    said = wide.predict(batch)  # labels that are nothing but repulsion
    labels = LabelSet(batch, said.energies - 2055.4, said.forces)
    rest = wide.without(labels)
    np.testing.assert_allclose(rest.energies, -2055.4)
    np.testing.assert_allclose(rest.forces, 0.0, atol=1e-12)
