"""Campaigns whose policy, selector or scorer is the user's own."""

from pathlib import Path

import pytest

from alloop.campaign import Campaign
from alloop.core.errors import InputError
from alloop.driver.run import RunObserver
from alloop.loop import events as e
from alloop.loop.policy import decide
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from tests.conftest import fingerprint_of, write_toy

BUDGET = {"cheap": 26, "expensive": 10}


def stop_after(turns: int) -> RunObserver:
    """An observer that asks to stop after so many turns."""
    seen: list[e.Turn] = []
    return RunObserver(
        lambda _state, turn: seen.append(turn), stop=lambda: len(seen) >= turns
    )


def without_rechecks(
    state: LoopState, event: e.Event, rules: Rules
) -> tuple[e.Command, ...]:
    commands = decide(state, event, rules)
    return tuple(x for x in commands if not isinstance(x, e.Recheck))


def test_a_policy_of_ones_own_decides_and_a_resumed_run_needs_it(
    tmp_path: Path,
) -> None:
    whole = write_toy(tmp_path / "whole", budget=BUDGET)
    campaign = Campaign.from_yaml(whole, policy=without_rechecks)
    assert campaign.run().exit_code == 0
    assert campaign.history().rechecked() == []
    path = write_toy(tmp_path / "stopped", budget=BUDGET)
    halted = Campaign.from_yaml(path, policy=without_rechecks)
    assert halted.run(watch=stop_after(25)).exit_code == 3
    with pytest.raises(InputError, match=r"policy `.*:without_rechecks`"):
        Campaign.from_store(halted.store).run()
    again = Campaign.from_store(halted.store, policy=without_rechecks)
    assert again.run().exit_code == 0
    assert fingerprint_of(halted.store) == fingerprint_of(campaign.store)


def test_a_campaign_that_began_with_the_usual_policy_goes_on_with_it(
    toy: Path,
) -> None:
    Campaign.from_yaml(toy).run(watch=stop_after(5))
    with pytest.raises(InputError, match="began with alloop's own policy"):
        Campaign.from_yaml(toy, policy=without_rechecks).run()
