"""Levels that cannot work, refused before anything runs, with the nearest spelling."""

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.units import HARTREE
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import check_level, pyscf_level


@pytest.mark.parametrize(
    ("level", "elements", "words"),
    [
        (pyscf_level("wb97x-d", "6-31g"), "HO", "try wb97x-d3bj"),
        (pyscf_level("wb97xd", "6-31g"), "HO", "leave it out"),
        (pyscf_level("wb97x-d3", "6-31g"), "HO", "wb97x-d3bj"),
        (pyscf_level("b97-d", "6-31g"), "HO", "b97m-d3bj"),
        (pyscf_level("wb97x-d4", "6-31g"), "HO", "wb97m-d4"),
        (pyscf_level("wb97m-v", "6-31g", dispersion="d3bj"), "HO", "wb97x-d3bj"),
        (pyscf_level("b97m-v", "6-31g", dispersion="d4"), "HO", "VV10"),
        (pyscf_level("b3lyp-d3", "6-31g"), "HO", "d3"),
        (pyscf_level("mp2", "6-31g", dispersion="d4"), "HO", "not for mp2"),
        (pyscf_level("ccsd(t)", "6-31g", density_fit=True), "HO", "exact gradient"),
        (pyscf_level("hf", "6-31g", reference="unrestrictd"), "HO", "'unrestricted'"),
        (pyscf_level("hf", "6-31g", stability="alway"), "HO", "'always'"),
        (pyscf_level("hf", "6-31g", init_guess="huckle"), "HO", "'huckel'"),
        (pyscf_level("hf", "6-31g", ladder=[]), "HO", "no rung"),
        (pyscf_level("hf", "def2-mtzvp"), "HI", "core electrons of I"),
        (pyscf_level("hf", "ccecp-ccpvdz"), "HO", "core electrons of O"),
        (pyscf_level("hf", "def2-mtzvp", ecp="def2-sv"), "HI", "'def2-svp'"),
        (
            pyscf_level("hf", "6-31g", density_fit=True, aux_basis="def2-jkfit"),
            "HO",
            "did you mean 'def2",
        ),
    ],
)
def test_a_level_that_cannot_work_is_refused_with_the_nearest_spelling(
    child: LabelChild, level, elements: str, words: str
) -> None:
    problems = check_level(level, list(elements), child.labeller(level))
    assert len(problems) == 1, problems
    assert words in problems[0]


@pytest.mark.parametrize(
    ("level", "elements"),
    [
        (pyscf_level("b3lyp-d3bj", "def2-svp", density_fit=True), "HO"),
        (pyscf_level("wb97m-d4", "def2-svp"), "HO"),
        (pyscf_level("wb97x-v", "sto-3g"), "HO"),
        (pyscf_level("hf-d4", "sto-3g"), "HI"),
        (pyscf_level("hf", "def2-mtzvp", ecp="def2-svp"), "HI"),
        (pyscf_level("mp2", "def2-svp", frozen_core=True), "HI"),
        (pyscf_level("ccsd", "cc-pvdz", reference="unrestricted"), "HO"),
    ],
)
def test_a_sound_level_has_no_problems(child: LabelChild, level, elements: str) -> None:
    assert check_level(level, list(elements), child.labeller(level)) == []


def test_a_dispersion_may_be_said_in_the_name_or_beside_it_and_once() -> None:
    named = pyscf_level("B3LYP-D3BJ", "def2-svp")
    assert named.id == pyscf_level("b3lyp", "def2-svp", dispersion="d3bj").id
    assert named.title == "B3LYP-D3BJ/def2-SVP"
    assert pyscf_level("wb97x-d3bj", "def2-svp").settings["dispersion"] is None
    with pytest.raises(InputError, match="leave one out"):
        pyscf_level("b3lyp-d3bj", "def2-svp", dispersion="d4")


def test_settings_that_do_not_apply_stay_out_of_the_level() -> None:
    molecule = pyscf_level("hf", "sto-3g", aux_basis="weigend", ke_cutoff=9.0)
    assert molecule.id == pyscf_level("hf", "sto-3g").id
    cell = pyscf_level("pbe", "gth-szv", kpoints=[2, 1, 1], stability="never")
    assert cell.id == pyscf_level("pbe", "gth-szv", kpoints=[2, 1, 1]).id


def test_an_effective_core_from_elsewhere_is_the_one_used(child: LabelChild) -> None:
    frame = Frame(np.array([53, 1]), np.array([[0, 0, 0], [0, 0, 1.6]]))
    bare = child.labeller(pyscf_level("hf", "def2-mtzvp")).label(frame)
    assert isinstance(bare, Unlabelled)
    assert bare.failure is Failure.UNSUPPORTED
    cored = child.labeller(pyscf_level("hf", "def2-mtzvp", ecp="def2-svp")).label(frame)
    assert isinstance(cored, Label)
    own = child.labeller(pyscf_level("hf", "def2-svp")).label(frame)
    assert isinstance(own, Label)
    assert abs(cored.energy - own.energy) < 0.5 * HARTREE


def test_the_fitting_basis_is_recorded_and_chosen(
    child: LabelChild, water: Frame
) -> None:
    usual = pyscf_level("hf", "def2-svp", density_fit=True)
    other = pyscf_level("hf", "def2-svp", density_fit=True, aux_basis="weigend")
    first, second = (child.labeller(level).label(water) for level in (usual, other))
    assert isinstance(first, Label)
    assert isinstance(second, Label)
    assert "jkfit" in str(first.details["aux_basis"]).replace("-", "")
    assert second.details["aux_basis"] == "weigend"
    assert usual.id != other.id
