"""Composite levels: the sum by PySCF itself, its gradient, doubts, refusals, price."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyscf import cc, gto, mp, scf

from alloop.config import ConfigError, parse_campaign
from alloop.config.load import parse_level
from alloop.core.doubts import Doubt, doubts_of_details
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.units import HARTREE
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.composite import sum_level, sum_parts
from alloop.labels.direct import label_frame
from alloop.labels.levels import check_level, level_from_name, pyscf_level, toy_level
from alloop.labels.programs import level_cost
from alloop.labels.recheck import tighter_level

NAME = "mp2/6-31g + ccsd(t)/sto-3g - mp2/sto-3g"
TEXT = "{sum: [mp2/6-31g, ccsd(t)/sto-3g, {minus: mp2/sto-3g}]}"
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.01], [0.0, 0.757, 0.587], [0.03, -0.757, 0.6]]),
)
HYDROGEN = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.78]]))
FLUORINE = Frame(np.array([9, 9]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]))


def made(level: Level, frame: Frame) -> Label:
    label = label_frame(level, frame)
    assert isinstance(label, Label), label
    return label


def energy_by_hand(frame: Frame, method: str, basis: str) -> float:
    atoms = [(int(z), x) for z, x in zip(frame.numbers, frame.positions, strict=True)]
    mf = scf.RHF(gto.M(atom=atoms, basis=basis, verbose=0)).set(conv_tol=1e-12).run()
    if method == "hf":
        return float(mf.e_tot) * HARTREE
    if method == "mp2":
        return float(mp.MP2(mf).run().e_tot) * HARTREE
    solver = cc.CCSD(mf).set(conv_tol=1e-11, conv_tol_normt=1e-9).run()
    return float(solver.e_tot + solver.ccsd_t()) * HARTREE


@pytest.mark.parametrize("frame", [HYDROGEN, WATER], ids=["H2", "water"])
def test_the_energy_is_the_sum_by_hand(frame: Frame) -> None:
    level = tighter_level(level_from_name(NAME))
    by_hand = (
        energy_by_hand(frame, "mp2", "6-31g")
        + energy_by_hand(frame, "ccsd(t)", "sto-3g")
        - energy_by_hand(frame, "mp2", "sto-3g")
    )
    assert made(level, frame).energy == pytest.approx(by_hand, abs=1e-8)


def test_energy_and_forces_are_those_of_the_parts_with_signs() -> None:
    level = level_from_name(NAME)
    label = made(level, WATER)
    parts = [(factor, made(part, WATER)) for factor, part in sum_parts(level.settings)]
    assert [factor for factor, _ in parts] == [1.0, 1.0, -1.0]
    assert label.energy == pytest.approx(sum(f * x.energy for f, x in parts), abs=1e-9)
    forces = sum(f * x.forces for f, x in parts)
    np.testing.assert_allclose(label.forces, forces, rtol=0, atol=1e-9)
    assert label.details["functions"] == 13  # of 6-31G, the larger basis


def test_forces_are_the_gradient_of_the_energy_in_a_child_process() -> None:
    level, step = level_from_name(NAME), 1e-3  # Å
    with LabelChild(Limits()) as child:
        labeller = child.labeller(level)
        label = labeller.label(WATER)
        assert isinstance(label, Label), label
        for atom, axis in ((0, 2), (1, 1), (2, 0)):
            shift = np.zeros((3, 3))
            shift[atom, axis] = step
            ends = [
                labeller.label(replace(WATER, positions=WATER.positions + sign * shift))
                for sign in (1, -1)
            ]
            up, down = (x.energy for x in ends if isinstance(x, Label))
            slope = -(up - down) / (2 * step)
            assert label.forces[atom, axis] == pytest.approx(slope, abs=5e-5)


def test_a_limit_of_basis_sets_follows_the_inverse_cube() -> None:
    hf_small, hf, small, large = (
        energy_by_hand(HYDROGEN, method, f"cc-pv{zeta}")
        for method in ("hf", "mp2")
        for zeta in ("dz", "tz")
    )
    correlation = (27 * (large - hf) - 8 * (small - hf_small)) / 19
    level = tighter_level(level_from_name("mp2/cbs(dz,tz)"))
    assert made(level, HYDROGEN).energy == pytest.approx(hf + correlation, abs=1e-8)


def test_file_and_name_give_one_level_whatever_the_notation() -> None:
    assert parse_level(TEXT).id == parse_level(NAME).id == level_from_name(NAME).id
    spelled = (
        "{sum: [mp2/6-31g, {factor: 1, level: ccsd(t)/sto-3g}, {minus: mp2/sto-3g}]}"
    )
    assert parse_level(spelled).id == level_from_name(NAME).id
    assert level_from_name(NAME).title == ("MP2/6-31G + CCSD(T)/STO-3G - MP2/STO-3G")
    inner = "{sum: [hf/6-31g, {sum: [mp2/sto-3g, {minus: hf/sto-3g}]}, hf/6-31g, "
    outer = parse_level(inner + "{minus: hf/6-31g}]}")
    assert outer.id == level_from_name("hf/6-31g + mp2/sto-3g - hf/sto-3g").id
    limit = parse_level("{sum: [mp2/cbs(dz-tz), ccsd/cc-pvdz, {minus: mp2/cc-pvdz}]}")
    named = level_from_name("mp2/cbs(dz,tz) + ccsd/cc-pvdz - mp2/cc-pvdz")
    assert limit.id == named.id


def test_a_store_reads_back_the_level_of_a_campaign(tmp_path: Path) -> None:
    text = f"name: x\nstart: [{{molecule: H2O}}]\nlevels: {{expensive: {TEXT}}}\n"
    setup = parse_campaign(text, tmp_path)
    again = parse_campaign(setup.text, tmp_path)
    assert again.levels["expensive"].id == level_from_name(NAME).id


def test_all_mistakes_of_a_campaign_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "name: x\nstart: [{molecule: H2O}]\nlevels: {cheap: hf/nonsense, expensive: "
        "{sum: [b3lip/6-31g, {kind: ase, calculator: x.Y}, "
        "{kind: toy, stifness: 2}]}}\nexplore: {temperature: -1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, tmp_path)
    told = {problem.path: problem.text for problem in caught.value.problems}
    assert "levels.expensive.sum.1.level" in told
    assert "stiffness" in told["levels.expensive.sum.2.level.stifness"]
    assert "explore.temperature" in told


def test_factors_that_do_not_add_up_to_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"add up to 1.*got 2"):
        level_from_name("mp2/6-31g + hf/6-31g")
    with pytest.raises(InputError, match="smaller first"):
        level_from_name("b3lyp/cbs(tz,dz)")


def test_mistakes_of_parts_are_told_with_the_part() -> None:
    level = sum_level(
        [
            (1.0, pyscf_level("b3lip", "6-31g")),
            (1.0, pyscf_level("mp2", "sto-3h")),
            (-1.0, pyscf_level("mp2", "sto-3g")),
        ]
    )
    texts = check_level(level, ["H", "O"])
    assert len(texts) == 2
    assert "b3lip" in texts[0].lower()
    assert "MP2/sto-3h: " in texts[1]


def test_doubts_of_parts_are_doubts_of_the_sum_and_told_by_part() -> None:
    level = level_from_name("hf/sto-3g + ccsd(t)/6-31g - hf/6-31g")
    label = made(level, FLUORINE)
    assert Doubt.INSTABILITY in doubts_of_details(label.details)
    parts = [made(part, FLUORINE) for _, part in sum_parts(level.settings)]
    union = frozenset().union(*(doubts_of_details(x.details) for x in parts))
    assert doubts_of_details(label.details) == union
    assert "CCSD(T)/6-31G: " in str(label.details["doubted_parts"])


def test_a_failure_of_a_part_is_the_sum_s() -> None:
    weak = toy_level(fail_above=0.1)
    level = sum_level([(2.0, toy_level()), (-1.0, weak)])
    record = label_frame(level, WATER)
    assert isinstance(record, Unlabelled)
    assert record.failure is Failure.NOT_CONVERGED
    assert record.message.startswith(f"{weak.title}: ")


def test_the_price_is_that_of_all_parts() -> None:
    level = level_from_name("b3lyp/cc-pvdz + ccsd(t)/cc-pvdz - mp2/cc-pvdz")
    carbon = [np.array([[0.0, 0.0, 1.5 * i]]) for i in range(12)]
    for many in (3, 12):
        frame = Frame(np.full(many, 6), np.concatenate(carbon[:many]))
        parts = sum(level_cost(x).seconds(frame) for _, x in sum_parts(level.settings))
        assert level_cost(level).seconds(frame) == pytest.approx(parts, rel=0.35)
