"""A campaign that refines its generations by cheap labels of flagged frames."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alloop import Campaign
from alloop.cli.app import app
from alloop.core.batch import pack_frames
from alloop.core.records import LabelSet, TrainingData
from alloop.driver.run import RunObserver
from alloop.generation import Generation, potential_from_bytes, to_bytes
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.commands import Explore, Train
from alloop.models.heads import beginning_names, head_names
from alloop.potentials.two_heads import TwoHeadPotential
from alloop.training.state_folder import StateFolder
from alloop.workers.settings import TaskData
from alloop.workers.training_task import perform_training
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

TWO_HEADS = {
    "potential": {"kind": "painn", "channels": 8, "layers": 2, "cutoff": 3.0},
    "training": {
        "kind": "two-heads",
        "every": 4,
        "pretrain": 20,
        "finetune": 10,
        "compile": False,
    },
    "refine": {"kind": "test-time", "frames": 2, "steps": 6, "worse": 50},
    "explore": {
        "shapes": None,
        **{"walkers": 4, "batch": 4, "steps": 12, "piece": 12, "stride": 3},
        "temperature": 400,
    },
    "flag": {"quantile": 0.5},
    "budget": {"cheap": 36, "expensive": 10},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign that nothing disturbs: trained, refined, trained."""
    campaign = Campaign.from_yaml(
        write_toy(tmp_path_factory.mktemp("alone"), **TWO_HEADS)
    )
    assert campaign.run().exit_code == 0
    return campaign


def trainings(history: History) -> list[Train]:
    asked = [c for entry in history.entries for c in entry.turn.commands]
    return [c for c in asked if isinstance(c, Train)]


def two_heads(campaign: Campaign, generation: int) -> TwoHeadPotential:
    found = campaign.model(generation).potential
    assert isinstance(found, TwoHeadPotential)
    return found


def test_a_refined_generation_explores_and_the_next_starts_from_it(
    alone: Campaign,
) -> None:
    history = alone.history()
    first, refined, last = trainings(history)
    assert [bool(x.refine) for x in (first, refined, last)] == [False, True, False]
    _, event, _ = history.trained()
    found = event.refinement
    assert found is not None
    assert (found.frames, found.share) == (len(refined.refine), 1.0)
    assert found.cheap[1] < found.cheap[0]
    asked = [c for x in history.entries for c in x.turn.commands]
    explored = [c.generation for c in asked if isinstance(c, Explore)]
    assert explored == [1, 2]
    assert last.parent == event.model
    before, after = (two_heads(alone, n).frozen_network.state_dict() for n in (1, 2))
    changed = {name for name in before if bool((before[name] != after[name]).any())}
    assert changed
    network = two_heads(alone, 1).frozen_network
    assert changed <= beginning_names(network) | head_names(network)


def test_a_kill_in_a_refinement_changes_nothing(
    tmp_path: Path, alone: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process is gone."""

    refining: list[Train] = []
    write = StateFolder.save

    def save_and_die(self: StateFolder, name: str, state: object) -> None:
        write(self, name, state)  # type: ignore[arg-type]
        if refining:
            raise Killed

    def look(_state: object, turn: e.Turn) -> None:
        refining.extend(c for c in turn.commands if isinstance(c, Train) and c.refine)

    campaign = Campaign.from_yaml(write_toy(tmp_path, **TWO_HEADS))
    with monkeypatch.context() as patched:
        patched.setattr(StateFolder, "should_save", lambda _: bool(refining))
        patched.setattr(StateFolder, "save", save_and_die)
        with pytest.raises(Killed):
            campaign.run(observer=RunObserver(look))
    assert list(campaign.history().state.open) == [refining[0].name]
    assert Campaign.from_store(campaign.store).run().exit_code == 0
    assert store_contents(campaign.store) == store_contents(alone.store)


def refinement(alone: Campaign, model: Generation) -> tuple[Train, TaskData]:
    """The refinement of a model whose held-out labels are what the model says."""
    history = alone.history()
    command = trainings(history)[1]
    index, levels = history.label_index, history.state.levels
    cheap = index.label_set(levels["cheap"], command.cheap)
    test = pack_frames([index.frames[x] for x in command.test])
    said = model.predict(test)
    data = TaskData(
        model=to_bytes(model)[1],
        data=TrainingData(
            cheap, index.label_set(levels["expensive"], command.expensive)
        ),
        test=LabelSet(test, said.energies, said.forces),
    )
    return command, data


def test_a_refinement_that_spoils_held_out_labels_is_rolled_back(
    alone: Campaign,
) -> None:
    """Any change of the model is worse."""
    settings = alone.setup.worker_settings
    assert settings.refine is not None
    strict = replace(settings, refine=replace(settings.refine, worse=0.0))
    task = refinement(alone, alone.model(1))
    event, _ = perform_training(*task, strict)
    assert event.refinement is not None
    assert event.refinement.share == 0.0
    assert [x.name.split()[0] for x in event.failed_checks] == ["force"]
    again, _ = perform_training(*task, strict)
    assert again.model == event.model


def test_a_model_without_a_cheap_head_is_trained(alone: Campaign) -> None:
    """As after a change of `training:` to two heads."""
    plain = replace(alone.model(1), potential=two_heads(alone, 1).cheap())
    task = refinement(alone, plain)
    event, blob = perform_training(*task, alone.setup.worker_settings)
    assert event.refinement is None
    assert event.checks == ()
    assert isinstance(potential_from_bytes(blob), TwoHeadPotential)


def test_people_are_told_what_was_refined(alone: Campaign) -> None:
    def said(*words: str) -> str:
        found = CliRunner().invoke(app, [words[0], str(alone.store), *words[1:]])
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    why = said("why", "2")
    assert "the one before it refined on cheap labels of" in why
    assert "100% of the step kept" in why
    assert "Passed: force error on held-out expensive labels" in why
    assert json.loads(said("why", "2", "--json"))["refinement"]["share"] == 1.0
    frame = trainings(alone.history())[1].refine[0]
    assert "Its cheap label refined the model before it to generation 2" in said(
        "why", frame[:10]
    )
    assert "generation 2 refined (100% of the step kept" in said("log")
    status = json.loads(said("status", "--json"))
    assert "1 generation refined" in status["refinements"][0]
