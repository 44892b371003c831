"""`explore: {compile: ...}`: a rule of the configuration alone, told where it fails."""

from pathlib import Path

import pytest
import yaml

from alloop.campaign import Campaign
from alloop.config.build import compiles_forces
from alloop.config.sections.explore import Langevin
from alloop.report.text.event_log import log_lines
from tests.conftest import write_toy


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("{compile: on}", True),
        ("{compile: off, steps: 90000}", False),
        ("{steps: 5000}", True),
        ("{compile: auto, steps: 4999}", False),
    ],
)
def test_the_rule_looks_at_steps_alone(said: str, wanted: bool) -> None:
    assert compiles_forces(Langevin(**yaml.safe_load(said))) is wanted


def test_a_campaign_goes_on_without_code_and_says_so_once(tmp_path: Path) -> None:
    explore = {"compile": True, "walkers": 2, "batch": 1, "steps": 20, "piece": 10}
    file = write_toy(tmp_path, explore={**explore, "stride": 5})
    campaign = Campaign.from_yaml(file)
    assert campaign.run().finished
    rounds = [line for line in log_lines(campaign.history()) if "round" in line]
    told = [line for line in rounds if "only learned potentials are compiled" in line]
    assert len(rounds) > 4
    assert len(told) == 1
    assert "round 1, batch 0, piece 0" in told[0]
