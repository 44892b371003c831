"""The `training:` section: stages as data, reference energies, and their mistakes."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from alloop.config import ConfigError, parse_campaign
from alloop.config.build import make_trainer as teacher
from alloop.config.train_sections import training_plan
from alloop.config.yaml_text import parse_yaml
from alloop.training.bias_weights import Gamma
from alloop.training.stages import Schedule, Stage
from alloop.training.trainers.staged_trainer import StagedTrainer

TOY = """
name: toy
start: [{molecule: H2O}]
levels: {cheap: {kind: toy, stiffness: 0.9}, expensive: {kind: toy}}
potential: {kind: painn, channels: 8, layers: 1}
"""
ALONE = TOY.replace("cheap: {kind: toy, stiffness: 0.9}, ", "")


def trainer(text: str, base: Path) -> StagedTrainer:
    found = parse_campaign(text, base).worker_settings.trainer
    assert isinstance(found, StagedTrainer)
    return found


def problems(text: str, base: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, base)
    return {problem.path: problem.text for problem in caught.value.problems}


def test_stages_of_ones_own_are_the_trainers(tmp_path: Path) -> None:
    text = (
        TOY
        + """
training:
  kind: stages
  lr: 4.0e-3
  batch: 6
  gamma: [0.5, 2]
  validation: 0.2
  stages:
    - {name: teacher, on: expensive, steps: 30, start: scratch}
    - {name: pretraining, on: cheap, steps: 70, start: parent, weights: scaled,
       warmup: 9}
    - {name: both, on: both, steps: 40, labels: corrected, mix: 0.3, lr: 1.0e-3,
       norm: l1, decay: wsd, hold: 0.5, layer_decay: 0.8, epochs: 9, patience: 20,
       every: 5, optimiser: adamw}
"""
    )
    found = trainer(text, tmp_path)
    usual = Schedule(4e-3, 6)
    slow = Schedule(
        1e-3,
        6,
        norm="l1",
        every=5,
        patience=20,
        decay="wsd",
        hold=0.5,
        layer_decay=0.8,
        epochs=9,
        optimiser="adamw",
    )
    assert found.stages == (
        Stage("teacher", "expensive", 30, "scratch", schedule=usual),
        Stage("pretraining", "cheap", 70, "parent", "scaled", Schedule(4e-3, 6, 9)),
        Stage("both", "both", 40, schedule=slow, labels="corrected", mix=0.3),
    )
    assert found.gammas == (Gamma(0.5), Gamma(2.0))
    assert found.validation == 0.2
    plan = parse_campaign(text, tmp_path).plan
    assert plan.training is not None
    assert plan.training.total == 140


def test_what_is_written_down_again_means_the_same(tmp_path: Path) -> None:
    text = TOY + (
        "training: {kind: stages, references: {cheap: {H: -13, O: -2e3}},\n"
        "           stages: [{name: a, on: cheap, steps: 5, norm: l1}]}\n"
    )
    again = parse_campaign(text, tmp_path).text
    assert parse_campaign(again, tmp_path).text == again
    ours, theirs = trainer(text, tmp_path), trainer(again, tmp_path)
    assert (ours.stages, ours.given) == (theirs.stages, theirs.given)


def test_reference_energies_of_one_level_leave_the_others_fitted(
    tmp_path: Path,
) -> None:
    text = TOY + "training: {references: {cheap: {H: -13, O: -2000.5}}}\n"
    assert trainer(text, tmp_path).given == {"cheap": {1: -13.0, 8: -2000.5}}
    assert trainer(TOY, tmp_path).given == {}


@pytest.mark.parametrize(
    ("option", "starts", "weights"),
    [
        ("bias: plain", ["scratch", "scratch", "previous"], "bias"),
        ("bias: plain, start: parent", ["parent", "parent", "previous"], "bias"),
        ("bias: scaled", ["scratch", "scratch", "previous"], "scaled"),
    ],
)
def test_options_of_asteroid_change_its_stages(
    option: str, starts: list[str], weights: str, tmp_path: Path
) -> None:
    text = f"{TOY}training: {{kind: asteroid, {option}}}\n"
    stages = trainer(text, tmp_path).stages
    assert [stage.start for stage in stages] == starts
    assert [stage.weights for stage in stages] == ["uniform", weights, "uniform"]


@pytest.mark.parametrize("start", ["scratch", "parent"])
def test_standard_training_starts_where_it_is_told(start: str, tmp_path: Path) -> None:
    text = f"{TOY}training: {{kind: standard, start: {start}}}\n"
    assert [stage.start for stage in trainer(text, tmp_path).stages] == [start]


def test_without_weights_pretraining_gets_the_steps_of_the_teacher(
    tmp_path: Path,
) -> None:
    text = f"{TOY}training: {{kind: asteroid, bias: plain}}\n"
    usual = trainer(text, tmp_path).stages
    plain = trainer(f"{TOY}training: {{kind: asteroid}}\n", tmp_path).stages
    assert [(x.name, x.weights) for x in plain] == [
        ("pretraining", "uniform"),
        ("fine-tuning", "uniform"),
    ]
    assert sum(x.steps for x in plain) == sum(x.steps for x in usual)


def test_all_mistakes_of_the_fields_are_told_at_once(tmp_path: Path) -> None:
    text = (
        TOY
        + """
training:
  kind: stages
  references: {cheap: {H: -13, X: 3}, expensive: isolated}
  stages:
    - {name: a, on: cheap, steps: 0}
    - {name: a b, on: cheep, steps: 3, lr: 0, mixx: 1}
"""
    )
    found = problems(text, tmp_path)
    right = {
        "training.references.cheap": "there is no element `X`",
        "training.references.expensive": "expected `fitted`, or an energy in eV",
        "training.stages.0.steps": "at least 1",
        "training.stages.1.name": "letters, digits",
        "training.stages.1.on": "did you mean `cheap`?",
        "training.stages.1.lr": "above 0",
        "training.stages.1.mixx": "did you mean `mix`?",
    }
    assert found.keys() == right.keys()
    for path, text in right.items():
        assert text in found[path], path


def test_all_mistakes_between_the_stages_are_told_at_once(tmp_path: Path) -> None:
    text = (
        TOY
        + """
training:
  kind: stages
  gamma: [1, 2]
  references: {cheap: {H: -13}}
  stages:
    - {name: a, on: cheap, steps: 5, weights: bias, labels: corrected}
    - {name: a, on: expensive, steps: 5, weights: bias, labels: scaled}
    - {name: c, on: both, steps: 5, labels: difference}
    - {name: d, on: expensive, steps: 5, labels: difference}
"""
    )
    found = problems(text, tmp_path)
    right = {
        "training.validation": "choose among 2 gammas",
        "training.references.cheap": "for O too",
        "training.stages.0.weights": "needs a stage `on: expensive` before",
        "training.stages.0.labels": "needs a stage `on: cheap` before",
        "training.stages.1.name": "another stage is called `a`",
        "training.stages.1.weights": "weighs cheap labels",
        "training.stages.1.labels": "goes with `on: cheap` or `on: both`",
        "training.stages.2.labels": "goes with `on: expensive`",
        "training.stages.3.labels": "the last stage makes the result",
    }
    assert found.keys() == right.keys()
    for path, text in right.items():
        assert text in found[path], path


def test_stages_on_cheap_labels_need_a_cheap_level(tmp_path: Path) -> None:
    text = ALONE + (
        "training: {kind: stages, stages: [{name: a, on: cheap, steps: 5},\n"
        "  {name: b, on: both, steps: 5}, {name: c, on: expensive, steps: 5}]}\n"
    )
    found = problems(text, tmp_path)
    assert set(found) == {"training.stages.0.on", "training.stages.1.on"}


def test_pair_functions_have_no_stages(tmp_path: Path) -> None:
    text = TOY.replace("{kind: painn, channels: 8, layers: 1}", "{kind: pairwise}")
    stages = "training: {kind: stages, stages: [{name: a, on: cheap, steps: 5}]}\n"
    assert "not stepped" in problems(text + stages, tmp_path)["training.kind"]


SCORED = """
potential: {kind: painn, channels: 8, layers: 1}
training:
  kind: stages
  stages:
    - {name: frames, on: cheap, steps: 5, loss: score, temperature: 500, noise: 0.01}
    - {name: fine-tuning, on: expensive, steps: 5}
"""


def test_frames_without_labels_are_learned_from_outside_campaigns(
    tmp_path: Path,
) -> None:
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    start = [
        {"labels": str(tmp_path / f"{level}.xyz"), "level": level, **units}
        for level in ("cheap", "expensive")
    ]
    plan, _ = training_plan({**parse_yaml(SCORED, "a text"), "start": start})
    trainer = teacher(plan)
    assert isinstance(trainer, StagedTrainer)
    first, last = trainer.stages
    assert (first.loss, first.temperature, first.noise) == ("score", 500.0, 0.01)
    assert (last.loss, last.temperature) == ("labels", 0.0)
    campaign = TOY.replace("potential: {kind: painn, channels: 8, layers: 1}", SCORED)
    found = problems(campaign, tmp_path)
    assert list(found) == ["training.stages.0.loss"]
    assert "use `alloop train`" in found["training.stages.0.loss"]


def test_what_does_not_go_with_a_stages_loss(tmp_path: Path) -> None:
    text = TOY + (
        "training: {kind: stages, stages: [\n"
        "  {name: a, on: expensive, steps: 5, temperature: 300, patience: 9},\n"
        "  {name: b, on: cheap, steps: 5, loss: score, weights: bias}]}\n"
    )
    right = {
        "training.validation": "the errors of `patience` on, in stage a",
        "training.stages.0.temperature": "goes with `loss: score`",
        "training.stages.1.temperature": "that the frames were drawn at",
        "training.stages.1.weights": "learns from no labels",
        "training.stages.1.loss": "drawn by its own model",
    }
    found = problems(text, tmp_path)
    assert found.keys() == right.keys()
    for path, said in right.items():
        assert said in found[path], path


@pytest.mark.parametrize(
    ("potential", "option", "optimiser"),
    [
        ("{kind: painn}", "", "muon"),
        ("{kind: painn}", ", optimiser: adamw", "adamw"),
        ("{kind: chgnet}", "", "adamw"),  # few steps from weights that are good
        ("{kind: chgnet}", ", optimiser: muon", "muon"),
    ],
)
def test_the_optimiser_is_the_networks_own_or_as_asked(
    potential: str, option: str, optimiser: str, tmp_path: Path
) -> None:
    if "chgnet" in potential:
        pytest.importorskip("chgnet")
    text = TOY.replace("{kind: painn, channels: 8, layers: 1}", potential)
    plan = parse_campaign(
        f"{text}training: {{kind: standard{option}}}\n", tmp_path
    ).plan
    (stage,) = trainer_stages(teacher(plan))
    assert stage.schedule.optimiser == optimiser


@pytest.mark.parametrize(
    ("potential", "training", "rates"),
    [
        ("{kind: painn}", "{kind: standard}", [5e-3]),
        ("{kind: painn}", "{kind: asteroid}", [5e-3, 1e-3]),
        ("{kind: ani}", "{kind: standard}", [3e-4]),
        ("{kind: ani}", "{kind: asteroid}", [3e-4, 3e-4]),
        ("{kind: ani}", "{kind: asteroid, lr: 1.0e-3}", [1e-3, 3e-4]),
    ],
)
def test_learning_rates_are_lower_from_a_universal_potential(
    potential: str, training: str, rates: list[float], tmp_path: Path
) -> None:
    if "ani" in potential and find_spec("torchani") is None:
        pytest.skip("torchani is not installed")
    text = TOY.replace("{kind: painn, channels: 8, layers: 1}", potential)
    plan = parse_campaign(f"{text}training: {training}\n", tmp_path).plan
    stages = trainer_stages(teacher(plan))
    assert [stage.schedule.lr for stage in stages] == rates


def trainer_stages(found: object) -> tuple[Stage, ...]:
    staged = getattr(found, "staged", found)
    assert isinstance(staged, StagedTrainer)
    return staged.stages


HEADED = TOY + "training: {kind: two-heads}\n"
REFINED = HEADED + "refine: {kind: test-time, frames: 5, steps: 40, worse: 0.1}\n"


def test_a_refinement_is_part_of_the_rules_and_of_the_workers_settings(
    tmp_path: Path,
) -> None:
    setup = parse_campaign(REFINED, tmp_path)
    assert setup.rules.refine is not None
    assert setup.rules.refine.frames == 5
    settings = setup.worker_settings.refine
    assert settings is not None
    assert (settings.steps, settings.worse) == (40, 0.1)
    without = parse_campaign(HEADED, tmp_path)
    assert without.rules.refine is without.worker_settings.refine is None


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        (TOY, "refine", "expected `training: {kind: two-heads}`"),
        (ALONE + "training: {kind: two-heads}\n", "refine", "cheap labels"),
        (HEADED + "budget: {cheap: 0}\n", "refine", "cheap labels"),
        (
            HEADED.replace("{kind: toy, stiffness: 0.9}", "{kind: toy}"),
            "levels",
            "both are",
        ),
        (
            HEADED + "validation: {frames: 0}\n",
            "validation.frames",
            "validation frames with `refine`",
        ),
        (
            HEADED.replace("two-heads}", "two-heads, staleness: 1}"),
            "training.staleness",
            "expected 0 with `refine`",
        ),
        (
            HEADED + "explore: {protocol: naive}\n",
            "explore.protocol",
            "expected `periodic` with `refine`",
        ),
        (HEADED + "flag: {kind: committee}\n", "flag.kind", "saves nothing"),
    ],
)
def test_what_a_refinement_needs_is_told_in_a_sentence(
    tmp_path: Path, text: str, path: str, said: str
) -> None:
    found = problems(text + "refine: {kind: test-time}\n", tmp_path)
    assert said in found[path]
