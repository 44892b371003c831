"""Sentences on what the labels of each level gained."""

from pathlib import Path

import numpy as np
import pytest

from alloop.cli import main
from alloop.core.cost_curve import Curve
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.history.journal_fold import JournalFold
from alloop.history.reader import History
from alloop.loop.level_gains import PARTS
from alloop.loop.state import CampaignLabels, Generations, LoopState, PartErrors
from alloop.report.analysis.level_split import split_sentences
from benchmarks.durability.toy_campaign import write_campaign

MEASURED = "budget: {cheap: 200, expensive: 50, split: measured}"


def history(errors: dict[str, float], generations: int = 2) -> History:
    """A campaign whose short trainings erred so, in meV/Å, at prices of 1 and 20."""
    shape = np.linspace(0.5, 1.5, 20) * 1e-3
    parts = {
        name: PartErrors(round(100 * c), round(40 * x), shape * errors[name])
        for name, (c, x) in PARTS.items()
    }
    flat = {key: Curve(price, 1e12, 1.0, 1.0) for key, price in (("c", 1), ("e", 20))}
    state = LoopState(
        levels={"cheap": "c", "expensive": "e"},
        start=(Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.7]])),),
        labels=CampaignLabels(
            costs={key: Cost(key, time=x, memory=x) for key, x in flat.items()}
        ),
        generations=Generations(
            part_errors=dict.fromkeys(range(1, generations + 1), parts)
        ),
    )
    attrs = {"config": MEASURED}
    return History(Path("x.zarr"), attrs, (), JournalFold(state=state))


GOOD = {"all": 10, "few-cheap": 12, "few-expensive": 15, "alone": 30}
IDLE = {"all": 10, "few-cheap": 10, "few-expensive": 15, "alone": 30}
ALONE = {"all": 10, "few-cheap": 12, "few-expensive": 15, "alone": 9}


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (GOOD, "cheap labels are to have 31% of all money"),
        (ALONE, "for the same money expensive labels alone would err less; no more"),
    ],
)
def test_a_sentence_says_what_becomes_of_the_money(
    errors: dict[str, float], words: str
) -> None:
    gain, verdict = split_sentences(history({**errors, "few-alone": 45}))
    assert "twice the expensive ones by 18 ± 0 %" in gain
    assert words.casefold() in verdict.casefold()


def test_labels_that_gain_nothing_are_not_worth_their_price() -> None:
    errors = {**IDLE, "few-cheap": 9.9, "few-alone": 45}
    verdict = split_sentences(history(errors))[-1]
    assert verdict.startswith("Cheap labels are not worth their price: they lower")
    errors = {**GOOD, "few-expensive": 9.9, "few-alone": 45}
    verdict = split_sentences(history(errors))[-1]
    assert verdict.startswith("Expensive labels are not worth their price")
    once = split_sentences(history({**IDLE, "few-alone": 45}, generations=1))[-1]
    assert "not worth" not in once


def test_all_commands_tell_of_a_measured_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_campaign(
        tmp_path,
        budget={"cheap": 24, "expensive": 12, "split": "measured"},
        seeds={"cheap": 8, "expensive": 6, "temperature": 400},
        validation={"frames": 4, "each": 2, "spacing": 5, "examination": 0},
    )

    def said(*words: str) -> str:
        assert main([*words]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "as many at the same price as pay best" in said("check", str(path))
    assert "short trainings worth 1.5 of a training" in said(
        "plan", str(path), "--no-measure"
    )
    assert "finished" in said("run", str(path))
    store = str(tmp_path / "toy.zarr")
    whole = said("status", store, "--all").lower()
    assert "for the money of both, expensive labels alone" in whole
    assert "on a quarter of the cheap labels and all expensive ones" in said(
        "log", store
    )
    assert "twice the cheap labels lower the error by" in whole
    report = tmp_path / "out.html"
    said("report", store, "--out", str(report))
    assert "Twice the cheap labels lower" in report.read_text("utf-8")
