"""Shapes in a real campaign: bounded, repeatable, resumed, told."""

from pathlib import Path

import numpy as np
import pytest

from alloop import Campaign
from alloop.core.batch import pack_frames
from alloop.loop import events as e
from alloop.loop.commands import Explore
from alloop.loop.state import LabelState
from alloop.report.analysis.explorations import explorer_yields, read_explorations
from alloop.report.sections.run_sections import walker_section
from alloop.report.text.frame_history import describe_frame
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


def flagged_entries(campaign: Campaign) -> list[LabelState]:
    entries = campaign.history().state.labels.entries()
    return [x for x in entries if x.purpose == "flagged"]


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


def test_the_report_tells_what_shapes_brought(tmp_path: Path) -> None:
    campaign = shaped(tmp_path, share=0.5)
    campaign.run()
    history = campaign.history()
    explored = read_explorations(history)
    shapes, md = sorted(
        explorer_yields(history, explored), key=lambda x: x.explorer, reverse=True
    )
    assert (shapes.explorer, md.explorer) == ("shapes", "md")
    assert shapes.scored == sum(event.scored for _, event in proposals(campaign))
    chosen = [x for x in history.record_index.labels if x.purpose == "flagged"]
    reasons = ["shapes: " in x.reason for x in chosen]
    assert shapes.labels["cheap"] == sum(reasons) > 0
    assert md.labels["cheap"] == len(chosen) - sum(reasons) > 0
    biases = [
        entry.bias
        for entry, label in zip(flagged_entries(campaign), reasons, strict=True)
        if label
    ]
    assert shapes.errors["cheap"] == pytest.approx(np.median(biases))
    assert len(explored.energies) < sum(
        len(event.candidates) + len(event.controls)
        for _, event in history.of_kind(e.Explored)
    )
    page = str(walker_section(history, explored).body)
    assert "turned and stretched bonds" in page
    label = next(x for x, shape in zip(chosen, reasons, strict=True) if shape)
    text = " ".join(describe_frame(history, label.frame.id))
    assert "Proposed by turned and stretched bonds on walker" in text


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
    assert state.labels.used("cheap") == 36
