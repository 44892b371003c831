"""Sets of frames of the user's own, on which each generation is checked."""

import json
import shutil
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from typer.testing import CliRunner

from alloop import Campaign
from alloop.acceptance import (
    AcceptanceSettings,
    SetLimits,
    TrainedWith,
    check_model,
)
from alloop.cli.app import app
from alloop.config import ConfigError, fixed_differences, load_campaign
from alloop.config.starting_data import store_opening
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential
from alloop.md.dynamics import DynamicsSettings
from alloop.potentials.analytic import Morse
from alloop.potentials.pairwise import PairwisePotential
from alloop.potentials.restore import restore_potential
from alloop.report.sections.page import render_report
from alloop.report.status import campaign_status
from alloop.training.trainers.pairwise import PairwiseTrainer
from alloop.workers.settings import OwnPotential
from tests.conftest import write_toy

UNITS = {"energy_unit": "eV", "length_unit": "angstrom"}
TRUE = Morse(depth=4.7, width=1.9, length=0.74)
NOTHING = {"compression": None, "steps": 0}


def forces_set() -> LabelSet:
    rng = np.random.default_rng(1)
    batch = pack_frames(
        [Frame([1, 1], [[0, 0, 0], [0, 0, d]]) for d in rng.uniform(0.7, 0.8, 5)]
    )
    said = TRUE.predict(batch)
    return LabelSet(batch, said.energies, said.forces)


def checked(model: Potential, parent: Potential | None, limits: SetLimits) -> Any:
    found = forces_set()
    trained = TrainedWith(
        found.batch.frames(), None, parent, 0, "train/2", sets={"old": found}
    )
    settings = AcceptanceSettings(compression=None, steps=0, sets=(limits,))
    (check,) = check_model(model, trained, settings, DynamicsSettings(300.0))
    return check


def test_limits_are_relative_to_the_model_before_or_absolute() -> None:
    before, after = (Morse(4.7, 1.9, 0.74 + off) for off in (0.001, 0.004))
    relative = checked(after, before, SetLimits("old", rise=3.0))
    assert not relative.passed
    assert relative.limit == pytest.approx(3.0 * relative.before)
    assert relative.value == pytest.approx(4.0 * relative.before, rel=0.05)
    assert checked(after, before, SetLimits("old", rise=5.0)).passed
    assert not checked(after, before, SetLimits("old", rise=5.0, most=1e-4)).passed
    assert checked(after, None, SetLimits("old", rise=None, most=1.0)).passed


def test_without_a_model_before_it_the_error_is_recorded_all_the_same() -> None:
    check = checked(Morse(4.7, 1.9, 0.75), None, SetLimits("old"))
    assert (check.limit, check.before, check.set_name) == (inf, None, "old")
    assert check.value > 0.0
    assert check.passed


# --- a campaign ----------------------------------------------------------------------


@dataclass(frozen=True)
class ForgetfulTrainer:
    """A trainer whose second training is spoiled."""

    def train(
        self, data: TrainingData, parent: Potential | None, seed: int
    ) -> tuple[PairwisePotential, dict[str, Any]]:
        found, history = PairwiseTrainer().train(data, parent, seed)
        if len(data.expensive) == 10:
            found = PairwisePotential(found.basis, 2.0 * found.coefficients)
        return found, history


def write_frames(path: Path, count: int, *, seed: int = 3, **keys: bool) -> None:
    rng, frames = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.03, (3, 3))
        if keys.get("energy", True):
            atoms.info["REF_energy"] = 1.0
        if keys.get("forces", True):
            atoms.arrays["REF_forces"] = rng.normal(0.0, 0.1, (3, 3))
        frames.append(atoms)
    write(path, frames, format="extxyz")


def sets(**limits: float | None) -> dict[str, Any]:
    return {"forgetting": {"labels": "old.xyz", **UNITS, **limits}}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("sets")
    write_frames(folder / "old.xyz", 4)
    acceptance = {"error": None, **NOTHING, "sets": sets(error=1.2)}
    path = write_toy(folder, acceptance=acceptance)
    own = OwnPotential(ForgetfulTrainer(), restore_potential)
    campaign = Campaign.from_yaml(path, potential=own)
    assert campaign.run().exit_code == 0
    return campaign


def test_a_generation_that_forgets_is_rejected_and_said_to(ended: Campaign) -> None:
    history = ended.history()
    assert history.state.generations.rejected == {2}
    status = campaign_status(history)
    first, second, third = status["sets"]["forgetting"]
    assert second > 1.2 * first
    assert third < second
    assert status["rejected"] == [2]
    why = CliRunner().invoke(app, ["why", str(ended.store), "2"]).output
    assert "Failed: force error on the set forgetting" in " ".join(why.split())
    told = CliRunner().invoke(app, ["why", str(ended.store), "1", "--json"]).output
    (check,) = json.loads(told)["checks"]
    assert (check["limit"], check["set_name"]) == (None, "forgetting")
    page = " ".join(render_report(history).split())
    assert "Checks of generations" in page
    assert "forgetting" in page


def test_the_store_keeps_the_sets(ended: Campaign, tmp_path: Path) -> None:
    copy = shutil.copytree(ended.store, tmp_path / "elsewhere.zarr")
    opened = store_opening(copy)
    assert [len(x) for x in opened.sets.values()] == [4]
    own = OwnPotential(ForgetfulTrainer(), restore_potential)
    again = Campaign.from_store(copy, potential=own)
    assert again.run().exit_code == 0
    assert again.history().state.generations.rejected == {2}


def test_another_file_or_another_set_is_another_campaign(
    ended: Campaign, tmp_path: Path
) -> None:
    opened = store_opening(ended.store)
    for seed, name, text in ((4, "forgetting", "another one"), (3, "new", "missing")):
        write_frames(tmp_path / "old.xyz", 4, seed=seed)
        given = {name: sets()["forgetting"]}
        setup = load_campaign(write_toy(tmp_path, acceptance={"sets": given}))
        assert any(text in each for each in fixed_differences(setup, opened))
    setup = load_campaign(write_toy(tmp_path))
    assert not fixed_differences(setup, opened)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"energy": False}, "energ"),
        ({"forces": False}, "forces"),
    ],
)
def test_a_file_that_lacks_labels_is_refused(
    keys: dict[str, bool], text: str, tmp_path: Path
) -> None:
    write_frames(tmp_path / "old.xyz", 2, **keys)
    assert text in refusal(tmp_path)


def test_unknown_elements_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "found nothing" in refusal(tmp_path)
    atoms = Atoms("HF", [[0, 0, 0], [0, 0, 0.92]], info={"REF_energy": 1.0})
    atoms.arrays["REF_forces"] = np.zeros((2, 3))
    write(tmp_path / "old.xyz", atoms, format="extxyz")
    assert "the potential is trained on H, O" in refusal(tmp_path)


def refusal(folder: Path) -> str:
    path = write_toy(folder, acceptance={"sets": sets()})
    with pytest.raises(ConfigError) as caught:
        load_campaign(path)
    (problem,) = caught.value.problems
    assert problem.path == "acceptance.sets.forgetting"
    return problem.text
