"""Shapes in a real campaign: bounded, repeatable, resumed, told."""

from pathlib import Path

from alloop import Campaign
from alloop.core.batch import pack_frames
from alloop.loop import events as e
from alloop.loop.commands import Explore
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy
from tests.driver.test_own_parts import stop_after

EXPLORE = {"walkers": 4, "batch": 2, "steps": 20, "stride": 5, "temperature": 400}


def shaped(folder: Path, **shapes: object) -> Campaign:
    folder.mkdir(exist_ok=True)
    file = write_toy(folder, explore={**EXPLORE, "shapes": {"proposals": 10, **shapes}})
    return Campaign.from_yaml(file)


def proposals(campaign: Campaign) -> list[tuple[Explore, e.Explored]]:
    commands, pairs = {}, []
    for entry in campaign.history().entries:
        event = entry.turn.event
        if isinstance(event, e.Explored) and event.explorer == "shapes":
            pairs.append((commands[event.name], event))
        commands |= {x.name: x for x in entry.turn.commands}
    return pairs


def test_shapes_stay_below_the_energy_that_is_set(tmp_path: Path) -> None:
    campaign = shaped(tmp_path, energy=0.5)
    assert campaign.run().exit_code == 0
    pairs = proposals(campaign)
    assert pairs
    for command, event in pairs:
        assert not event.walkers
        assert 0 < len(event.candidates) <= command.keep
        surprise = [x.surprise for x in event.candidates]
        assert surprise == sorted(surprise, reverse=True)
        model = campaign.model(command.generation)
        predictions = model.predict(pack_frames([x.frame for x in command.walkers]))
        indices = [x.index for x in command.walkers]
        before = dict(zip(indices, predictions.energies, strict=True))
        for candidate in event.candidates:
            assert candidate.energy - before[candidate.walker] <= 0.5 + 1e-9


def test_a_stopped_campaign_proposes_the_same_shapes(tmp_path: Path) -> None:
    whole, stopped = (shaped(tmp_path / name) for name in ("whole", "stopped"))
    whole.run()
    assert stopped.run(observer=stop_after(25)).exit_code == 3
    stopped.run()
    assert proposals(whole)
    assert store_contents(stopped.store) == store_contents(whole.store)


def test_md_fills_the_labels_where_all_shapes_lie_too_high(
    tmp_path: Path,
) -> None:
    campaign = shaped(tmp_path, energy=1e-6)
    assert campaign.run().exit_code == 0
    state = campaign.history().state
    assert state.labels_used("cheap") == 36
