import subprocess
import sys

import pytest

from alloop.core.errors import InputError
from alloop.core.levels import make_level
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import (
    ase_level,
    check_level,
    level_from_name,
    pyscf_level,
    xtb_level,
)
from alloop.labels.toy import toy_level


@pytest.mark.parametrize(
    ("level", "title"),
    [
        (pyscf_level("hf", "sto-3g"), "HF/STO-3G"),
        (pyscf_level("CCSD(T)", "cc-pvdz"), "CCSD(T)/cc-pVDZ"),
        (pyscf_level("b3lyp", "def2-svp", density_fit=True), "B3LYP/def2-SVP (DF)"),
        (pyscf_level("r2scan", "Def2SVP", dispersion="D4"), "r2SCAN-D4/def2-SVP"),
        (
            pyscf_level("mp2", "6-31g*", frozen_core=True),
            "MP2/6-31G* (frozen core)",
        ),
        (pyscf_level("pbe", "pc-1", grid=1), "PBE/pc-1 (grid 1)"),
        (ase_level("ase.calculators.lj.LennardJones"), "LennardJones"),
        (xtb_level(), "GFN2-xTB"),
        (xtb_level("GFN1-xtb", temperature=5000), "GFN1-xTB (5000 K)"),
        (level_from_name("HF/sto-3G"), "HF/STO-3G"),
        (level_from_name("wb97x-d3bj/def2-tzvp"), "wB97X-D3BJ/def2-TZVP"),
        (level_from_name("PBE0-D4/6-31g*"), "PBE0-D4/6-31G*"),
        (level_from_name("spGFN2-xTB"), "spGFN2-xTB"),
        (level_from_name("gfn1"), "GFN1-xTB"),
    ],
)
def test_levels_have_the_names_people_use(level, title: str) -> None:
    assert level.title == title


def test_spelling_does_not_make_another_level() -> None:
    assert pyscf_level("HF", "Def2SVP").id == pyscf_level("hf", "def2-SVP").id
    assert pyscf_level("hf", "sto-3g", grid=1).id == pyscf_level("hf", "sto-3g").id
    assert pyscf_level("hf", "sto-3g", frozen_core=True).id == (
        pyscf_level("hf", "sto-3g").id
    )


def test_every_setting_that_changes_the_answer_makes_another_level() -> None:
    levels = [
        pyscf_level("pbe", "sto-3g"),
        pyscf_level("pbe", "6-31g"),
        pyscf_level("pbe", "sto-3g", grid=2),
        pyscf_level("pbe", "sto-3g", grid_response=False),
        pyscf_level("pbe", "sto-3g", density_fit=True),
        pyscf_level("pbe", "sto-3g", dispersion="d4"),
        pyscf_level("pbe", "sto-3g", conv_tol=1e-8),
        pyscf_level("pbe", "sto-3g", ladder=["default"]),
        pyscf_level("pbe", "sto-3g", max_memory=2000),
        pyscf_level("mp2", "sto-3g"),
        pyscf_level("mp2", "sto-3g", frozen_core=True),
    ]
    assert len({level.id for level in levels}) == len(levels)


def test_every_setting_of_tight_binding_makes_another_level() -> None:
    levels = [
        xtb_level(),
        xtb_level("gfn1-xtb"),
        xtb_level(spin_polarized=True),
        xtb_level(accuracy=0.1),
        xtb_level(temperature=400),
        xtb_level(max_cycle=100),
    ]
    assert len({level.id for level in levels}) == len(levels)
    assert xtb_level("GFN2-xTB", temperature=300) == xtb_level()


def test_every_default_is_spelled_out_with_the_program_and_its_minor_version() -> None:
    settings = pyscf_level("ccsd(t)", "cc-pvdz").settings
    program, _, version = settings["program"].partition(" ")
    assert program == "pyscf"
    assert len(version.split(".")) == 2
    assert settings["conv_tol"] == 1e-9
    assert settings["cc_conv_tol"] == 1e-8
    assert "grid" not in settings
    assert pyscf_level("pbe", "cc-pvdz").settings["grid_response"] is True


def test_an_unknown_setting_names_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean 'max_cycle'"):
        pyscf_level("hf", "sto-3g", max_cycles=3)


@pytest.mark.parametrize(
    ("level", "elements", "words"),
    [
        (pyscf_level("b3lpy", "def2-svp"), "HO", "did you mean 'b3lyp'"),
        (pyscf_level("ccsdt", "def2-svp"), "HO", "did you mean 'ccsd"),
        (pyscf_level("hf", "def2-sv"), "HO", "did you mean 'def2-svp'"),
        (pyscf_level("hf", "6-31g"), "HI", "no functions for I"),
        (pyscf_level("mp2", "6-31g", density_fit=True), "HO", "no exact gradient"),
        (pyscf_level("ccsd", "6-31g", density_fit=True), "HO", "no exact gradient"),
        (pyscf_level("wb97x-d", "6-31g"), "HO", "not supported"),
        (pyscf_level("pbe", "6-31g", dispersion="d3b"), "HO", "did you mean 'd3bj'"),
        (pyscf_level("hf", "6-31g", ladder=["damp"]), "HO", "did you mean 'damping'"),
        (ase_level("ase.calculators.lj.LenardJones"), "H", "import path"),
        (ase_level("ase.nowhere.Calculator"), "H", "import path"),
        (ase_level("ase.build.molecule"), "H", "import path"),
        (make_level("os:system", {}), "H", "Python's own"),
        (ase_level("ase.calculators.lj.LennardJones", {"sigm": 1}), "H", "'sigma'"),
        (level_from_name("b3lpy-d4/def2-svp"), "HO", "did you mean 'b3lyp'"),
        (xtb_level(), ["H", "U"], "ends with radon"),
        (xtb_level(accuracy=-1.0), "H", "expected `accuracy` above 0"),
    ],
)
def test_a_level_that_cannot_work_is_refused_with_the_nearest_spelling(
    child: LabelChild, level, elements: str, words: str
) -> None:
    problems = check_level(level, list(elements), child.labeller(level))
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    "level",
    [
        pyscf_level("hf", "sto-3g"),
        pyscf_level("ccsd(t)", "cc-pvdz"),
        pyscf_level("r2scan", "def2-svp", density_fit=True),
        pyscf_level("wb97x-d3bj", "def2-svp"),
        ase_level("ase.calculators.lj.LennardJones", {"sigma": 1.0, "rc": 4.0}),
        toy_level(),
        xtb_level("gfn1-xtb", spin_polarized=True),
    ],
)
def test_a_sound_level_has_no_problems(child: LabelChild, level) -> None:
    assert check_level(level, ["H", "O"], child.labeller(level)) == []


def test_describing_and_opening_levels_imports_neither_pyscf_nor_torch() -> None:
    script = (
        "import sys, alloop.labels.levels, alloop.labels.direct, "
        "alloop.labels.child.server;"
        "import alloop.labels.xtb, alloop.labels.file_levels;"
        "assert not {'pyscf', 'torch', 'tblite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
