"""The checks of a new generation, and what a campaign does with one that fails."""

from collections.abc import Container
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from alloop import Campaign
from alloop.acceptance import AcceptanceSettings, TrainedWith, check_model
from alloop.cli.app import app
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, ModelCheck, Predictions, TrainingData
from alloop.core.roles import Potential
from alloop.loop.commands import Explore, Train
from alloop.md.dynamics import DynamicsSettings
from alloop.potentials.analytic import Morse
from alloop.potentials.pairwise import PairwisePotential
from alloop.potentials.restore import restore_potential
from alloop.report.sections.page import render_report
from alloop.report.status import campaign_status
from alloop.training.trainers.pairwise import PairwiseTrainer
from alloop.workers.settings import OwnPotential
from tests.conftest import write_toy

RNG = np.random.default_rng(2)
H2 = Morse(depth=4.7, width=1.9, length=0.74)
DYNAMICS = DynamicsSettings(temperature=300.0)


def hydrogen(count: int) -> list[Frame]:
    lengths = RNG.uniform(0.70, 0.78, count)
    return [Frame([1, 1], [[0, 0, 0], [0, 0, length]]) for length in lengths]


def labelled(frames: list[Frame], potential: Potential) -> LabelSet:
    said = potential.predict(pack_frames(frames))
    return LabelSet(pack_frames(frames), said.energies, said.forces)


def trained(parent: Potential | None = H2) -> TrainedWith:
    test = labelled(hydrogen(6), Morse(depth=4.7, width=1.9, length=0.741))
    return TrainedWith(hydrogen(4), test, parent, 0, "train/2")


def by_name(checks: tuple[ModelCheck, ...]) -> dict[str, ModelCheck]:
    return {check.name.split()[0]: check for check in checks}


@dataclass(frozen=True)
class Scaled:
    """A potential whose energies and forces are multiples of another one's."""

    inner: Potential
    factor: float

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        said = self.inner.predict(batch, descriptors=descriptors)
        return replace(
            said, energies=self.factor * said.energies, forces=self.factor * said.forces
        )


def test_a_right_model_passes_every_check() -> None:
    checks = by_name(check_model(H2, trained(), AcceptanceSettings(), DYNAMICS))
    assert set(checks) == {"force", "bonds", "share"}
    assert all(check.passed for check in checks.values())
    assert checks["force"].limit == pytest.approx(2.0 * checks["force"].value)
    assert checks["share"].value == 0.0


def test_a_larger_error_than_before_fails() -> None:
    wrong = Morse(depth=4.7, width=1.9, length=0.75)
    checks = by_name(check_model(wrong, trained(), AcceptanceSettings(), DYNAMICS))
    assert not checks["force"].passed
    assert checks["bonds"].passed


def test_without_a_generation_before_it_the_error_is_not_compared() -> None:
    checks = by_name(check_model(H2, trained(None), AcceptanceSettings(), DYNAMICS))
    assert set(checks) == {"bonds", "share"}


def test_atoms_that_attract_at_short_range_and_md_that_breaks_fail() -> None:
    checks = by_name(
        check_model(Scaled(H2, -1.0), trained(), AcceptanceSettings(), DYNAMICS)
    )
    assert (checks["bonds"].value, checks["bonds"].detail) == (1.0, "H-H")
    assert checks["share"].value == 1.0
    assert checks["share"].detail
    assert not any(check.passed for check in checks.values())


def test_forces_that_are_no_numbers_fail() -> None:
    checks = by_name(
        check_model(Scaled(H2, np.nan), trained(), AcceptanceSettings(), DYNAMICS)
    )
    assert not any(check.passed for check in checks.values())


def test_checks_can_be_turned_off() -> None:
    off = AcceptanceSettings(rise=None, compression=None, steps=0)
    assert check_model(H2, trained(), off, DYNAMICS) == ()


# --- a campaign ----------------------------------------------------------------------


@dataclass(frozen=True)
class SpoilingTrainer:
    """A trainer that spoils potentials trained on certain numbers of labels."""

    labels: Container[int]

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[PairwisePotential, dict[str, Any]]:
        found, history = PairwiseTrainer().train(data, parent, seed)
        if len(data.expensive) in self.labels:
            found = PairwisePotential(found.basis, -found.coefficients)
        return found, history


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign of three generations, the second one (10 labels) spoiled."""
    path = write_toy(tmp_path_factory.mktemp("spoiled"), acceptance={"steps": 20})
    own = OwnPotential(SpoilingTrainer([10]), restore_potential)
    campaign = Campaign.from_yaml(path, potential=own)
    assert campaign.run().exit_code == 0
    return campaign


def test_a_spoiled_generation_is_rejected_and_the_one_before_goes_on(
    spoiled: Campaign,
) -> None:
    history = spoiled.history()
    state = history.state
    first, second, third = (event for _, event in history.generations)
    assert {"force", "bonds"} <= {x.name.split()[0] for x in second.failed_checks}
    assert state.generations.rejected == {2}
    assert not third.failed_checks
    asked = [c for entry in history.entries for c in entry.turn.commands]
    explored = [c.generation for c in asked if isinstance(c, Explore)]
    assert set(explored) == {1}
    parents = [c.parent for c in asked if isinstance(c, Train)]
    assert parents == [None, first.model, first.model]
    assert state.generations.best in (1, 3)


def test_labels_of_a_rejected_generation_are_kept(spoiled: Campaign) -> None:
    asked = [c for x in spoiled.history().entries for c in x.turn.commands]
    trainings = [c for c in asked if isinstance(c, Train)]
    assert [len(c.expensive) for c in trainings] == [6, 10, 14]
    for one, other in pairwise(trainings):
        assert set(one.expensive) < set(other.expensive)


def test_why_tells_what_a_generation_failed(spoiled: Campaign) -> None:
    said = CliRunner().invoke(app, ["why", str(spoiled.store), "2"]).output
    flat = " ".join(said.split())
    assert "Failed: force error on the validation set" in flat
    assert "attract 2, at most 0 (O-H" in flat or "attract 1, at most 0 (O-H" in flat
    assert "not used, since it failed a check: generation 1 went on exploring" in flat
    told = CliRunner().invoke(app, ["why", str(spoiled.store), "2", "--json"]).output
    assert '"accepted": false' in told
    log = CliRunner().invoke(app, ["log", str(spoiled.store)]).output
    assert "not accepted, it failed: force error" in " ".join(log.split())


def test_a_campaign_without_checks_takes_every_generation(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    own = OwnPotential(SpoilingTrainer([10]), restore_potential)
    campaign = Campaign.from_yaml(path, potential=own)
    campaign.run()
    assert campaign.history().state.generations.rejected == frozenset()


# --- no generation to fall back to ---------------------------------------------------


def run_spoiled(folder: Path, labels: int) -> Campaign:
    path = write_toy(folder, acceptance={"steps": 0})
    own = OwnPotential(SpoilingTrainer(range(labels)), restore_potential)
    campaign = Campaign.from_yaml(path, potential=own)
    campaign.run()
    return campaign


def told(campaign: Campaign, *command: str) -> str:
    said = CliRunner().invoke(app, [command[0], str(campaign.store), *command[1:]])
    return " ".join(said.output.split())


def test_a_first_generation_that_fails_explores_and_is_not_accepted(
    tmp_path: Path,
) -> None:
    """Compared are the later ones with none that failed: the third one passes."""
    campaign = run_spoiled(tmp_path, 12)
    history = campaign.history()
    state = history.state
    assert (
        state.generations.unaccepted,
        state.generations.rejected,
        state.generations.accepted,
    ) == ({1, 2}, set(), {3})
    names = [
        [x.name.split()[0] for x in event.checks] for _, event in history.generations
    ]
    assert names == [["bonds"]] * 3
    asked = [c for entry in history.entries for c in entry.turn.commands]
    assert {c.generation for c in asked if isinstance(c, Explore)} == {1, 2}
    trainings = [c for c in asked if isinstance(c, Train)]
    models = [event.model for _, event in history.generations]
    assert [c.parent for c in trainings] == [None, *models[:2]]
    assert [c.parent_accepted for c in trainings] == [True, False, False]
    assert state.generations.best == 3
    assert "not accepted, since it failed a check" in told(campaign, "why", "1")
    campaign.export_model(tmp_path / "third.model")


def test_a_campaign_without_an_accepted_generation_says_so(tmp_path: Path) -> None:
    campaign = run_spoiled(tmp_path, 100)
    state = campaign.history().state
    assert (
        state.generations.unaccepted,
        state.generations.rejected,
        state.generations.best,
    ) == ({1, 2, 3}, set(), 3)
    sentence = "No generation passed all checks: they are used for exploration only"
    status = campaign_status(campaign.history())
    assert status["acceptance"].startswith(sentence)
    assert (status["unaccepted"], status["rejected"]) == ([1, 2, 3], [])
    assert sentence in told(campaign, "status")
    assert sentence in " ".join(render_report(campaign.history()).split())
    out = tmp_path / "out.model"
    with pytest.raises(InputError, match="a generation that passed its checks, got"):
        campaign.export_model(out)
    assert not out.exists()
    told(campaign, "export", "--model", str(out), "--at", "3")
    assert out.exists()
    with pytest.warns(UserWarning, match="No generation passed"):
        campaign.calculator()
