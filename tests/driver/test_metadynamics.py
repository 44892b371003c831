"""Metadynamics in a real campaign: on copies of walkers, repeatable, told."""

from pathlib import Path

import numpy as np
import pytest

from alloop import Campaign
from alloop.core.seeds import random_stream
from alloop.loop import events as e
from alloop.loop.commands import Explore
from alloop.md.biases import Metadynamics, MetadynamicsSettings, chosen_variables
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import Langevin
from alloop.report.analysis.explorations import explorer_yields, read_explorations
from alloop.report.sections.run_sections import walker_section
from alloop.report.text.frame_history import describe_frame
from benchmarks.durability.comparison import store_contents
from tests.conftest import skip_without, write_toy
from tests.driver.test_own_parts import stop_after

EXPLORE = {"walkers": 4, "batch": 2, "steps": 20, "stride": 5, "temperature": 400}
HILLS = {"steps": 30, "pace": 5, "height": 0.2, "share": 0.4}
START = [{"molecule": "H2O2"}, {"molecule": "H2O"}]  # water has no torsion
LEVELS = {"cheap": "gfn1-xtb", "expensive": "gfn2-xtb"}


def begun(folder: Path, **changes: object) -> Campaign:
    skip_without("tblite")
    explore = {**EXPLORE, "metadynamics": HILLS, "shapes": None}
    tree = {"explore": explore, "start": START, "levels": LEVELS, **changes}
    return Campaign.from_yaml(write_toy(folder, **tree))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    campaign = begun(tmp_path_factory.mktemp("biased") / "whole")
    assert campaign.run().exit_code == 0
    return campaign


def proposals(campaign: Campaign) -> list[tuple[Explore, e.Explored]]:
    commands, pairs = {}, []
    for entry in campaign.history().entries:
        event = entry.turn.event
        if isinstance(event, e.Explored) and event.explorer == "metadynamics":
            pairs.append((commands[event.name], event))
        commands |= {x.name: x for x in entry.turn.commands}
    return pairs


def test_copies_of_walkers_are_moved_by_the_bias(campaign: Campaign) -> None:
    pairs = proposals(campaign)
    assert pairs
    dynamics = DynamicsSettings(Langevin(), temperature=400.0, stride=5)
    hills = MetadynamicsSettings(**HILLS)
    for command, event in pairs:
        assert not event.walkers
        assert not event.controls
        walkers = [x for x in command.walkers if len(x.frame) == 4]
        assert 0 < event.scored <= 6 * len(walkers)
        assert {x.walker for x in event.candidates} <= {x.index for x in walkers}
        model = campaign.model(command.generation)
        variables = {
            x.molecule: chosen_variables(x.frame, hills, command.round - 1)
            for x in walkers
        }
        bias = Metadynamics.of(walkers, variables, hills, temperature=400.0)
        moved = run_dynamics(
            walkers,
            model.potential,
            dynamics,
            30,
            [random_stream(7, f"{command.name}/{x.index}") for x in walkers],
            scorer=model.scorer,
            threshold=model.threshold,
            keep=command.keep,
            biases=[bias],
        )
        assert [x.frame.id for x in event.candidates] == [
            x.frame.id for x in moved.candidates
        ]
        assert event.scored == moved.scored
        assert {x.explorer for x in event.candidates} == {"metadynamics"}
        assert len(bias.hills) > 0


def test_the_report_tells_what_metadynamics_brought(campaign: Campaign) -> None:
    history = campaign.history()
    explored = read_explorations(history)
    yields = {x.explorer: x for x in explorer_yields(history, explored)}
    assert set(yields) == {"md", "metadynamics"}
    biased = [event for _, event in proposals(campaign)]
    assert yields["metadynamics"].scored == sum(event.scored for event in biased)
    chosen = [x for x in history.record_index.labels if x.purpose == "flagged"]
    labels = [x for x in chosen if x.reason.startswith("metadynamics: ")]
    assert yields["metadynamics"].labels["cheap"] == len(labels) > 0
    page = str(walker_section(history, explored).body)
    assert "metadynamics" in page
    text = " ".join(describe_frame(history, labels[0].frame.id))
    assert "Proposed by metadynamics on walker" in text


def test_no_thermal_average_has_a_biased_frame(campaign: Campaign) -> None:
    history = campaign.history()
    energies = sorted(x.energy for x in read_explorations(history).energies)
    plain = [
        candidate.energy
        for _, event in history.of_kind(e.Explored)
        if event.explorer == "md"
        for candidate in (*event.candidates, *event.controls)
    ]
    np.testing.assert_array_equal(energies, sorted(plain))


def test_a_stopped_campaign_proposes_the_same_frames(
    campaign: Campaign, tmp_path: Path
) -> None:
    stopped = begun(tmp_path / "whole")
    assert stopped.run(observer=stop_after(30)).exit_code == 3
    stopped.run()
    assert store_contents(stopped.store) == store_contents(campaign.store)


def test_shapes_and_metadynamics_stand_side_by_side(tmp_path: Path) -> None:
    explore = {**EXPLORE, "metadynamics": HILLS, "shapes": {"proposals": 10}}
    campaign = begun(tmp_path, explore=explore, start=START[:1])
    assert campaign.run().exit_code == 0
    explorers = [event.explorer for _, event in campaign.history().of_kind(e.Explored)]
    assert set(explorers) == {"md", "shapes", "metadynamics"}
