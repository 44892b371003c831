"""The examination of real campaigns on toy levels."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.core.records import Label
from alloop.core.seeds import split_of
from alloop.export import Choice
from alloop.history.label_entries import label_entries
from alloop.history.reader import History, read_history
from alloop.loop import events as e
from alloop.report.analysis.examination import (
    examination_sentences,
    last_examination,
)
from alloop.report.analysis.outcome import compare_controls
from alloop.report.status import detail_lines
from alloop.store_copies import fork
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

BUDGET = {"cheap": 26, "expensive": 10}
TEST = {"frames": 6, "each": 2, "spacing": 5}
EXAMINED = {**TEST, "examination": 5, "examination_spacing": 20}
GOLDEN = Path(__file__).parents[1] / "store" / "golden"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A finished campaign, examined."""
    folder = tmp_path_factory.mktemp("examined")
    campaign = Campaign.from_yaml(write_toy(folder, budget=BUDGET, validation=EXAMINED))
    assert campaign.run().exit_code == 0
    return campaign


def examined_labels(history: History) -> set[str]:
    return {x.frame.id for x in label_entries(history) if x.purpose == "examination"}


def test_frames_of_both_tests_have_the_temperatures_of_exploration(
    tmp_path: Path,
) -> None:
    frozen = {key: value for key, value in EXAMINED.items() if key != "temperature"}
    several = {"temperature": [50, 900], "walkers": 2}
    path = write_toy(tmp_path, budget=BUDGET, validation=frozen, explore=several)
    assert Campaign.from_yaml(path).run().exit_code == 0
    history = Campaign.from_yaml(path).history()
    found = last_examination(history)
    assert found is not None
    assert found.temperatures == (50.0, 900.0)
    assert "at 50 and 900 K" in " ".join(examination_sentences(history))
    (prepared,) = (x for _, x in history.of_kind(e.Prepared))
    moved = [w for _, x in history.of_kind(e.Examined) for w in x.walkers]
    for walkers in (prepared.starts, moved):
        energies: dict[int, list[float]] = {0: [], 1: []}
        for walker in walkers:
            masses = atomic_masses[walker.frame.numbers]
            energies[walker.index % 2].append(masses @ (walker.velocities**2).sum(1))
        assert 0.0 < np.mean(energies[0]) < 0.5 * np.mean(energies[1])


def test_the_test_is_md_on_the_model_at_the_temperature_of_exploration(
    campaign: Campaign,
) -> None:
    history = campaign.history()
    found = last_examination(history)
    assert found is not None
    assert (found.frames, found.temperatures, found.walkers) == (5, (400.0,), 3)
    model = campaign.model()
    assert (
        found.generation == history.state.generations.best == model.facts["generation"]
    )
    labels = [x for x in label_entries(history) if x.purpose == "examination"]
    apart = []
    for label in labels:
        assert isinstance(label.record, Label)
        from alloop.core.batch import pack_frames

        said = model.predict(pack_frames([label.frame]))
        apart.append(said.forces - label.record.forces)
    assert found.errors is not None
    assert found.errors.force_mae == pytest.approx(np.abs(apart).mean(), rel=1e-6)
    assert {split_of(x.purpose) for x in labels} == {"test"}


def test_examined_frames_are_outside_budget_and_training(campaign: Campaign) -> None:
    history = campaign.history()
    frames = examined_labels(history)
    assert history.state.labels.used("expensive") == 10
    for fidelity in ("cheap", "expensive"):
        assert not frames & set(history.state.labels.trained_on(fidelity))
    assert not frames & set(history.state.labels.validation_frames())


def test_a_raised_budget_is_examined_anew_and_learns_from_no_old_frame(
    tmp_path: Path,
) -> None:
    test = {**EXAMINED, "frames": 0}  # without a validation set the newest is the best
    Campaign.from_yaml(write_toy(tmp_path, budget=BUDGET, validation=test)).run()
    before = examined_labels(read_history(tmp_path / "toy.zarr"))
    more = Campaign.from_yaml(write_toy(tmp_path, validation=test))
    assert more.run().exit_code == 0
    history = more.history()
    assert len(examined_labels(history)) == 10
    assert not before & set(history.state.labels.trained_on("expensive"))
    found = last_examination(history)
    assert found is not None
    assert (found.number, found.generation) == (2, history.state.generations.count)
    assert not before & found.by_frame.keys()


def test_controls_are_judged_on_the_same_frames_without_new_labels(
    campaign: Campaign,
) -> None:
    frames = examined_labels(campaign.history())
    for name in fork.NAMES:
        own = campaign.control(name)
        assert own.run().exit_code == 0
        history = own.history()
        assert examined_labels(history) == frames
        made = [x for x in label_entries(history) if x.purpose == "examination"]
        assert all(x.cached for x in made)
        assert not frames & set(history.state.labels.trained_on("expensive"))
        before = store_contents(own.store)
        campaign.control(name).run()
        assert store_contents(own.store) == before
    histories = {name: read_history(path) for name, path in campaign.controls().items()}
    found = compare_controls(campaign.history(), histories)
    assert [[duel.n for duel in x.pairs] for x in found] == [[5, 6], [5, 6]]


def test_an_old_finished_store_gets_its_examination(tmp_path: Path) -> None:
    with tarfile.open(GOLDEN / "format3.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    store = tmp_path / "format3.zarr"
    assert Campaign.from_store(store).run().exit_code == 0
    history = read_history(store)
    found = last_examination(history)
    assert found is not None
    assert found.frames == 20
    assert history.state.generations.count == 2


def test_a_users_test_set_leads_and_may_have_an_examination_beside(
    campaign: Campaign, tmp_path: Path
) -> None:
    campaign.export(tmp_path / "test.xyz", Choice("expensive", "train", 1))
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    test = {"file": "test.xyz", **units, **keys}
    test = {**test, "examination": 4, "examination_spacing": 20}
    own = Campaign.from_yaml(
        write_toy(tmp_path, seed=8, budget=BUDGET, validation=test)
    )
    assert own.run().exit_code == 0
    history = own.history()
    found = last_examination(history)
    assert found is not None
    assert found.frames == 4
    lines = detail_lines(history)
    assert "validation set" in lines[1]
    assert "Examination" in lines[2]
    bare = Campaign.from_yaml(write_toy(tmp_path / "bare", budget=BUDGET))
    assert bare.setup.rules.examining.frames == 0


@pytest.mark.parametrize("explore", [{"temperature": 1e5}, {"timestep": 5.0}])
def test_walkers_that_all_die_at_once_are_no_success(
    tmp_path: Path, explore: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    moves = {"walkers": 4, "batch": 2, "steps": 40, "piece": 20, "stride": 5}
    path = write_toy(tmp_path, explore={**moves, "temperature": 400, **explore})
    assert main(["run", str(path), "--quiet"]) == 3
    said = "".join(capsys.readouterr())
    assert "timestep" in said
    assert "temperature" in said
    good = write_toy(tmp_path, explore={**moves, "temperature": 400}, budget=BUDGET)
    assert main(["run", str(good), "--quiet"]) == 0


def test_examination_labels_are_priced_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_toy(tmp_path, validation=EXAMINED)
    assert main(["plan", str(path), "--no-measure"]) == 0
    row = next(x for x in capsys.readouterr().out.splitlines() if "examination" in x)
    assert " 5 " in row
