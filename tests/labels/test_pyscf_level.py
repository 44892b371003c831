"""Energies of cheaper methods among a label's details, and the tighter level."""

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import pyscf_level
from alloop.labels.pyscf.label import label_with_pyscf
from alloop.labels.pyscf.level import tighter_level


def level_of(method: str, **more: object) -> Level:
    return pyscf_level(method, "6-31g", **more)


def test_details_hold_the_energies_of_cheaper_methods(water: Frame) -> None:
    label, ccsd, mp2, hf = (
        label_with_pyscf(water, level_of(method).settings)
        for method in ("ccsd(t)", "ccsd", "mp2", "hf")
    )
    assert label.details["energy_ccsd"] == ccsd.energy
    assert label.details["energy_mp2"] == pytest.approx(mp2.energy, abs=1e-6)
    assert label.details["energy_hf"] == hf.energy


@pytest.mark.parametrize(
    "level",
    [
        level_of("hf", density_fit=True),
        level_of("b3lyp", grid=1),
        level_of("ccsd(t)", frozen_core=True),
        pyscf_level("pbe", "gth-szv", kpoints=[2, 1, 1]),
    ],
)
def test_the_tighter_level_is_the_same_physics_with_tighter_thresholds(
    level: Level,
) -> None:
    tight = tighter_level(level)
    changed = {k for k, v in tight.settings.items() if v != level.settings[k]}
    thresholds = {"conv_tol", "conv_tol_grad", "cc_conv_tol", "cc_conv_tol_normt"}
    assert changed - thresholds <= {
        *("max_cycle", "cc_max_cycle", "grid", "ke_cutoff", "title")
    }
    for key in thresholds & tight.settings.keys():
        assert tight.settings[key] < level.settings[key] / 10
    if "grid" in tight.settings:
        assert tight.settings["grid"] == 3
    assert tight.title == f"{level.title}, tight"
    assert tight.id != level.id


def test_tighter_settings_move_a_label_by_little_and_a_coarse_grid_s_by_more(
    child: LabelChild, water: Frame
) -> None:
    moved = {}
    for level in (level_of("ccsd"), level_of("pbe", grid=1)):
        label, tight = (
            child.labeller(one).label(water) for one in (level, tighter_level(level))
        )
        assert isinstance(label, Label)
        assert isinstance(tight, Label)
        moved[level.settings["method"]] = np.abs(label.forces - tight.forces).max()
    assert moved["ccsd"] < 1e-3 < moved["pbe"]  # eV/Å
