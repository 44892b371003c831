"""Limits of errors in a campaign: from validation frames, tested by control frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alloop import Campaign
from alloop.core.batch import pack_frames
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import Label
from alloop.generation import Generation
from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.examination import (
    LimitCoverage,
    limit_coverages,
    limit_sentences,
    newest_limits,
)
from alloop.report.analysis.explorations import exploration_proposals
from alloop.report.sections.surprise_sections import bad_errors, limits_section
from alloop.report.status import campaign_status
from alloop.scores.error_limits import fit_error_limits
from tests.conftest import write_toy

ERROR = 0.02  # eV/Å
CHANGES = {
    "validation": {
        "frames": 18,
        "temperature": 400,
        "each": 6,
        "spacing": 5,
        "examination": 12,
        "examination_spacing": 40,
    },
    "flag": {"coverage": 0.5, "control": 0.5, "error": ERROR},
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign in which half of the expensive labels go to control frames."""
    found = Campaign.from_yaml(write_toy(tmp_path_factory.mktemp("it"), **CHANGES))
    assert found.run().finished
    return found


@pytest.fixture(scope="module")
def history(campaign: Campaign) -> History:
    return campaign.history()


def _control_ratios(history: History) -> dict[str, tuple[float, float]]:
    """Error over limit of each control frame, and the limit's factor, by hand."""
    known = {x.generation: x.error_limits for _, x in history.generations}
    level = history.opened.levels["expensive"]
    out = {}
    for _, event in history.of_kind(e.Explored):
        for proposal in exploration_proposals(history, event):
            found, limits = proposal.candidate, known[proposal.generation]
            label = history.label_index.labels.get((level, found.frame.id))
            if not proposal.control or not isinstance(label, Label):
                continue
            assert limits is not None
            limit = limits.limit(found.surprise, found.frame)
            if np.isinf(limit):
                continue  # nothing was promised
            worst = np.linalg.norm(found.forces - label.forces, axis=1).max()
            out[found.frame.id] = (worst / limit, limits.factor)
    return out


def test_limits_are_those_of_the_validation_frames(history: History) -> None:
    _, first = history.generations[0]
    labels = labels_of_test(history, first)
    assert labels is not None
    assert first.evaluation is not None
    errors = largest_force_errors(labels.batch, first.evaluation.forces, labels.forces)
    surprise = first.evaluation.surprise
    by_hand = fit_error_limits(surprise, errors, 0.5, batch=labels.batch)
    assert first.error_limits == by_hand
    assert by_hand is not None
    assert by_hand.frames == 18


def test_control_frames_are_held_against_the_limits_promised_before(
    history: History,
) -> None:
    by_hand = _control_ratios(history)
    entries = [x for x in history.state.labels.entries() if x.limit_ratio is not None]
    asked = [
        x.frame
        for x in history.state.labels.entries()
        if (x.purpose, x.fidelity) == ("control", "expensive")
    ]
    assert {x.frame for x in entries} == set(by_hand) & set(asked)
    assert len(entries) >= 2
    for entry in entries:
        ratio, factor = by_hand[entry.frame]
        assert entry.limit_ratio == pytest.approx(ratio * factor)
        assert entry.limit_held == (ratio <= 1.0)


def test_later_limits_would_have_held_for_the_control_frames(history: History) -> None:
    _, last = history.generations[-1]
    ratios = sorted(
        x.limit_ratio
        for x in history.state.labels.entries()
        if x.limit_ratio is not None
    )
    assert last.error_limits is not None
    assert last.error_limits.controls == len(ratios)
    rank = int(np.ceil((len(ratios) + 1) * 0.5))
    assert last.error_limits.factor == pytest.approx(max(1.0, ratios[rank - 1]))


def test_the_threshold_is_the_surprise_at_which_an_error_is_possible(
    campaign: Campaign, history: History
) -> None:
    for _, trained in history.generations:
        assert trained.error_limits is not None
        assert trained.threshold == trained.error_limits.surprise_at(ERROR)
        assert trained.threshold_from == "error"
    model: Generation = campaign.model()
    best = next(
        x
        for _, x in history.generations
        if x.generation == history.state.generations.best
    )
    assert model.threshold == best.threshold
    assert set(bad_errors(history).values()) == {ERROR}


def test_the_report_and_the_status_say_how_often_limits_held(history: History) -> None:
    held = [
        x.limit_held for x in history.state.labels.entries() if x.limit_held is not None
    ]
    found, examined = limit_coverages(history)
    assert (found.n, found.held, found.coverage) == (len(held), sum(held), 0.5)
    text = " ".join(limit_sentences(history))
    assert f"Of {found.n} control frames {found.held} erred by less" in text
    assert f"n = {found.n} is too few for a rate" in text
    values = campaign_status(history)
    assert values["error_limits"]["held"] == {
        "control frame": {"n": found.n, "held": found.held},
        "frame of the examination": {"n": examined.n, "held": examined.held},
    }
    assert f"the limit of the error reaches {ERROR} eV/Å" in values["calibration"][0]
    assert f"{found.n} control frames" in str(limits_section(history).body)


def test_limits_of_the_examined_model_are_made_from_its_own_md_too(
    campaign: Campaign, history: History
) -> None:
    """By hand: from the validation set and the frames of the examination together."""
    best = next(
        x
        for _, x in history.generations
        if x.generation == history.state.generations.best
    )
    before, test, labels = (
        best.error_limits,
        best.evaluation,
        labels_of_test(history, best),
    )
    assert before is not None
    assert test is not None
    assert labels is not None
    level = history.opened.levels["expensive"]
    frames, errors, surprise = [*labels.batch.frames()], [], [*test.surprise]
    errors += [*largest_force_errors(labels.batch, test.forces, labels.forces)]
    told = held = 0
    for _, event in history.of_kind(e.Examined):
        for found in event.frames:
            label = history.label_index.labels[level, found.frame.id]
            assert isinstance(label, Label)
            error = np.linalg.norm(found.forces - label.forces, axis=1).max()
            limit = before.limit(found.surprise, found.frame)
            told, held = told + (limit < np.inf), held + (error <= limit < np.inf)
            frames.append(found.frame)
            errors.append(error)
            surprise.append(found.surprise)
    assert len(frames) == 18 + 12
    by_hand = fit_error_limits(
        np.array(surprise), np.array(errors), 0.5, batch=pack_frames(frames)
    )
    assert by_hand is not None
    known = {"factor": before.factor, "controls": before.controls}
    whole = replace(by_hand, examined=12, told=told, held=held, **known)
    assert campaign.model().error_limits == whole
    assert campaign.model(1).error_limits == (
        whole if best.generation == 1 else history.generations[0][1].error_limits
    )
    newest = newest_limits(history)
    assert newest == (best, whole)
    text = " ".join(limit_sentences(history))
    assert "18 validation frames" in text
    assert "12 of the examination" in text
    assert f"Of {told} frames of the examination {held} erred by less" in text
    calculator = campaign.calculator()
    assert calculator.error_limits == whole


def test_a_share_is_told_with_its_interval() -> None:
    few, some = (LimitCoverage("frame", 0.9, n, held) for n, held in ((9, 9), (20, 13)))
    assert few.sentence.endswith("labels (n = 9 is too few for a rate).")
    assert "65% (43% to 82% at 95% confidence) against 90%" in some.sentence  # Wilson


def test_too_few_validation_frames_give_no_limits_and_say_so(tmp_path: Path) -> None:
    changes = {"budget": {"cheap": 16, "expensive": 6}, "explore": {"walkers": 1}}
    campaign = Campaign.from_yaml(write_toy(tmp_path, **changes))
    campaign.run()
    history = campaign.history()
    assert campaign.model().error_limits is None
    assert history.generations[-1][1].threshold_from == "heldout"
    (text,) = limit_sentences(history)
    assert text == (
        "There are no limits of force errors: a promise of 90% takes 10 validation "
        "frames, there are 6."
    )
