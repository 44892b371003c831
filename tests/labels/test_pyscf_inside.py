"""Labels from the same run, level within level, and the noise floor's tighter level."""

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.child.labeller import LabelChild
from alloop.labels.levels import pyscf_level
from alloop.labels.pyscf.label import label_with_pyscf, labels_with_pyscf
from alloop.labels.pyscf.level import contains_level, tighter_level
from alloop.labels.result import Result


def level_of(method: str, **more: object) -> Level:
    return pyscf_level(method, "6-31g", **more)


def assert_same_bits(a: Result, b: Result) -> None:
    assert a.energy == b.energy
    assert a.forces.tobytes() == b.forces.tobytes()
    timed = {"lost_seconds"}
    assert {k: v for k, v in a.details.items() if k not in timed} == {
        k: v for k, v in b.details.items() if k not in timed
    }


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("open_shell", [False, True])
def test_cheaper_labels_from_the_same_run_have_the_bits_of_their_own(
    water: Frame, hydroxyl: Frame, open_shell: bool, frozen: bool
) -> None:
    frame = hydroxyl if open_shell else water
    expensive = level_of("ccsd(t)", frozen_core=frozen).settings
    cheaper = [
        level_of("ccsd", frozen_core=frozen).settings,
        level_of("mp2", frozen_core=frozen).settings,
        level_of("hf").settings,
    ]
    together = labels_with_pyscf(frame, expensive, cheaper)
    alone = [label_with_pyscf(frame, level) for level in (expensive, *cheaper)]
    for one, other in zip(together, alone, strict=True):
        assert_same_bits(one, other)


def test_by_products_agree_with_the_energies_inside(water: Frame) -> None:
    expensive = level_of("ccsd(t)").settings
    label, ccsd, mp2, hf = labels_with_pyscf(
        water, expensive, [level_of(m).settings for m in ("ccsd", "mp2", "hf")]
    )
    assert label.details["energy_ccsd"] == ccsd.energy
    assert label.details["energy_mp2"] == pytest.approx(mp2.energy, abs=1e-6)
    assert label.details["energy_hf"] == hf.energy


def test_only_identical_settings_put_one_level_into_another() -> None:
    expensive = level_of("ccsd(t)", frozen_core=True).settings
    inside = [
        level_of("hf"),
        level_of("mp2", frozen_core=True),
        level_of("ccsd", frozen_core=True),
    ]
    outside = [
        level_of("mp2"),
        level_of("ccsd(t)", frozen_core=True),
        level_of("ccsd", frozen_core=True, cc_conv_tol=1e-7),
        level_of("hf", conv_tol=1e-8),
        level_of("hf", reference="unrestricted"),
        level_of("hf", stability="always"),
        level_of("hf", density_fit=True),
        level_of("hf", dispersion="d4"),
        level_of("b3lyp"),
        pyscf_level("hf", "sto-3g"),
    ]
    assert all(contains_level(expensive, level.settings) for level in inside)
    assert not any(contains_level(expensive, level.settings) for level in outside)
    assert not contains_level(level_of("hf").settings, expensive)
    assert not contains_level({"calculator": "ase.calculators.emt.EMT"}, expensive)


def test_a_level_that_is_not_inside_is_not_made(water: Frame) -> None:
    with pytest.raises(ValueError, match="same settings"):
        labels_with_pyscf(water, level_of("mp2").settings, [level_of("ccsd").settings])


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
