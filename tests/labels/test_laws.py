import numpy as np

from alloop.core.frame import Frame
from alloop.labels.child.labeller import LabelChild
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import ase_level, pyscf_level
from alloop.labels.toy import toy_level
from alloop.testing import check_labeller


def test_the_toy_keeps_the_laws(water: Frame, hydrogen: Frame) -> None:
    labeller = DirectLabeller(toy_level(stiffness=1.1, fail_above=2.0))
    apart = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 2.5]]))
    check_labeller(labeller, [water, hydrogen, apart])


def test_hartree_fock_in_a_child_keeps_the_laws(
    child: LabelChild, water: Frame, hydroxyl: Frame
) -> None:
    labeller = child.labeller(pyscf_level("hf", "sto-3g"))
    unconverged = child.labeller(pyscf_level("hf", "sto-3g", max_cycle=1))
    check_labeller(labeller, [water, hydroxyl], tolerance=2e-3)
    check_labeller(unconverged, [water])


def test_an_ase_calculator_keeps_the_laws() -> None:
    level = ase_level("ase.calculators.lj.LennardJones", {"sigma": 3.4, "rc": 12.0})
    trimer = Frame(np.full(3, 18), 3.8 * np.eye(3))
    check_labeller(DirectLabeller(level), [trimer], tolerance=2e-3)
