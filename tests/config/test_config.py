"""Configurations: what a minimal one means, and every mistake with its cure."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alloop.acceptance import AcceptanceSettings
from alloop.config import (
    ConfigError,
    Setup,
    campaign_schema,
    changed_keys,
    fixed_differences,
    load_campaign,
    parse_campaign,
)
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.sections.acceptance import Acceptance
from alloop.config.sections.data import Sampled
from alloop.config.sections.explore import Barostat, Guards
from alloop.config.sections.plan import Stop
from alloop.config.sections.training import Standard
from alloop.config.yaml_text import collect_fragments, merge_trees, parse_yaml
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.history.reader import CODEC
from alloop.labels.levels import pyscf_level, toy_level
from alloop.loop import events as e
from alloop.loop.rules import StopRules, walker_temperature
from alloop.md.barostat import Barostat as CellBarostat
from alloop.md.guards import Guards as WalkerGuards
from alloop.md.integrate import VelocityVerlet
from alloop.potentials.repulsion import ZBL
from alloop.scores.calibrate import ScorerSettings, calibrate_threshold
from alloop.scores.qresidual import QResidualScorer
from alloop.store.archive import Archive
from alloop.store_copies.controls import standard_interval
from alloop.training.trainers.staged_trainer import StagedTrainer
from tests.conftest import skip_without

ROOT = Path(__file__).parents[2]
TOY = """
name: toy
start: [{molecule: H2O}]
levels: {cheap: {kind: toy, stiffness: 0.9}, expensive: {kind: toy}}
"""


def problems(text: str, base: Path) -> dict[str, str]:
    """What is wrong with a configuration, by path."""
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, base)
    assert caught.value.exit_code == 2
    return {problem.path: problem.text for problem in caught.value.problems}


def opening(setup: Setup) -> e.Opened:
    levels = {name: level.id for name, level in setup.levels.items()}
    return e.Opened(setup.seed, levels, setup.start, setup.given, setup.model_id)


def labelled(frames: list[Atoms], path: Path) -> Path:
    """An extxyz file with the toy level's own labels."""
    from alloop.core.atoms import from_atoms
    from alloop.labels.toy import label_with_toy

    for atoms in frames:
        result = label_with_toy(from_atoms(atoms), toy_level().settings)
        atoms.info["REF_energy"] = result.energy
        atoms.arrays["REF_forces"] = result.forces
    write(path, frames, format="extxyz")
    return path


def rattled(count: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = [molecule("H2O") for _ in range(count)]
    for atoms in frames:
        atoms.positions += 0.05 * rng.standard_normal((3, 3))
    return frames


# --- what is right -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "record"),
    [
        (Guards, WalkerGuards),
        (Barostat, CellBarostat),
        (Stop, StopRules),
        (Acceptance, AcceptanceSettings),
    ],
)
def test_a_section_without_keys_is_its_record_with_defaults(
    section: type[Any], record: type[Any]
) -> None:
    assert section().build() == record()


def test_a_section_gives_the_values_of_its_record_in_the_units_of_files() -> None:
    stop = Stop.model_validate({"target": 25.0})
    assert stop.build().target == pytest.approx(0.025)  # eV/Å of meV/Å
    assert stop.model_dump()["target"] == 25.0
    with pytest.raises(ValidationError, match="greater than 0"):
        Stop.model_validate({"target": 0.0})
    assert pickle.loads(pickle.dumps(stop)) == stop


def test_name_start_and_levels_are_enough(tmp_path: Path) -> None:
    setup = parse_campaign(TOY, tmp_path)
    assert setup.name == "toy"
    assert setup.molecules == ("H2O",)
    assert setup.store == tmp_path / "runs/toy.zarr"
    assert (setup.rules.budget.cheap, setup.rules.budget.expensive) == (200, 30)
    assert (setup.rules.seeding.cheap, setup.rules.seeding.expensive) == (60, 10)
    assert setup.rules.seeding.validation == 30
    assert not setup.rules.is_single_fidelity
    assert setup.plan.training is not None
    assert setup.plan.training.kind == "asteroid"


def test_without_a_cheap_level_there_is_one_fidelity(tmp_path: Path) -> None:
    text = "name: x\nstart: [{molecule: H2O}]\nlevels: {expensive: {kind: toy}}"
    setup = parse_campaign(text, tmp_path)
    assert setup.rules.is_single_fidelity
    assert setup.plan.training is not None
    assert setup.plan.training.kind == "standard"
    assert list(setup.levels) == ["expensive"]
    assert setup.worker_settings.levels["cheap"] == setup.levels["expensive"]


def test_every_number_reaches_the_loop_in_its_own_units(tmp_path: Path) -> None:
    text = TOY + (
        "seed: 4\n"
        "validation: {frames: 8, temperature: 300, timestep: 0.25, each: 2, spacing: "
        "7}\nseeds: {kind: rattle, cheap: 5, expensive: 4, sigma: 0.02}\n"
        "explore: {kind: verlet, temperature: 350, timestep: 1, walkers: 3,\n"
        "          steps: 90, batch: 2, piece: 30, stride: 3,\n"
        "          guards: {force: null, heat: 4}}\n"
        "flag: {kind: q-residual, components: 8, quantile: 0.9, control: 0.2,\n"
        "       selection: random}\n"
        "training: {every: 6}\n"
        "budget: {cheap: 50, expensive: 12, cpu_hours: 2}\n"
        "stop: {target: 25, patience: 2, rounds: 9}\n"
        "limits: {label_time: 60, label_memory: 900, isolate: false}\n"
        "cluster: {kind: local, workers: 3}\n"
    )
    setup = parse_campaign(text, tmp_path)
    rules, kit = setup.rules, setup.worker_settings
    assert rules.stopping.target == pytest.approx(0.025)  # eV/Å
    assert (rules.every, rules.control, rules.selection) == (6, 0.2, "random")
    assert (rules.seeding.validation, rules.seeding.per_walker) == (8, 2)
    assert (rules.exploring.piece, rules.exploring.walkers) == (30, 3)
    assert rules.budget.cpu_hours == 2
    assert (kit.seed, kit.isolate) == (4, False)
    assert kit.scoring.scorer == QResidualScorer(components=8)
    assert (kit.dynamics.integrator, kit.dynamics.timestep) == (VelocityVerlet(), 1.0)
    assert (kit.dynamics.guards.force, kit.dynamics.guards.heat) == (None, 4.0)
    assert (kit.beginning.temperatures, kit.beginning.spacing) == ((300,), 7)
    assert (kit.limits.seconds, kit.limits.memory_mb) == (60, 900)
    assert (setup.cluster.kind, setup.cluster.workers) == ("local", 3)


def test_a_list_of_temperatures_reaches_the_walkers_of_every_molecule(
    tmp_path: Path,
) -> None:
    several = "{walkers: 8, temperature: [300, 600]}"
    text = TOY.replace("{molecule: H2O}", "{molecule: H2O}, {molecule: CH4}")
    setup = parse_campaign(f"{text}explore: {several}\n", tmp_path)
    temperatures = setup.rules.exploring.temperatures
    kelvin = [walker_temperature(temperatures, x, molecules=2) for x in range(8)]
    assert kelvin == [300.0, 300.0, 600.0, 600.0] * 2  # walkers 0, 2, 4, 6: water
    assert setup.worker_settings.beginning.temperatures == (300.0, 600.0)
    assert setup.rules.examining.temperatures == (300.0, 600.0)
    one = parse_campaign(
        f"{text}explore: {several}\nvalidation: {{temperature: 450}}\n", "."
    )
    assert one.worker_settings.beginning.temperatures == (450.0,)
    assert one.rules.examining.temperatures == (450.0,)
    again = Setup.from_store(setup.text, opening(setup), setup.store)
    assert again.rules.exploring.temperatures == temperatures


def test_one_temperature_is_written_and_read_as_before(tmp_path: Path) -> None:
    setup = parse_campaign(f"{TOY}explore: {{temperature: 350}}\n", tmp_path)
    assert "\n  temperature: 350.0\n" in setup.text
    assert setup.rules.exploring.temperatures == (350.0,)


@pytest.mark.parametrize(
    ("given", "path", "says"),
    [
        ("hot", "explore.temperature", "expected a number (temperature of the"),
        ("-5", "explore.temperature", "a number above 0"),
        ("[]", "explore.temperature", "a list of at least 1"),
        ("[300, -5]", "explore.temperature.1", "a number above 0"),
    ],
)
def test_wrong_temperatures_are_told_in_a_sentence(
    given: str, path: str, says: str, tmp_path: Path
) -> None:
    text = f"{TOY}explore: {{temperature: {given}, walkers: 0}}\n"
    found = problems(text, tmp_path)
    assert says in found[path]
    assert "explore.walkers" in found  # all mistakes at once


def test_spin_defaults_to_that_of_the_molecule(tmp_path: Path) -> None:
    text = TOY.replace("{molecule: H2O}", "{molecule: O2}, {molecule: NO}")
    setup = parse_campaign(text, tmp_path)
    assert [frame.spin for frame in setup.start] == [2, 1]


def test_nitric_oxide_is_no_boolean_and_1e3_a_number() -> None:
    tree = parse_yaml(
        "a: NO\nb: 1e-3\nc: 12:30\nd: on\ne: 2024-01-01\nf: true\ng: .5", "x"
    )
    assert list(tree.values()) == ["NO", 1e-3, "12:30", "on", "2024-01-01", True, 0.5]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 500),
    st.floats(1, 2000),
    st.sampled_from(["langevin", "verlet"]),
    st.one_of(st.none(), st.floats(0.1, 100)),
)
def test_the_stored_text_restores_the_same_campaign(
    steps: int, temperature: float, kind: str, target: float | None
) -> None:
    text = TOY + (
        f"explore: {{kind: {kind}, steps: {steps}, temperature: {temperature!r}}}\n"
        f"stop: {{target: {'null' if target is None else target}}}\n"
    )
    setup = parse_campaign(text, Path.cwd())
    again = Setup.from_store(setup.text, opening(setup), setup.store)
    assert again.text == setup.text
    assert again.rules == setup.rules
    assert again.levels == setup.levels
    assert fixed_differences(again, opening(setup)) == []
    assert changed_keys(setup.text, again.text) == ()


def test_what_a_run_sends_to_workers_needs_no_torch_here() -> None:
    code = (
        "import pickle, sys; from alloop import Campaign; import alloop.driver.run\n"
        "pickle.dumps(Campaign.from_yaml(sys.argv[1]).setup.worker_settings)\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "campaigns" / "water.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_networks_of_older_stores_go_on_without_repulsion(tmp_path: Path) -> None:
    setup = parse_campaign(TOY, tmp_path)
    assert "repulsion: zbl" in setup.text
    trainer = setup.worker_settings.trainer
    assert isinstance(trainer, StagedTrainer)
    assert trainer.repulsion == ZBL
    older = setup.text.replace("repulsion: zbl", "")
    again = Setup.from_store(older, opening(setup), setup.store)
    trainer = again.worker_settings.trainer
    assert isinstance(trainer, StagedTrainer)
    assert trainer.repulsion is None
    assert "repulsion: none" in again.text


def test_checking_creates_nothing(tmp_path: Path) -> None:
    parse_campaign(TOY, tmp_path)
    problems(TOY + "budget: {expensive: -1}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_says_units() -> None:
    found = campaign_schema()
    assert "fs" in found["$defs"]["Langevin"]["properties"]["timestep"]["description"]
    assert "extends" in found["properties"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("campaigns/*.yaml")), ids=str)
def test_each_campaign_that_we_ship_is_right(path: Path) -> None:
    packages = {
        "chgnet_water": "chgnet",
        "chgnet_salt": "chgnet",
        "so3lr_methanol": "so3krates_torch",
    }
    if path.stem in packages:
        skip_without(packages[path.stem])
    setup = load_campaign(path)
    assert setup.name == path.stem
    assert setup.store == ROOT / "runs" / f"{path.stem}.zarr"


FRAGMENTS = [*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/potentials/*.yaml")]


@pytest.mark.parametrize("path", sorted(FRAGMENTS), ids=str)
def test_each_fragment_that_we_ship_can_be_extended(path: Path) -> None:
    tree = {"extends": str(path), **parse_yaml(TOY, "toy")}
    plan, mistakes = validate_tree(collect_fragments(tree, ROOT, "x", known_kinds()))
    assert plan is not None
    assert mistakes == []


# --- extends -------------------------------------------------------------------------


def test_later_fragments_win_and_the_campaign_wins_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nexplore: {steps: 10, walkers: 2}\n")
    (tmp_path / "b.yaml").write_text("seed: 2\nexplore: {steps: 20}\n")
    text = "extends: [a.yaml, b.yaml]\n" + TOY + "explore: {stride: 4}"
    setup = parse_campaign(text, tmp_path)
    assert setup.seed == 2
    explore = setup.plan.explore
    assert (explore.steps, explore.walkers, explore.stride) == (20, 2, 4)


def test_paths_in_a_fragment_are_relative_to_the_fragment(tmp_path: Path) -> None:
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/x.yaml").write_text(
        "extends: ../y.yaml\nstart: [{file: w.xyz}]\n"
    )
    (tmp_path / "far/y.yaml").write_text("store: s.zarr\n")
    write(tmp_path / "far/deep/w.xyz", molecule("H2O"))
    text = TOY.replace("start: [{molecule: H2O}]\n", "") + "extends: far/deep/x.yaml"
    setup = parse_campaign(text, tmp_path)
    assert setup.store == tmp_path / "far/s.zarr"
    assert setup.molecules == ("H2O",)


def test_another_kind_keeps_only_the_keys_that_it_knows() -> None:
    below = {"explore": {"kind": "langevin", "friction": 0.1, "steps": 7}}
    above = {"explore": {"kind": "verlet"}}
    assert merge_trees(below, above, known_kinds()) == {
        "explore": {"kind": "verlet", "steps": 7}
    }


@pytest.mark.parametrize("file", ["/dev/zero", "pipe", ".", "page.html", "text"])
def test_a_foreign_file_that_is_extended_is_refused(tmp_path: Path, file: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes: a reader would wait for ever
    (tmp_path / "page.html").write_text("<html><body>no YAML: [</body></html>")
    (tmp_path / "text").write_text("root:x:0:0\n")
    (tmp_path / "x.yaml").write_text(f"extends: {file}\n" + TOY)
    with pytest.raises(InputError, match="expected"):
        load_campaign(tmp_path / "x.yaml")


def test_a_circle_of_fragments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    assert "extends this" in problems("extends: a.yaml\n" + TOY, tmp_path)["extends"]


def test_a_missing_fragment_is_named(tmp_path: Path) -> None:
    assert "`no.yaml` is not" in problems("extends: no.yaml", tmp_path)["extends"]
    assert "list of files" in problems("extends: [3]", tmp_path)["extends"]


# --- mistakes ------------------------------------------------------------------------


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


# --- data that comes along -----------------------------------------------------------

UNITS = "energy_unit: eV, length_unit: angstrom"


def test_labels_come_along_and_bring_their_molecule(tmp_path: Path) -> None:
    labelled(rattled(6, 1), tmp_path / "old.extxyz")
    labelled(rattled(5, 2), tmp_path / "test.extxyz")
    text = TOY.replace("{molecule: H2O}", "{labels: old.extxyz, level: expensive, %s}")
    text = text % UNITS + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    setup = parse_campaign(text, tmp_path)
    train = [item for item in setup.given if not item.test]
    assert (len(train), len(setup.given)) == (6, 11)
    assert {item.label.level for item in setup.given} == {setup.levels["expensive"].id}
    lowest = min(train, key=lambda item: item.label.energy)
    assert setup.start == (lowest.frame,)
    assert setup.rules.seeding.validation == 0


def test_a_test_frame_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    frames = rattled(4, 1)
    labelled(frames, tmp_path / "old.extxyz")
    turned = frames[2].copy()
    turned.rotate(40, "x")
    labelled([*rattled(2, 5), turned], tmp_path / "test.extxyz")
    text = TOY.replace("{molecule: H2O}", "{labels: old.extxyz, level: cheap, %s}")
    text = text % UNITS + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    assert "2 (= 2 of training)" in problems(text, tmp_path)["validation"]


def test_a_unit_that_cannot_be_right_is_warned_about(tmp_path: Path) -> None:
    labelled(rattled(8, 1), tmp_path / "old.extxyz")
    item = "{labels: old.extxyz, level: cheap, energy_unit: eV, length_unit: bohr}"
    setup = parse_campaign(TOY.replace("{molecule: H2O}", item), tmp_path)
    assert any("lengths" in warning for warning in setup.warnings)


def test_one_frame_with_two_energies_is_refused(tmp_path: Path) -> None:
    frames = rattled(2, 1)
    labelled(frames, tmp_path / "a.extxyz")
    frames[0].info["REF_energy"] += 1.0
    write(tmp_path / "b.extxyz", frames, format="extxyz")
    item = f"{{labels: a.extxyz, level: cheap, {UNITS}}}"
    both = f"{item}, {item.replace('a.ext', 'b.ext')}"
    assert (
        "two cheap energies"
        in problems(TOY.replace("{molecule: H2O}", both), tmp_path)["start.1"]
    )


def test_a_test_set_of_another_molecule_is_refused(tmp_path: Path) -> None:
    labelled([molecule("CO")], tmp_path / "test.extxyz")
    text = TOY + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    assert "CO is in the validation set" in problems(text, tmp_path)["validation"]


def test_another_store_lends_labels_only_of_the_same_levels(tmp_path: Path) -> None:
    setup = parse_campaign(TOY, tmp_path)
    frame, level = setup.start[0], setup.levels["cheap"]
    label = Label(frame.id, level.id, -9.0, np.zeros((3, 3)))
    supplied = e.Given(frame, 0, "cheap", label)
    levels = {name: level.id for name, level in setup.levels.items()}
    opened = e.Opened(0, levels, setup.start, (supplied,))
    attrs = {"config": setup.text, "name": "old"}
    with Archive.create(tmp_path / "old.zarr", attrs=attrs, codec=CODEC) as archive:
        archive.append(e.Turn(opened))
    text = TOY.replace("{molecule: H2O}", "{store: old.zarr}")
    other = text.replace("0.9", "0.8").replace("kind: toy}}", "kind: toy, offset: 1}}")
    assert "a level of this campaign" in problems(other, tmp_path)["start.0"]


# --- what a store remembers ----------------------------------------------------------


def test_seed_start_and_levels_are_fixed_for_a_store(tmp_path: Path) -> None:
    opened = opening(parse_campaign(TOY, tmp_path))
    assert fixed_differences(parse_campaign(TOY, tmp_path), opened) == []
    other = TOY.replace("0.9", "0.8").replace("H2O", "CO") + "seed: 5\n"
    found = fixed_differences(parse_campaign(other, tmp_path), opened)
    assert len(found) == 3
    assert found[0] == "its seed is 0, not 5"
    assert "cheap level" in found[1]
    assert "starts from H2O" in found[2]


def test_a_new_budget_is_a_change_and_a_moved_store_is_none(tmp_path: Path) -> None:
    old = parse_campaign(TOY, tmp_path).text
    new = parse_campaign(
        TOY + "budget: {expensive: 40}\nstore: b.zarr\n", tmp_path
    ).text
    assert changed_keys(old, new) == ("budget.expensive",)


def test_the_old_name_of_the_validation_set_is_read(tmp_path: Path) -> None:
    new = parse_campaign(TOY + "validation: {frames: 9}\n", tmp_path).text
    old = parse_campaign(TOY + "test: {frames: 9}\n", tmp_path).text
    assert old == new
    assert parse_yaml(new, "new")["validation"]["frames"] == 9
    assert changed_keys(new.replace("\nvalidation:", "\ntest:"), new) == ()


def test_a_fragment_with_the_old_name_lies_beneath_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("test: {frames: 9, each: 2}\n")
    text = TOY + "extends: below.yaml\nvalidation: {frames: 12}\n"
    found = parse_campaign(text, tmp_path).plan.validation
    assert isinstance(found, Sampled)
    assert (found.frames, found.each) == (12, 2)


def test_both_names_of_the_validation_set_are_refused(tmp_path: Path) -> None:
    text = TOY + "test: {frames: 9}\nvalidation: {frames: 12}\n"
    assert "old name of `validation:`" in problems(text, tmp_path)["test"]


def test_a_store_with_the_old_name_is_continued(tmp_path: Path) -> None:
    setup = parse_campaign(TOY + "validation: {frames: 9}\n", tmp_path)
    old = setup.text.replace("\nvalidation:", "\ntest:")
    again = Setup.from_store(old, opening(setup), tmp_path / "a.zarr")
    assert again.rules == setup.rules


def test_a_control_changes_what_it_says_and_keeps_the_rest(tmp_path: Path) -> None:
    setup = parse_campaign(
        TOY + "training: {every: 5, teacher: 7, start: parent}\n", tmp_path
    )
    changes = {"budget": {"cheap": 0, "expensive": 44}, "seeds": {"cheap": 0}}
    control = setup.with_changes(
        {**changes, "training": {"kind": "standard"}},
        tmp_path / "c.zarr",
        opening(setup),
    )
    assert control.rules.is_single_fidelity
    assert (control.rules.budget.expensive, control.rules.every) == (44, 5)
    assert isinstance(control.plan.training, Standard)
    assert setup.plan.training is not None
    assert control.plan.training.total == setup.plan.training.total
    assert control.plan.training.start == "parent"
    assert control.store == tmp_path / "c.zarr"
    assert fixed_differences(control, opening(setup)) == []


def test_a_control_with_many_labels_trains_as_often_as_the_campaign(
    tmp_path: Path,
) -> None:
    budget = "budget: {cheap: 300, expensive: 60}\nseeds: {cheap: 60, expensive: 20}\n"
    setup = parse_campaign(TOY + budget + "training: {every: 10}\n", tmp_path)
    assert standard_interval(setup, 60) == 10
    assert standard_interval(setup, 75) == 14
    assert standard_interval(setup, 500) == 120  # 4 rounds, as the campaign has


def test_the_usual_quantile_takes_no_more_than_the_usual_validation_frames(
    tmp_path: Path,
) -> None:
    setup = parse_campaign(TOY, tmp_path)
    frames = setup.rules.seeding.validation
    found = calibrate_threshold(np.arange(float(frames)), setup.plan.flag.quantile)
    assert found.method == "conformal"
    assert found.needed <= frames
    assert ScorerSettings().quantile == setup.plan.flag.quantile


def test_a_level_of_a_newer_program_is_another_level(tmp_path: Path) -> None:
    setup = parse_campaign(TOY, tmp_path)
    other = {"cheap": setup.levels["cheap"].id, "expensive": pyscf_level("hf", "x").id}
    opened = e.Opened(0, other, setup.start)
    assert "expensive level" in fixed_differences(setup, opened)[0]


def test_a_store_that_is_none_is_told_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    text = TOY.replace("{molecule: H2O}", "{store: no.zarr}, {store: folder}")
    found = problems(text, tmp_path)
    assert "does not exist" in found["start.0"]
    assert "is not an alloop store" in found["start.1"]


def test_labelled_frames_that_begin_a_campaign_are_looked_at_too(
    tmp_path: Path,
) -> None:
    clash = Atoms("OHH", [[0, 0, 0], [0, 0, 0.2], [1, 0, 0]])
    labelled([clash], tmp_path / "old.extxyz")
    item = f"{{labels: old.extxyz, level: expensive, {UNITS}}}"
    found = problems(TOY.replace("{molecule: H2O}", item), tmp_path)
    assert "covalent radii" in found["start.0"]
