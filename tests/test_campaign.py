"""Whole campaigns on toy levels: run, go on, refuse, share, take out, compare."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import ase.db
import numpy as np
import pytest
import yaml
from ase.calculators.calculator import Calculator

import alloop
from alloop.campaign import Campaign
from alloop.core.atoms import to_atoms
from alloop.core.batch import Batch
from alloop.core.errors import InputError, LockedError
from alloop.core.records import Failure, Label, Predictions, TrainingData
from alloop.core.roles import Potential
from alloop.driver.run import RunObserver
from alloop.export import Choice
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History, read_history
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Recheck, Train
from alloop.loop.state import LoopState
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.pairwise import PairwisePotential, from_checkpoint
from alloop.store.cache import LabelCache
from alloop.training.trainers.pairwise import PairwiseTrainer
from alloop.workers.settings import OwnPotential
from benchmarks.durability.comparison import store_contents
from tests.conftest import replay, write_toy

BUDGET = {"cheap": 26, "expensive": 10}


@dataclass
class Onlooker:
    """Remembers what was committed, and may ask to stop after so many turns."""

    limit: int = 10**9
    turns: list[e.Turn] = field(default_factory=list)

    def observe(self, _state: LoopState, turn: e.Turn) -> None:
        self.turns.append(turn)

    def watch(self) -> RunObserver:
        return RunObserver(self.observe, stop=lambda: len(self.turns) >= self.limit)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished toy campaign, for tests that only read it."""
    path = write_toy(tmp_path_factory.mktemp("finished"), budget=BUDGET)
    assert Campaign.from_yaml(path).run().exit_code == 0
    return path


def test_a_campaign_ends_with_labels_generations_and_a_reason(finished: Path) -> None:
    history = Campaign.from_yaml(finished).history()
    state = history.state
    assert state.finished == "the budget of expensive labels is spent"
    assert (state.labels.used("cheap"), state.labels.used("expensive")) == (26, 10)
    assert len(state.labels.validation_frames()) == 6
    assert len(history.trained()) == 2
    assert set(state.labels.validation_frames()).isdisjoint(
        state.labels.trained_on("expensive")
    )
    assert set(state.labels.validation_frames()).isdisjoint(
        state.labels.trained_on("cheap")
    )


def test_some_labels_of_each_level_are_made_again(finished: Path) -> None:
    history = Campaign.from_yaml(finished).history()
    found = [x.noise for x in history.rechecked()]
    levels = history.state.levels.values()
    counts = [sum(x.level == level for x in found) for level in levels]
    assert counts == [3, 3]
    assert all(0 <= x.force_max < 1e-6 for x in found)  # toys are exact
    assert {x.failure for x in found} == {None}
    assert set(history.priced()[-1].costs) == set(levels)
    assert cpu_seconds_by_part(history)["noise floor"] > 0


def test_state_is_the_fold_of_the_journal(tmp_path: Path) -> None:
    states: list[LoopState] = []
    onlooker = RunObserver(lambda state, _turn: states.append(state))
    campaign = Campaign.from_yaml(write_toy(tmp_path, budget=BUDGET))
    campaign.run(observer=onlooker)
    turns = [entry.turn for entry in campaign.history().entries]
    assert len(states) == len(turns)
    for number in (1, len(turns) // 2, len(turns)):
        replayed, live = replay(turns[:number]), states[number - 1]
        assert list(replayed.labels.entries()) == list(live.labels.entries())
        assert replayed.open.keys() == live.open.keys()
        assert (replayed.stage, replayed.exploration.round) == (
            live.stage,
            live.exploration.round,
        )


def test_running_a_finished_campaign_does_nothing(finished: Path) -> None:
    onlooker = Onlooker()
    outcome = Campaign.from_yaml(finished).run(observer=onlooker.watch())
    assert outcome.exit_code == 0
    assert onlooker.turns == []


def test_a_campaign_goes_on_from_its_store_alone(tmp_path: Path) -> None:
    path = write_toy(tmp_path, budget=BUDGET)
    outcome = Campaign.from_yaml(path).run(observer=Onlooker(limit=25).watch())
    assert outcome.exit_code == 3
    path.unlink()
    assert Campaign.from_store(tmp_path / "toy.zarr").run().exit_code == 0
    alone = write_toy(tmp_path / "alone", budget=BUDGET)
    Campaign.from_yaml(alone).run()
    assert store_contents(tmp_path / "toy.zarr") == store_contents(
        tmp_path / "alone" / "toy.zarr"
    )


def test_a_raised_budget_goes_on_where_the_campaign_ended(tmp_path: Path) -> None:
    Campaign.from_yaml(write_toy(tmp_path, budget=BUDGET)).run()
    more = Campaign.from_yaml(write_toy(tmp_path))
    outcome = more.run()
    assert outcome.state.labels.used("expensive") == 14
    amended = [x for _, x in more.history().events() if isinstance(x, e.Amended)]
    assert [set(event.changed) for event in amended] == [
        {"budget.cheap", "budget.expensive"}
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 8}, "seed"),
        ({"start": [{"molecule": "NH3"}]}, "start"),
        ({"levels": {"cheap": {"kind": "toy", "stiffness": 0.5}}}, "level"),
    ],
)
def test_a_store_of_another_campaign_is_refused(
    finished: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    if "levels" in changes:
        changes = {"levels": {"expensive": {"kind": "toy"}, **changes["levels"]}}  # type: ignore[dict-item]
    store = str(finished.with_name("toy.zarr"))
    path = write_toy(tmp_path, budget=BUDGET, store=store, **changes)
    before = store_contents(finished.with_name("toy.zarr"))
    with pytest.raises(InputError, match=said):
        Campaign.from_yaml(path).run()
    assert store_contents(finished.with_name("toy.zarr")) == before


HOLD = """
import sys
from alloop.history.reader import CODEC
from alloop.store.archive import Archive
with Archive.open(sys.argv[1], CODEC, mode="w"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_refused_in_one_sentence(finished: Path) -> None:
    store = str(finished.with_name("toy.zarr"))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, store]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as refused:
            Campaign.from_yaml(finished).run()
        assert str(holder.pid) in str(refused.value)
        assert "\n" not in str(refused.value)
        holder.communicate()


def test_labels_that_a_cache_holds_are_never_made_again(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    first = write_toy(tmp_path / "first", budget=BUDGET, cache=cache)
    second = write_toy(tmp_path / "second", budget=BUDGET, cache=cache)
    Campaign.from_yaml(first).run()
    campaign = Campaign.from_yaml(second)
    campaign.run()
    labelled = [x for _, x in campaign.history().events() if isinstance(x, e.Labelled)]
    assert labelled
    assert all(event.cached for event in labelled)
    assert store_contents(first.with_name("toy.zarr")) == store_contents(
        second.with_name("toy.zarr")
    )


@pytest.mark.slow
def test_two_campaigns_may_share_a_cache_at_the_same_time(
    finished: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    paths = [
        write_toy(tmp_path / name, budget=BUDGET, cache=str(cache))
        for name in ("one", "two")
    ]
    command = (sys.executable, "-m", "alloop", "run", "--quiet")
    quiet = subprocess.DEVNULL
    runs = [subprocess.Popen([*command, str(path)], stdout=quiet) for path in paths]
    assert [run.wait(timeout=200) for run in runs] == [0, 0]
    alone = store_contents(finished.with_name("toy.zarr"))
    for path in paths:
        assert store_contents(path.with_name("toy.zarr")) == alone
    labels = read_history(paths[0].with_name("toy.zarr")).label_index.labels
    kept = LabelCache(cache)
    for (level, frame), label in labels.items():
        again = kept.get(level, frame)
        assert isinstance(again, Label)
        assert isinstance(label, Label)
        assert again.forces.tobytes() == label.forces.tobytes()


def test_an_excluded_frame_leaves_later_training(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path, budget=BUDGET))
    campaign.run()
    seeds = [
        x for x in campaign.history().state.labels.entries() if x.purpose == "seed"
    ]
    frame = next(x.frame for x in seeds if x.fidelity == "expensive")
    assert campaign.exclude(frame[:10], None, "looked wrong") == frame
    more = Campaign.from_yaml(write_toy(tmp_path))
    more.run()
    history = more.history()
    assert frame not in history.state.labels.trained_on("expensive")
    trains = [
        command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, Train)
    ]
    assert frame in trains[0].expensive
    assert frame not in trains[-1].expensive
    with pytest.raises(InputError, match="none"):
        more.exclude("feedbeef", None, "not there")


def test_failed_labels_are_values_and_the_campaign_goes_on(tmp_path: Path) -> None:
    levels = {
        "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02},
        "expensive": {"kind": "toy", "fail_above": 1.6},
    }
    campaign = Campaign.from_yaml(write_toy(tmp_path, levels=levels))
    assert campaign.run().exit_code == 0
    records = campaign.history().label_index.labels.values()
    failures = [record for record in records if not isinstance(record, Label)]
    assert failures
    assert {record.failure for record in failures} == {Failure.NOT_CONVERGED}
    failed = {record.frame for record in failures}
    assert failed.isdisjoint(campaign.history().state.labels.trained_on("expensive"))


def test_controls_share_first_labels_and_label_cost(tmp_path: Path) -> None:
    levels = {
        "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, "burn": 0.002},
        "expensive": {"kind": "toy", "burn": 0.02},
    }
    path = write_toy(tmp_path, budget=BUDGET, levels=levels)
    campaign = Campaign.from_yaml(path)
    campaign.run()
    outcomes = {name: campaign.control(name).run() for name in ("standard", "random")}
    assert {name: x.exit_code for name, x in outcomes.items()} == {
        "standard": 0,
        "random": 0,
    }
    main = campaign.history()
    for name, store in campaign.controls().items():
        control = read_history(store)
        assert (
            control.state.labels.validation_frames()
            == main.state.labels.validation_frames()
        )
        seeds = {x.frame for x in main.state.labels.entries() if x.purpose == "seed"}
        assert seeds <= {x.frame for x in control.state.labels.entries()}, name
        asked = [x.generation for x in control.trained()]
        assert len(control.priced()) == len(asked)
        assert {x.frame for x in _rechecks(control)} <= {
            x.frame for x in _rechecks(main)
        }
    standard = outcomes["standard"].state
    assert 10 < standard.labels.used("expensive") <= 10 + 26
    trains = [
        command
        for entry in read_history(campaign.controls()["standard"]).entries
        for command in entry.turn.commands
        if isinstance(command, Train)
    ]
    assert trains
    assert all(command.cheap == () for command in trains)
    random = [x.reason for x in _asked(read_history(campaign.controls()["random"]))]
    assert "random" in random
    again = campaign.control("random").run()
    assert again.state.generations.errors == outcomes["random"].state.generations.errors


def _rechecks(history: History) -> list[Recheck]:
    return [
        command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, Recheck)
    ]


def _asked(history: object) -> list[LabelFrame]:
    return [
        command
        for entry in history.entries  # type: ignore[attr-defined]
        for command in entry.turn.commands
        if isinstance(command, LabelFrame)
    ]


def test_the_calculator_and_the_model_file_agree(
    finished: Path, tmp_path: Path
) -> None:
    campaign = Campaign.from_yaml(finished)
    file = campaign.export_model(tmp_path / "water.model")
    frame = next(iter(campaign.history().label_index.frames.values()))
    results = []
    for calculator in (campaign.calculator(), alloop.load(file).calculator()):
        atoms = to_atoms(frame)
        atoms.calc = calculator
        assert isinstance(calculator, Calculator)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        results.append((energy, forces, calculator.results["surprise"]))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2] > 0
    assert campaign.model(1).facts["expensive_labels"] == 6
    atoms.info["charge"] = 1
    for strict in (campaign.calculator(), alloop.load(file).calculator()):
        atoms.calc = strict
        with pytest.raises(InputError, match=r"H2O \(charge 0, 2S 0\)"):
            atoms.get_forces()
    atoms.calc = campaign.calculator(outside=True)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(InputError, match="1, 2"):
        campaign.model(9)


def test_the_dataset_is_ase_atoms_with_labels(finished: Path) -> None:
    campaign = Campaign.from_yaml(finished)
    frames = campaign.dataset("expensive")
    assert len(frames) == 10
    assert all(atoms.arrays["REF_forces"].shape == (3, 3) for atoms in frames)
    assert {x.info["split"] for x in frames} == {"train"}
    assert len(campaign.dataset(split="validation")) == 6  # it decides when to stop
    assert len(campaign.dataset(split="all")) == 16
    cheap = campaign.dataset("cheap")
    assert {x.info["level"] for x in cheap} == {"cheap"}
    assert len(cheap) == 26
    assert campaign.dataset("cheap", split="test") == []


def test_a_campaign_starts_from_labels_that_the_user_brings(
    finished: Path, tmp_path: Path
) -> None:
    old = Campaign.from_yaml(finished)
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    old.export(tmp_path / "cheap.xyz", Choice("cheap", "all"))
    old.export(tmp_path / "expensive.xyz", Choice("expensive", at=2))
    start = [
        {"labels": "cheap.xyz", "level": "cheap", **units, **keys},
        {"labels": "expensive.xyz", "level": "expensive", **units, **keys},
    ]
    campaign = Campaign.from_yaml(write_toy(tmp_path, start=start, budget=BUDGET))
    assert campaign.run().exit_code == 0
    history = campaign.history()
    given = [x for x in history.state.labels.entries() if x.purpose == "given"]
    assert len(given) == 26 + 10
    assert len(history.trained()[0].history["bias"]) > 0  # type: ignore[arg-type]
    assert history.state.labels.used("expensive") == 10


def test_a_users_model_is_generation_zero(finished: Path, tmp_path: Path) -> None:
    file = Campaign.from_yaml(finished).export_model(tmp_path / "old.model")
    potential = {"kind": "file", "path": file.name}
    campaign = Campaign.from_yaml(
        write_toy(tmp_path, potential=potential, budget=BUDGET)
    )
    assert campaign.run().exit_code == 0
    trains = [
        command
        for entry in campaign.history().entries
        for command in entry.turn.commands
        if isinstance(command, Train)
    ]
    old = Campaign.from_yaml(finished).history().state
    assert trains[0].parent == old.generations.models[old.generations.best - 1]
    assert campaign.control("standard").run().exit_code == 0


def test_work_that_always_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    levels = {"cheap": {"kind": "toy", "fail_above": 0.5}, "expensive": {"kind": "toy"}}
    campaign = Campaign.from_yaml(write_toy(tmp_path, levels=levels))
    for _ in range(2):
        outcome = campaign.run()
        assert outcome.exit_code == 3
        assert outcome.finished is not None
        assert "prepare/0 was tried 3 times" in outcome.finished
    lost = [x for _, x in campaign.history().events() if isinstance(x, e.TaskLost)]
    assert [event.attempt for event in lost] == [1, 2, 3, 1, 2, 3]


def test_a_campaign_of_one_fidelity_labels_what_surprises(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(
        write_toy(
            tmp_path,
            levels={"expensive": {"kind": "toy"}},
            seeds={"expensive": 6, "temperature": 400},
            training={"kind": "standard", "every": 4},
            budget={"expensive": 14},
        )
    )
    assert campaign.run().exit_code == 0
    state = campaign.history().state
    assert state.labels.used("cheap") == 0
    assert state.labels.used("expensive") == 14


@dataclass(frozen=True)
class Renamed:
    """A potential of one's own: pairs under another name."""

    inner: PairwisePotential

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        return self.inner.predict(batch, descriptors=descriptors)

    def checkpoint(self) -> Checkpoint:
        return replace(self.inner.checkpoint(), kind="mine")


@dataclass(frozen=True)
class OwnTrainer:
    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[Renamed, dict[str, object]]:
        assert parent is None or isinstance(parent, Renamed)
        potential, history = PairwiseTrainer().train(data, None, seed)
        return Renamed(potential), history


def restore_own(checkpoint: Checkpoint) -> Renamed:
    assert checkpoint.kind == "mine"
    return Renamed(from_checkpoint(replace(checkpoint, kind="pairwise")))


def test_a_potential_of_ones_own_runs_a_campaign(tmp_path: Path) -> None:
    own = OwnPotential(OwnTrainer(), restore_own)
    path = write_toy(tmp_path, budget=BUDGET)
    campaign = Campaign.from_yaml(path, potential=own)
    assert campaign.run().exit_code == 0
    assert isinstance(campaign.model().potential, Renamed)
    file = campaign.export_model(tmp_path / "own.model")
    facts = alloop.load(file, restore_own).facts
    assert facts["generation"] == campaign.history().state.generations.best
    with pytest.raises(InputError, match="mine"):
        alloop.load(file)


def test_a_campaign_shows_itself_in_words_without_arrays(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    assert "not started" in repr(campaign)
    assert "not started" in campaign._repr_html_()
    outcome = campaign.run()
    for shown in (repr(campaign), repr(outcome), repr(campaign.model())):
        assert "array(" not in shown
        assert len(shown) < 1200
    assert repr(outcome).startswith(f"Outcome({outcome.finished}; ")
    assert "meV/Å in forces (MAE) against" in repr(campaign)
    for html in (campaign._repr_html_(), outcome._repr_html_()):
        assert type(html) is str
        assert html.count("<table>") == 1
        assert "<svg" in html
        assert 'id="shape-dot"' in html  # the points need nothing of a page
    model = campaign.model()
    assert "<th>threshold of surprise</th>" in model._repr_html_()
    assert "<script>" not in replace(model, facts={"<script>": "x"})._repr_html_()


def test_errors_and_curve_are_tables_that_agree_with_the_store(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    campaign.run()
    state = campaign.history().state
    curve = campaign.learning_curve()
    assert [row["force_mae"] for row in curve] == list(state.generations.errors)
    assert [row["generation"] for row in curve] == [
        *range(1, state.generations.count + 1)
    ]
    errors = {row["name"]: row for row in campaign.errors()}
    assert errors["validation set"]["force_mae"] == min(state.generations.errors)
    assert all(not isinstance(x, list | dict) for row in curve for x in row.values())


def test_a_mapping_describes_the_same_campaign_as_its_file(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    settings = yaml.safe_load(path.read_text())
    campaign = Campaign.from_dict(settings, tmp_path)
    assert campaign.setup.text == Campaign.from_yaml(path).setup.text
    assert campaign.store == Campaign.from_yaml(path).store
    with pytest.raises(InputError, match="budgett"):
        Campaign.from_dict({**settings, "budgett": {}}, tmp_path)


def test_check_tells_warnings_and_the_store_of_another_campaign(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    settings = yaml.safe_load(path.read_text())
    campaign = Campaign.from_dict(settings, tmp_path)
    assert campaign.check() == list(campaign.setup.warnings)
    campaign.run()
    other = Campaign.from_dict({**settings, "seed": 99}, tmp_path)
    with pytest.raises(InputError, match="belongs to another campaign"):
        other.check()


def test_the_plan_counts_the_labels_of_the_budget(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    found = campaign.plan(measure=False)
    budget = campaign.setup.rules.budget
    asked = {
        row["fidelity"]: row["labels"]
        for row in found["labels"]
        if row["purpose"] == "training"
    }
    assert asked == {"cheap": budget.cheap, "expensive": budget.expensive}
    assert not campaign.store.exists()


def test_the_package_lists_its_public_names() -> None:
    assert dir(alloop) == sorted(alloop.__all__)
    assert all(getattr(alloop, name) for name in dir(alloop))


def test_the_calculator_carries_the_name_of_the_package(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path))
    campaign.run()
    atoms = campaign.dataset("expensive")[0].copy()
    atoms.calc = campaign.calculator()
    atoms.get_potential_energy()
    with ase.db.connect(tmp_path / "one.db") as database:
        database.write(atoms)
        assert database.get(1).calculator == "alloop"
