"""CASSCF and NEVPT2, against PySCF alone and against two atoms."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pyscf import gto, lib, mcscf, mrpt, scf

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.units import HARTREE
from alloop.labels.direct import DirectLabeller, label_frame
from alloop.labels.levels import level_from_name, pyscf_level
from alloop.labels.programs import level_cost

pytestmark = pytest.mark.filterwarnings("ignore")  # files that PySCF leaves open


@pytest.fixture(autouse=True)
def _closed_files() -> Iterator[None]:
    """Close the files while their warnings are ignored."""
    yield
    gc.collect()


SPACE = {"electrons": 6, "orbitals": 6, "atomic_orbitals": ["N 2p"]}


def nitrogen(distance: float) -> Frame:
    return Frame(np.array([7, 7]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))


def energy(name: str, frame: Frame) -> float:
    label = label_frame(level_from_name(name), frame)
    assert isinstance(label, Label), label
    return label.energy


def test_labels_are_what_plain_pyscf_says() -> None:
    mol = gto.M(atom="Li 0 0 0; H 0 0 2.0", basis="sto-3g", verbose=0)
    with lib.with_omp_threads(1):
        start = scf.RHF(mol).run(conv_tol=1e-12)
        solver = mcscf.CASSCF(start, 3, 2).run(conv_tol=1e-11)
        second = mrpt.NEVPT(solver).kernel()
    frame = Frame(np.array([3, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    plain = energy("casscf(2,3)/sto-3g", frame)
    assert plain == pytest.approx(solver.e_tot * HARTREE, abs=1e-6)
    perturbed = energy("nevpt2(2,3)/sto-3g", frame)
    assert perturbed == pytest.approx((solver.e_tot + second) * HARTREE, abs=1e-5)
    assert perturbed < plain - 0.001


def test_the_space_is_that_of_the_shells_named() -> None:
    level = pyscf_level("casscf", "sto-3g", active_space=SPACE)
    label = label_frame(level, nitrogen(1.2))
    assert isinstance(label, Label)
    assert label.energy == pytest.approx(
        energy("casscf(6,6)/sto-3g", nitrogen(1.2)), abs=1e-6
    )


def test_forces_are_the_gradient_of_the_energy() -> None:
    name, step = "casscf(2,2)/sto-3g", 1e-3
    label = label_frame(level_from_name(name), hydrogen(1.2))
    assert isinstance(label, Label)
    above, below = (energy(name, hydrogen(1.2 + x)) for x in (step, -step))
    assert label.forces[1, 2] == pytest.approx((below - above) / (2 * step), abs=1e-4)


@pytest.mark.parametrize("method", ["casscf", "nevpt2"])
def test_a_broken_bond_is_two_atoms(method: str) -> None:
    """Restricted CCSD is off by electronvolts there."""
    apart = energy(f"{method}(6,6)/sto-3g", nitrogen(6.0))
    atom = Frame(np.array([7]), np.zeros((1, 3)), spin=3)
    assert apart == pytest.approx(2.0 * energy(f"{method}(3,3)/sto-3g", atom), abs=1e-3)


def test_nevpt2_has_energies_alone() -> None:
    label = label_frame(level_from_name("nevpt2(2,2)/sto-3g"), nitrogen(1.1))
    assert isinstance(label, Label)
    assert np.isnan(label.forces).all()


def test_an_idle_orbital_is_doubted() -> None:
    """The 2s pairs of water hardly correlate; a stretched bond does."""
    wide = pyscf_level("casscf", "sto-3g", active_space={"electrons": 8, "orbitals": 6})
    label = label_frame(
        wide,
        Frame(
            np.array([8, 1, 1]),
            np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]]),
        ),
    )
    assert isinstance(label, Label)
    assert "active_space" in str(label.details["doubts"])
    good = label_frame(level_from_name("casscf(2,2)/sto-3g"), hydrogen(1.5))
    assert isinstance(good, Label)
    assert "active_space" not in str(good.details.get("doubts", ""))


def hydrogen(distance: float) -> Frame:
    return Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (None, "needs `active_space"),
        ({"electrons": 13, "orbitals": 6}, "1 to 11 electrons"),
        ({"electrons": 6, "orbitals": 20}, "at most 12 active orbitals"),
        ({"electrons": 6, "orbital": 6}, "did you mean 'orbitals'"),
        ({"electrons": 6, "orbitals": 6, "indices": [1, 1]}, "different orbitals"),
        ({**SPACE, "indices": [0, 1, 2, 3, 4, 5]}, "leave one out"),
        ({**SPACE, "atomic_orbitals": ["N 2px"]}, "whole shells"),
    ],
)
def test_an_impossible_space_is_a_sentence(space: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pyscf_level("casscf", "sto-3g", active_space=space)
    with pytest.raises(InputError, match="has no active space"):
        pyscf_level("mp2", "sto-3g", active_space=SPACE)


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (hydrogen(0.8), "casscf(6,6)/sto-3g"),  # more than its electrons
        (Frame(np.array([7]), np.zeros((1, 3)), spin=3), "casscf(6,6)/sto-3g"),
        (nitrogen(1.1), "casscf(8,12)/sto-3g"),  # more than its basis functions
    ],
)
def test_a_frame_that_does_not_fit_is_refused(frame: Frame, name: str) -> None:
    refused = DirectLabeller(level_from_name(name)).label(frame)
    assert isinstance(refused, Unlabelled)
    assert refused.failure is Failure.UNSUPPORTED
    assert "active space" in refused.message


def test_prices_grow_with_the_molecule() -> None:
    cost = level_cost(level_from_name("casscf(6,6)/cc-pvdz"))
    bare = level_cost(level_from_name("nevpt2(6,6)/cc-pvdz"))
    assert cost.time.base > bare.time.base > 0.0
