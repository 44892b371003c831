"""Configurations: what a minimal one means, and every mistake with its cure."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alloop.acceptance import AcceptanceSettings
from alloop.config import (
    Setup,
    campaign_schema,
    changes_since,
    fixed_differences,
    load_campaign,
    parse_campaign,
)
from alloop.config.sections.explore import Barostat, Guards
from alloop.config.sections.plan import Acceptance, Stop
from alloop.config.sections.training import Standard
from alloop.config.yaml_text import parse_yaml
from alloop.labels.levels import pyscf_level
from alloop.loop import events as e
from alloop.loop.rules import StopRules, walker_temperature
from alloop.md.barostat import Barostat as CellBarostat
from alloop.md.guards import Guards as WalkerGuards
from alloop.md.integrate import VelocityVerlet
from alloop.potentials.repulsion import ZBL
from alloop.scores.calibrate import ScorerSettings, calibrate_threshold
from alloop.scores.qresidual import QResidualScorer
from alloop.store_copies.fork import standard_interval
from alloop.training.trainers.staged_trainer import StagedTrainer
from tests.config.toy_campaign import TOY, problems
from tests.conftest import skip_without

ROOT = Path(__file__).parents[2]


def opening(setup: Setup) -> e.Opened:
    levels = {name: level.id for name, level in setup.levels.items()}
    return e.Opened(setup.seed, levels, setup.start, setup.given, setup.model_id)


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
    assert changes_since(setup.text, again.text) == ()


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
        "so3lr_water": "so3krates_torch",
    }
    if path.stem in packages:
        skip_without(packages[path.stem])
    setup = load_campaign(path)
    assert setup.name == path.stem
    assert setup.store == ROOT / "runs" / f"{path.stem}.zarr"


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
    assert changes_since(old, new) == ("budget.expensive",)


def test_a_setting_that_came_with_a_newer_alloop_is_no_change(tmp_path: Path) -> None:
    text = TOY + "potential: {kind: painn}\ntraining: {kind: asteroid}\n"
    new = parse_campaign(text, tmp_path).text
    tree = yaml.safe_load(new)
    del tree["potential"]["softening"], tree["training"]["dipoles"]
    del tree["training"]["adapters"], tree["explore"]["shapes"]
    changed = changes_since(yaml.safe_dump(tree), new)
    assert {key.rpartition(".")[0] or key for key in changed} <= {
        "explore",  # shapes are on by default now, and older campaigns have none
        "explore.shapes",
    }
    other = parse_campaign(text.replace("painn", "painn, softening: 0.1"), tmp_path)
    assert "potential.softening" in changes_since(yaml.safe_dump(tree), other.text)


def test_the_old_name_of_the_validation_set_is_read(tmp_path: Path) -> None:
    new = parse_campaign(TOY + "validation: {frames: 9}\n", tmp_path).text
    old = parse_campaign(TOY + "test: {frames: 9}\n", tmp_path).text
    assert old == new
    assert parse_yaml(new, "new")["validation"]["frames"] == 9
    assert changes_since(new.replace("\nvalidation:", "\ntest:"), new) == ()


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
