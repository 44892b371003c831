"""Examinations from all conformers, and beyond MD, in real campaigns on toy levels."""

from pathlib import Path

import numpy as np
import pytest

from alloop import Campaign
from alloop.core.batch import pack_frames
from alloop.core.records import Label
from alloop.history.examination import examination_frames
from alloop.history.label_entries import label_entries
from alloop.loop import events as e
from alloop.report.analysis.examination import beyond_md, last_examination
from alloop.report.status import campaign_status, detail_lines
from benchmarks.durability.comparison import store_contents
from tests.conftest import write_toy
from tests.driver.test_own_parts import stop_after

EXAMINED = {"frames": 4, "each": 2, "spacing": 5, "examination": 4}
EXAMINED |= {"examination_spacing": 10, "examination_equilibration": 2, "beyond": 3}


def peroxide(folder: Path) -> Campaign:
    folder.mkdir(exist_ok=True)
    file = write_toy(
        folder,
        start=[{"molecule": "H2O2"}],
        validation={**EXAMINED, "temperature": 300},
        budget={"cheap": 20, "expensive": 10},
    )
    return Campaign.from_yaml(file)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A finished campaign on a molecule with a torsion."""
    campaign = peroxide(tmp_path_factory.mktemp("equilibrium"))
    assert campaign.run().exit_code == 0
    return campaign


def test_walkers_begin_at_minima_and_visit_rotamers(campaign: Campaign) -> None:
    history = campaign.history()
    events = [x for _, x in history.of_kind(e.Examined) if x.explorer == "md"]
    assert [len(x.frames) for x in events] == [0, 0, 2, 2]
    found = last_examination(history)
    assert found is not None
    assert found.frames == 4
    assert found.motion.conformers == sum(n for _, n in events[0].conformers) > 0
    assert found.motion.rotamers == len({y for x in events for y in x.rotamers}) > 0
    assert found.motion.transitions == sum(x.transitions for x in events)
    assert any("rotamer" in line for line in detail_lines(history))


def test_frames_beyond_md_are_judged_apart_and_teach_nothing(
    campaign: Campaign,
) -> None:
    history = campaign.history()
    labels = [x for x in label_entries(history) if x.purpose == "beyond"]
    assert len(labels) == 3
    frames = {x.frame.id for x in labels}
    assert not frames & {x.frame.id for x in examination_frames(history)}
    assert not frames & {*history.state.labels.trained_on("expensive")}
    assert history.state.labels.used("expensive") == 10
    model, apart = campaign.model(), []
    for label in labels:
        assert isinstance(label.record, Label)
        predicted = model.predict(pack_frames([label.frame])).forces
        apart.append(np.abs(predicted - label.record.forces).mean())
    beyond = beyond_md(history)
    assert beyond is not None
    assert beyond.errors is not None
    mae = beyond.errors.force_mae
    assert mae == pytest.approx(np.mean(apart))
    assert campaign_status(history)["examination"]["beyond"]["force_mae"] == mae
    named = {x["name"]: x["force_mae"] for x in campaign.errors()}
    assert named["beyond MD"] == mae
    assert named["examination"] != mae
    assert any("Beyond MD, on 3 frames" in line for line in detail_lines(history))


def test_a_stopped_examination_gives_the_same_bits(
    campaign: Campaign, tmp_path: Path
) -> None:
    total = len(campaign.history().entries)
    for left in (4, 11):
        stopped = peroxide(tmp_path / str(left))
        assert stopped.run(observer=stop_after(total - left)).exit_code == 3
        assert stopped.run().exit_code == 0
        assert store_contents(stopped.store) == store_contents(campaign.store)


def test_stores_that_began_without_go_on_without(tmp_path: Path) -> None:
    campaign = peroxide(tmp_path)
    assert campaign.setup.rules.examining.equilibration == 2
    text = campaign.setup.text
    for key in ("beyond", "examination_equilibration"):
        assert f"{key}:" in text
        text = "\n".join(x for x in text.splitlines() if f"{key}:" not in x)
    campaign.run()
    opened = campaign.history().opened
    old = type(campaign.setup).from_store(text, opened, campaign.store)
    assert old.rules.examining.equilibration == old.rules.examining.beyond == 0
