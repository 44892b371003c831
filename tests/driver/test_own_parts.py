"""Campaigns whose policy, selector or scorer is not the usual one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import alloop
from alloop.campaign import Campaign
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Candidate, Predictions
from alloop.core.roles import Potential, Retrain
from alloop.core.units import Floats
from alloop.driver.run import RunObserver
from alloop.loop import events as e
from alloop.loop.commands import Command, LabelFrame, Recheck
from alloop.loop.policy import decide
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.scores.committee import Committee
from alloop.selection import MostSurprising, PerMolecule
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy

BUDGET = {"cheap": 26, "expensive": 10}


def stop_after(turns: int) -> RunObserver:
    """An observer that asks to stop after so many turns."""
    seen: list[e.Turn] = []
    return RunObserver(
        lambda _state, turn: seen.append(turn), stop=lambda: len(seen) >= turns
    )


def without_rechecks(
    state: LoopState, event: e.Event, rules: Rules
) -> tuple[Command, ...]:
    commands = decide(state, event, rules)
    return tuple(x for x in commands if not isinstance(x, Recheck))


def test_a_policy_of_ones_own_decides_and_a_resumed_run_needs_it(
    tmp_path: Path,
) -> None:
    whole = write_toy(tmp_path / "whole", budget=BUDGET)
    campaign = Campaign.from_yaml(whole, policy=without_rechecks)
    assert campaign.run().exit_code == 0
    assert campaign.history().rechecked() == []
    path = write_toy(tmp_path / "stopped", budget=BUDGET)
    halted = Campaign.from_yaml(path, policy=without_rechecks)
    assert halted.run(observer=stop_after(25)).exit_code == 3
    with pytest.raises(InputError, match=r"policy `.*:without_rechecks`"):
        Campaign.from_store(halted.store).run()
    again = Campaign.from_store(halted.store, policy=without_rechecks)
    assert again.run().exit_code == 0
    assert store_contents(halted.store) == store_contents(campaign.store)


def test_a_campaign_that_began_with_the_usual_policy_goes_on_with_it(
    toy: Path,
) -> None:
    Campaign.from_yaml(toy).run(observer=stop_after(5))
    with pytest.raises(InputError, match="began with alloop's own policy"):
        Campaign.from_yaml(toy, policy=without_rechecks).run()


@dataclass(frozen=True)
class LargestForce:
    """Surprise as the largest force in multiples of that of the held-out frames."""

    usual: float = 1.0  # eV/Å

    def fit(
        self,
        potential: Potential,
        learned: Batch,  # noqa: ARG002
        heldout: Batch,
        retrain: Retrain,  # noqa: ARG002
    ) -> "LargestForce":
        forces = potential.predict(heldout).forces
        return LargestForce(float(np.linalg.norm(forces, axis=1).max()))

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        norms = np.linalg.norm(predictions.forces, axis=1)
        out: Floats = np.maximum.reduceat(norms, batch.offsets[:-1]) / self.usual
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        return {"usual": np.array([self.usual])}

    def restore(
        self,
        arrays: Mapping[str, np.ndarray],
        read_potential: Callable[[bytes], Potential],  # noqa: ARG002
    ) -> "LargestForce":
        return LargestForce(float(arrays["usual"][0]))


def test_a_scorer_of_ones_own_runs_a_campaign(tmp_path: Path) -> None:
    path = write_toy(tmp_path, budget=BUDGET)
    campaign = Campaign.from_yaml(path, scorer=LargestForce())
    assert campaign.run().exit_code == 0
    generation = campaign.model()
    assert isinstance(generation.scorer, LargestForce)
    history = campaign.history()
    for explored in (x for _, x in history.of_kind(e.Explored)):
        for found in explored.candidates:
            assert found.surprise > 0.0
    with pytest.raises(InputError, match=r"scorer `.*:LargestForce`"):
        Campaign.from_store(campaign.store).run()
    file = campaign.export_model(tmp_path / "own.model")
    with pytest.raises(InputError, match=r"LargestForce`.*scorer="):
        alloop.load(file)
    frames = [
        history.label_index.frames[x] for x in history.state.labels.validation_frames()
    ]
    opened = alloop.load(file, scorer=LargestForce())
    batch = pack_frames(frames)
    np.testing.assert_array_equal(opened.surprise(batch), generation.surprise(batch))


COMMITTEE = {"kind": "committee", "members": 3, "share": 0.7}


def test_a_committee_from_the_campaign_file_flags_frames_and_survives_a_stop(
    tmp_path: Path,
) -> None:
    whole = Campaign.from_yaml(
        write_toy(tmp_path / "whole", budget=BUDGET, flag=COMMITTEE)
    )
    assert whole.run().exit_code == 0
    generation = whole.model()
    history = whole.history()
    assert isinstance(generation.scorer, Committee)
    others = generation.scorer.others
    assert len(others) == 2
    batch = pack_frames(
        [
            history.label_index.frames[x]
            for x in history.state.labels.validation_frames()
        ]
    )
    forces = [x.predict(batch).forces for x in (generation.potential, *others)]
    spread = np.sqrt(((forces - np.mean(forces, axis=0)) ** 2).sum(-1).mean(0))
    expected = np.maximum.reduceat(spread, batch.offsets[:-1])
    assert (expected > 0.0).all()
    np.testing.assert_allclose(generation.surprise(batch), expected)
    file = whole.export_model(tmp_path / "committee.model")
    np.testing.assert_array_equal(
        alloop.load(file).surprise(batch), generation.surprise(batch)
    )
    stopped = Campaign.from_yaml(
        write_toy(tmp_path / "stopped", budget=BUDGET, flag=COMMITTEE)
    )
    for turns in (20, 25, 12):
        stopped.run(observer=stop_after(turns))
    assert Campaign.from_store(stopped.store).run().exit_code == 0
    assert store_contents(stopped.store) == store_contents(whole.store)


def test_the_kind_of_surprise_may_change_between_two_runs(tmp_path: Path) -> None:
    few = {"cheap": 20, "expensive": 8}
    Campaign.from_yaml(write_toy(tmp_path, budget=few)).run()
    campaign = Campaign.from_yaml(write_toy(tmp_path, budget=BUDGET, flag=COMMITTEE))
    assert campaign.run().exit_code == 0
    kinds = [type(campaign.model(n).scorer).__name__ for n in (1, 2, 3)]
    assert kinds[0] == "QResidual"
    assert kinds[-1] == "Committee"


@dataclass(frozen=True)
class LargestEnergy:
    """Picks the candidates that the model gives the highest energies."""

    def select(
        self,
        candidates: Sequence[Candidate],
        known: Floats,  # noqa: ARG002
        quota: int,
        rng: np.random.Generator,  # noqa: ARG002
        threshold: float | None,  # noqa: ARG002
    ) -> tuple[int, ...]:
        order = sorted(
            range(len(candidates)),
            key=lambda i: (-candidates[i].energy, candidates[i].frame.id),
        )
        return tuple(order[:quota])


def test_a_selector_of_ones_own_picks_the_frames(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    campaign = Campaign.from_yaml(path, selector=PerMolecule(LargestEnergy()))
    assert campaign.run().exit_code == 0
    history = campaign.history()
    energies: dict[int, dict[str, float]] = {}
    for _, explored in history.of_kind(e.Explored):
        found = {x.frame.id: x.energy for x in explored.candidates}
        energies.setdefault(explored.round, {}).update(found)
    checked = 0
    for entry in history.entries:
        asked = [x for x in entry.turn.commands if isinstance(x, LabelFrame)]
        flagged = [x for x in asked if x.purpose == "flagged"]
        for command in flagged:
            assert command.reason.endswith("chosen by LargestEnergy")
        if flagged:
            checked += 1
            pool = energies[checked]
            taken = {x.frame.id for x in asked if x.purpose == "control"}
            left = sorted((pool[x] for x in pool if x not in taken), reverse=True)
            chosen = sorted((pool[x.frame.id] for x in flagged), reverse=True)
            assert chosen == left[: len(chosen)]
    assert checked > 1
    with pytest.raises(InputError, match=r"began with the selector `.*:LargestEnergy`"):
        Campaign.from_store(campaign.store).run()


def test_the_selection_may_be_a_mapping_with_its_settings(tmp_path: Path) -> None:
    by_distance = {"kind": "surprise", "balance": 1.0}
    setup = Campaign.from_yaml(
        write_toy(tmp_path, flag={"selection": by_distance, "fill": False})
    ).setup
    rule = MostSurprising(fill=False, balance=1.0)
    assert setup.rules.selector == PerMolecule(rule)
    assert "balance: 1.0" in setup.text
    usual = Campaign.from_yaml(write_toy(tmp_path)).setup
    assert "selection: surprise" in usual.text
