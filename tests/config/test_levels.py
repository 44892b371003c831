"""Levels in YAML: three ways to write one, what a campaign adds, the catalogue."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

from alloop.config import (
    ConfigError,
    Setup,
    build,
    campaign_schema,
    fixed_differences,
    parse_campaign,
)
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.load import parse_level
from alloop.config.molecules import start_problems
from alloop.config.sections.levels import Gate, Pyscf
from alloop.config.yaml_text import collect_fragments, parse_yaml
from alloop.core.atoms import from_atoms
from alloop.core.doubts import Doubt
from alloop.core.errors import InputError
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.levels import check_level, level_from_name, pyscf_level, xtb_level
from alloop.labels.tolerances import Tolerances
from alloop.loop import events as e

ROOT = Path(__file__).parents[2]
CATALOGUE = sorted(ROOT.glob("configs/levels/*.yaml"))
START = "name: x\nstart: [{molecule: H2O}]\n"


def problems(text: str, base: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, base)
    return {problem.path: problem.text for problem in caught.value.problems}


def described(text: str, base: Path) -> Setup:
    """A campaign as its text describes it, without asking programs about levels."""
    plan, mistakes = validate_tree(
        collect_fragments(parse_yaml(text, "x"), base, "x", known_kinds())
    )
    assert mistakes == []
    plan = build.resolve_defaults(plan)
    return Setup(plan, (), build.build_levels(plan), base / "x.zarr")


def restored(setup: Setup) -> Setup:
    levels = {name: level.id for name, level in setup.levels.items()}
    opened = e.Opened(setup.seed, levels, setup.start, setup.given, setup.model_id)
    again = Setup.from_store(setup.text, opened, setup.store)
    assert fixed_differences(again, opened) == []
    return again


def stored(path: Path, shift: float = 0.0) -> Path:
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -1.0 + shift
    atoms.arrays["REF_forces"] = np.zeros((3, 3))
    write(path, atoms, format="extxyz")
    return path


# --- the catalogue -------------------------------------------------------------------


@pytest.mark.parametrize("path", CATALOGUE, ids=lambda path: path.stem)
def test_each_level_of_the_catalogue_is_called_by_its_title(path: Path) -> None:
    comment, *rest = path.read_text().splitlines()
    assert comment.startswith("# ")
    assert len(rest) == 1
    title = parse_level(str(path)).title.lower().replace("×", "x").replace("(t)", "_t")
    words = re.findall(r"[a-z0-9_]+", title.replace("k-points", ""))
    assert "-".join(words).replace("toy-1-0", "toy") == path.stem


def test_no_two_levels_of_the_catalogue_are_the_same() -> None:
    ids = {parse_level(str(path)).id for path in CATALOGUE}
    assert len(ids) == len(CATALOGUE) > 15


def test_each_level_of_the_catalogue_can_work() -> None:
    pytest.importorskip("tblite", reason="tblite is not installed: alloop[xtb]")
    with IsolatedLabeller(parse_level("hf/sto-3g")) as child:
        for path in CATALOGUE:
            elements = ["Cu"] if path.stem == "emt" else ["H", "O"]
            level = parse_level(str(path))
            assert check_level(level, elements, child.labeller(level)) == []


# --- three ways to write one ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mapping", "file"),
    [
        ("HF/STO-3G", "{kind: pyscf, method: hf, basis: sto-3g}", "hf-sto-3g"),
        ("gfn2-xTB", "{kind: xtb}", "gfn2-xtb"),
        (
            "B3LYP-D3(BJ)/def2-SVP",
            "{kind: pyscf, method: b3lyp, dispersion: d3bj, basis: def2-svp}",
            "b3lyp-d3bj-def2-svp",
        ),
        (
            "ccsd(t)/cc-pVDZ",
            "{kind: pyscf, method: CCSD(T), basis: cc-pvdz, max_memory: 4000}",
            "ccsd_t-cc-pvdz",
        ),
    ],
)
def test_a_name_a_mapping_and_a_file_are_one_level(
    name: str, mapping: str, file: str, tmp_path: Path
) -> None:
    path = ROOT / "configs/levels" / f"{file}.yaml"
    ids = {
        level_from_name(name).id,
        *(parse_level(text).id for text in (name, mapping, str(path))),
    }
    for text in (name, mapping, str(path)):
        setup = described(f"{START}levels: {{expensive: {text!s}}}", tmp_path)
        ids |= {setup.levels["expensive"].id, restored(setup).levels["expensive"].id}
    assert len(ids) == 1


def test_a_file_is_found_from_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "far/levels").mkdir(parents=True)
    stored(tmp_path / "far/water.extxyz")
    (tmp_path / "far/levels/t.yaml").write_text("{kind: table, path: ../water.extxyz}")
    (tmp_path / "far/f.yaml").write_text("levels: {expensive: levels/t.yaml}")
    setup = described(f"{START}extends: far/f.yaml", tmp_path)
    table = f"{{kind: table, path: {tmp_path / 'far/water.extxyz'}}}"
    assert setup.levels["expensive"].id == parse_level(table).id


def test_the_stored_configuration_needs_no_level_s_file(tmp_path: Path) -> None:
    (tmp_path / "hf.yaml").write_text("level: hf/sto-3g\nconv_tol: 1e-10\n")
    file = stored(tmp_path / "water.extxyz")
    table = "{kind: table, path: water.extxyz}"
    text = f"{START}levels: {{cheap: hf.yaml, expensive: {table}}}"
    setup = described(text, tmp_path)
    assert setup.levels["cheap"] == pyscf_level("hf", "sto-3g", conv_tol=1e-10)
    (tmp_path / "hf.yaml").unlink()
    file.unlink()
    assert restored(setup).levels == setup.levels


def test_a_table_that_moves_is_no_change_and_one_that_changes_is(
    tmp_path: Path,
) -> None:
    text = f"{START}levels: {{expensive: {{kind: table, path: a.extxyz}}}}"
    stored(tmp_path / "a.extxyz")
    setup = described(text, tmp_path)
    opened = e.Opened(0, {"expensive": setup.levels["expensive"].id}, setup.start)
    (tmp_path / "a.extxyz").rename(tmp_path / "b.extxyz")
    assert (
        fixed_differences(described(text.replace("a.ext", "b.ext"), tmp_path), opened)
        == []
    )
    stored(tmp_path / "a.extxyz", shift=0.1)
    assert "expensive level" in fixed_differences(described(text, tmp_path), opened)[0]
    content = setup.levels["expensive"].settings["content"]
    old = text.replace("a.extxyz", f"a.extxyz, content: '{content}'")
    assert "has changed" in problems(old, tmp_path)["levels.expensive"]


def test_other_keys_stand_over_the_name(tmp_path: Path) -> None:
    level = parse_level("{level: pbe-d4/def2-svp, grid: 4, density_fit: true}")
    assert level == pyscf_level(
        "pbe", "def2-svp", dispersion="d4", grid=4, density_fit=True
    )
    (tmp_path / "f.yaml").write_text(
        "levels: {expensive: {kind: pyscf, method: pbe, basis: sto-3g, grid: 1,"
        " doubts: accept}}"
    )
    setup = described(
        f"{START}extends: f.yaml\nlevels: {{expensive: gfn2-xtb}}", tmp_path
    )
    assert setup.levels["expensive"] == xtb_level()
    assert setup.plan.levels.doubts("expensive")[Doubt.CONTAMINATION] == "accept"
    lower = described(
        f"{START}extends: f.yaml\nlevels: {{expensive: {{grid: 2}}}}", tmp_path
    )
    assert lower.levels["expensive"] == pyscf_level("pbe", "sto-3g", grid=2)


def test_every_setting_of_a_pyscf_level_can_be_written_in_yaml() -> None:
    levels = (
        pyscf_level("ccsd(t)", "cc-pvdz"),
        pyscf_level("pbe", "def2-svp", density_fit=True),
        pyscf_level("pbe", "gth-szv", kpoints=[2, 1, 1]),
    )
    known = {key for level in levels for key in level.settings}
    assert known - {"title", "program"} <= set(Pyscf.model_fields)


def test_every_threshold_of_the_gate_can_be_written_in_yaml() -> None:
    assert {field.name for field in fields(Tolerances)} == set(Gate.model_fields)


# --- what a campaign adds ------------------------------------------------------------


def test_doubts_and_rechecks_are_the_campaign_s_and_not_the_level_s(
    tmp_path: Path,
) -> None:
    text = START + (
        "levels:\n  cheap: {level: hf/sto-3g, doubts: exclude, recheck: 0.2}\n"
        "  expensive:\n    level: ccsd(t)/cc-pvdz\n    doubts: {instability: accept}\n"
    )
    setup = restored(described(text, tmp_path))
    levels = setup.plan.levels
    assert set(levels.doubts("cheap").values()) == {"exclude"}
    others = set(Doubt) - {Doubt.INSTABILITY}
    flagged = dict.fromkeys(others, "flag")
    assert levels.doubts("expensive") == {Doubt.INSTABILITY: "accept", **flagged}
    assert (levels.recheck("cheap"), levels.recheck("expensive")) == (0.2, 0.05)
    assert setup.levels["cheap"] == pyscf_level("hf", "sto-3g")


def test_the_only_level_s_policy_is_the_cheap_one_s_too(tmp_path: Path) -> None:
    text = f"{START}levels: {{expensive: {{kind: toy, doubts: accept, recheck: 0.3}}}}"
    levels = described(text, tmp_path).plan.levels
    assert levels.recheck("cheap") == 0.3
    assert set(levels.doubts("cheap").values()) == {"accept"}


def test_a_gate_of_one_s_own_is_part_of_the_level_only_where_given() -> None:
    plain, gated = (
        parse_level("hf/sto-3g"),
        parse_level("{level: hf/sto-3g, gate: {force: 30, net_force: 1e-3}}"),
    )
    assert gated.settings["gate"] == {"force": 30.0, "net_force": 1e-3}
    assert "gate" not in plain.settings
    assert gated.id != plain.id


def test_the_empty_fault_of_older_stores_is_dropped_and_no_yaml_causes_one() -> None:
    assert parse_level("{kind: toy, fault: ''}") == parse_level("{kind: toy}")
    with pytest.raises(InputError, match="fault"):
        parse_level("{kind: toy, fault: hang}")


# --- mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gfn3-xtb", "did you mean 'gfn2-xtb'?"),
        ("b3lyp", "a method needs a basis, as in 'b3lyp/def2-svp'"),
        ("water", "expected METHOD/BASIS, an xTB method, a universal potential or"),
        ("{kind: pyscff}", "did you mean `pyscf`?"),
        ("{kind: xtb, method: gfn3}", "there is no xTB method 'gfn3'"),
        ("{kind: pyscf, method: hf, basis: x, conv_tl: 1}", "did you mean `conv_tol`?"),
        ("{level: hf/sto-3g, doubts: exlude}", "did you mean `exclude`?"),
        ("{level: hf/sto-3g, doubts: {spin: flag}}", "doubts.spin"),
        ("{level: hf/sto-3g, gate: {nett_force: 1}}", "did you mean `net_force`?"),
        ("{level: hf/sto-3g, recheck: 2}", "at most 1"),
        ("{level: pbe/def2-svp, kpoints: [2, 1]}", "kpoints"),
        ("{level: pbe/def2-svp, reference: restricted}", "`unrestricted`"),
        ("{kind: table, path: none.extxyz}", "No such file"),
        ("{kind: model, path: none.model}", "No such file"),
        ("{level: 3}", "expected the name or file of a level, got 3"),
        ("{kind: toy", "expected ',' or '}'"),
    ],
)
def test_what_is_no_level_names_the_nearest_one(text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        parse_level(text)


def test_a_level_s_file_holds_one_level(tmp_path: Path) -> None:
    (tmp_path / "hf-sto-3g.yaml").write_text("level: hf/sto-3g")
    (tmp_path / "pair.yaml").write_text("levels: {expensive: hf/sto-3g}")
    (tmp_path / "next.yaml").write_text("level: hf-sto-3g.yaml")
    text = START + "levels: {expensive: %s}"
    found = problems(text % "hf-sto3g.yaml", tmp_path)["levels.expensive"]
    assert "did you mean 'hf-sto-3g.yaml'?" in found
    found = problems(text % "pair.yaml", tmp_path)["levels.expensive"]
    assert "not one level; `extends` it instead" in found
    found = problems(text % "next.yaml", tmp_path)["levels.expensive"]
    assert "names another file" in found


def test_a_wrong_level_hides_no_other_mistake(tmp_path: Path) -> None:
    text = START + "levels: {cheap: gfn7, expensive: pbe}\nbudget: {expensive: -1}"
    found = problems(text, tmp_path)
    assert set(found) == {"levels.cheap", "levels.expensive", "budget.expensive"}


@pytest.mark.parametrize(
    ("name", "pbc", "level", "words"),
    [
        ("cell", (True, True, True), "hf/sto-3g", "HF/STO-3G treats molecules"),
        ("cell", (True, True, True), "gfn1-xtb", ""),
        ("cell", (True, True, False), "gfn2-xtb", "periodic in part"),
        ("cell", (True, True, True), "pbe-gth-szv-2x1x1", ""),
        ("H2O", (False, False, False), "pbe-gth-szv-2x1x1", "H2O is a molecule"),
        ("OH", (False, False, False), "gfn2-xtb", "need an odd spin"),
    ],
)
def test_molecules_and_cells_go_to_levels_that_treat_them(
    name: str, pbc: tuple[bool, bool, bool], level: str, words: str
) -> None:
    atoms = bulk("NaCl", "rocksalt", 5.6) if name == "cell" else molecule(name)
    atoms.pbc = pbc
    atoms.set_initial_magnetic_moments(None)
    text = level if "gth" not in level else str(ROOT / f"configs/levels/{level}.yaml")
    found = start_problems(from_atoms(atoms), [parse_level(text)])
    assert [words in flaw for flaw in found] == [True] * bool(words)


def test_editors_know_that_a_level_may_be_a_name() -> None:
    levels = campaign_schema()["$defs"]["Levels"]["properties"]
    for fidelity in ("cheap", "expensive"):
        assert {"type": "string"} in levels[fidelity]["anyOf"]
        assert "oneOf" not in levels[fidelity]
