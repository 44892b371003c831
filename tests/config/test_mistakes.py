"""Mistakes in configurations: each is told with its place and its cure."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from alloop.config import (
    ConfigError,
    load_campaign,
    parse_campaign,
)
from tests.config.toy_campaign import TOY, problems


def test_all_mistakes_are_shown_at_once_with_the_nearest_right_key(
    tmp_path: Path,
) -> None:
    found = problems(
        """
        name: my water
        sed: 7
        timestep: 0.5
        walltme: 3 h
        start: [{molecule: H2O, spn: 1}, {molecul: CO}, {file: no.xyz}, {molecule: H2Q}]
        validation: {frames: -3, temprature: 400}
        levels:
          cheap: {kind: pyscff, method: hf}
          expensive: {kind: toy, stifness: 2}
        explore: {kind: langevn}
        potential: 5
        training: {kind: standard, pretrain: 4}
        budget: {cheap: -3, expensive: many, walkers: 4}
        flag: {quantile: 2, selection: randm, fill: 1}
        store: 3
        """,
        tmp_path,
    )
    right = {
        "name": "letters, digits",
        "sed": "did you mean `seed`?",
        "start.0.spn": "did you mean `spin`?",
        "start.1": "expected molecule | smiles | file | labels | store, got the keys",
        "start.2": "expected a structure file, no.xyz is not there",
        "start.3": "there is no element `Q` in `H2Q`",
        "validation.frames": "at least 0 (frames",
        "validation.temprature": "did you mean `temperature`?",
        "levels.cheap": "there is no kind `pyscff`; did you mean `pyscf`?",
        "levels.expensive.stifness": "did you mean `stiffness`?",
        "explore": "there is no kind `langevn`; did you mean `langevin`?",
        "potential": "expected keys and values",
        "training.pretrain": "only `kind: asteroid` has it",
        "budget.cheap": "expected a number of at least 0 (most labels",
        "budget.expensive": "expected a whole number",
        "budget.walkers": "it belongs under `explore:`",
        "timestep": "no such key here; it belongs under `validation:` or `explore:`",
        "walltme": "did you mean `walltime` under `cluster:` or `limits:`?",
        "flag.quantile": "below 1",
        "flag.selection": "did you mean `random`?",
        "flag.fill": "expected true or false",
        "store": "expected text",
    }
    assert found.keys() == right.keys()
    for path, text in right.items():
        assert text in found[path], path


def test_a_mistake_in_one_section_does_not_hide_what_is_missing(
    tmp_path: Path,
) -> None:
    found = problems("budget: {expensive: 3.5}", tmp_path)
    assert set(found) == {"budget.expensive", "name", "start", "levels"}
    assert found["levels"].startswith("is missing")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [1", "line 1, column 6"),
        ("a: 1\na: 2", "`a` stands twice"),
        ("[1, 2]", "expected keys such as"),
        ("", "got nothing"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(
    text: str, word: str, tmp_path: Path
) -> None:
    assert word in problems(text, tmp_path)[""]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_campaign(tmp_path / "no.yaml")


def test_methods_basis_sets_and_levels_that_cannot_be(tmp_path: Path) -> None:
    levels = (
        "{cheap: {kind: pyscf, method: b3lip, basis: sto-3g},"
        " expensive: {kind: pyscf, method: ccsd(t), basis: cc-pvdzz}}"
    )
    text = f"name: x\nstart: [{{molecule: OH, spin: 0}}]\nlevels: {levels}"
    found = problems(text, tmp_path)
    assert "B3LYP" in found["levels.cheap"].upper()
    assert "cc-pVDZ".lower() in found["levels.expensive"].lower()
    assert "9 electrons need an odd spin" in found["start.0"]


def test_a_measured_split_needs_two_levels(tmp_path: Path) -> None:
    budget = "\nbudget: {cheap: 0, expensive: 30, split: measured}\n"
    text = TOY + budget + "seeds: {cheap: 0}\ntraining: {kind: standard}\n"
    assert "expected two levels" in problems(text, tmp_path)["budget.split"]


def test_two_equal_levels_are_a_mistake(tmp_path: Path) -> None:
    text = TOY.replace("stiffness: 0.9", "stiffness: 1")
    assert "both are toy 1/0" in problems(text, tmp_path)["levels"]


def test_atoms_on_top_of_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.xyz", Atoms("OHH", [[0, 0, 0], [0, 0, 0.1], [1, 0, 0]]))
    text = TOY.replace("{molecule: H2O}", "{file: x.xyz}")
    found = problems(text, tmp_path)["start.0"]
    assert "covalent radii" in found
    assert "H2O cannot be a molecule" in found


def test_a_single_atom_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "atom.xyz").write_text("1\n\nO 0 0 0\n")
    text = TOY.replace("{molecule: H2O}", "{molecule: H2O}, {file: atom.xyz}")
    found = problems(text, tmp_path)
    assert "single O" in found["start.1"]
    assert "start.0" not in found


def test_an_unknown_element_in_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("1\n\nXq 0 0 0\n")
    (tmp_path / "y.xyz").write_text("1\n\nO 0 0\n")
    text = TOY.replace("{molecule: H2O}", "{file: x.xyz}, {file: y.xyz}")
    found = problems(text, tmp_path)
    assert "element `Xq`, which is none; did you mean `Xe`" in found["start.0"]
    assert "y.xyz is not" in found["start.1"]


def test_molecules_are_found_by_name_or_the_nearest_one_is_told(tmp_path: Path) -> None:
    assert parse_campaign(TOY.replace("H2O", "methanol"), tmp_path).molecules == (
        "CH4O",
    )
    found = problems(TOY.replace("H2O", "methanal"), tmp_path)["start.0"]
    assert "did you mean `methanol`" in found


@pytest.mark.parametrize("store", ["taken", "taken/x.zarr", "/proc/alloop/x.zarr"])
def test_a_store_that_cannot_be_written_is_refused(store: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert set(problems(f"{TOY}store: {store}\n", tmp_path)) == {"store"}


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("seeds: {cheap: 300}", "seeds.cheap"),
        ("seeds: {expensive: 31}", "seeds.expensive"),
        ("training: {every: 31}", "training.every"),
        ("training: {gamma: [1, 2], bias: plain}", "training.validation"),
        ("training: {gamma: 1}", "training.gamma"),
        ("explore: {walkers: 1}\nstart: [{molecule: H2O}, {molecule: CO}]", "explore"),
        ("seeds: {expensive: 1}\nstart: [{molecule: H2O}, {molecule: CO}]", "seeds"),
        ("validation: {frames: 0}\nstop: {target: 5}", "stop.target"),
        ("validation: {frames: 9}\nflag: {error: 0.1}", "flag.error"),
        ("validation: {frames: 18}\nflag: {error: 0.1, coverage: 0.95}", "flag.error"),
        ("potential: {kind: file, path: no.model}", "potential.path"),
        ("start: [{labels: no.xyz, level: cheap, energy_unit: eV}]", "start.0"),
    ],
)
def test_sections_must_agree(lines: str, path: str, tmp_path: Path) -> None:
    text = TOY.replace("start: [{molecule: H2O}]\n", "") if "start" in lines else TOY
    found = problems(f"{text}{lines}\n", tmp_path)
    assert [key for key in found if key.startswith(path)]


def test_a_level_is_no_potential_to_train(tmp_path: Path) -> None:
    text = f"{TOY}potential: {{kind: ase, calculator: ase.calculators.emt.EMT}}\n"
    found = problems(text, tmp_path)["potential"]
    assert found.startswith("a level of kind ase cannot be trained; expected a network")


def test_what_needs_a_cheap_level_says_so(tmp_path: Path) -> None:
    text = (
        "name: x\nstart: [{molecule: H2O}]\nlevels: {expensive: {kind: toy}}\n"
        "budget: {cheap: 5}\nseeds: {cheap: 3}\ntraining: {kind: asteroid}\n"
    )
    found = problems(text, tmp_path)
    assert set(found) == {"budget.cheap", "seeds.cheap", "training.kind"}
