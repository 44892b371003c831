"""Surprise against errors, bias and parity: against sums done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from alloop.core.records import Label
from alloop.loop import events as e
from alloop.report.analysis.explorations import exploration_proposals, read_explorations
from alloop.report.analysis.model_errors import bias_data, parity_data
from alloop.report.analysis.uncertainty import (
    ErrorPoint,
    error_points,
    rank_correlations,
    threshold_verdict,
)


def _points_of(history):
    return error_points(history, read_explorations(history))


def _biases(history):
    return bias_data(history, read_explorations(history))


def _first_proposals(history):
    proposals = {}
    for _, event in history.of_kind(e.Explored):
        for proposal in exploration_proposals(history, event):
            proposals.setdefault(proposal.candidate.frame.id, proposal)
    return proposals


def test_every_test_frame_and_every_labelled_proposal_is_a_point(finished):
    found = _points_of(finished)
    groups = [x.group for x in found]
    assert groups.count("test") == 12
    assert groups.count("control") == 4
    assert groups.count("chosen") == 16 - 6 - 4
    assert len({x.frame for x in found}) == len(found)


def test_the_error_of_a_point_is_the_largest_force_error_on_an_atom(finished):
    point = next(x for x in _points_of(finished) if x.group == "chosen")
    candidate = _first_proposals(finished)[point.frame].candidate
    level = finished.opened.levels["expensive"]
    label = finished.label_index.labels[level, point.frame]
    assert isinstance(label, Label)
    by_hand = max(
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in zip(candidate.forces, label.forces, strict=True)
    )
    assert point.error == pytest.approx(by_hand)
    assert point.surprise == candidate.surprise


def test_proposals_know_the_generation_that_made_them(finished):
    asked = {x.frame.id for x in finished.record_index.labels}
    first = _first_proposals(finished)
    found = [first[frame] for frame in asked if frame in first]
    assert {x.generation for x in found} == {1, 2}
    assert {x.round for x in found} == {1, 2}
    assert all(x.candidate.origin == "control" for x in found if x.control)


def test_a_tenth_of_the_test_frames_is_bad_by_definition(finished):
    bad = [x.bad for x in _points_of(finished) if x.group == "test"]
    assert sum(bad) == 2  # above the 0.9 quantile of 12


def _points(group, pairs, threshold=None, limit=None):
    return [
        ErrorPoint(
            str(i), group, 1, s, x, threshold, None if limit is None else x > limit
        )
        for i, (s, x) in enumerate(pairs)
    ]


def test_a_perfect_ranking_is_called_perfect():
    pairs = [(float(i), float(i**2)) for i in range(20)]
    test, *_ = rank_correlations(_points("test", pairs, limit=300.0))
    assert (test.n, test.spearman, test.auroc) == (20, pytest.approx(1.0), 1.0)


def test_equal_surprise_ranks_nothing():
    pairs = [(1.0, float(i)) for i in range(12)]
    test, *_ = rank_correlations(_points("test", pairs, limit=8.5))
    assert np.isnan(test.spearman)
    assert test.auroc == 0.5  # ties count half


def test_nothing_is_said_of_too_few_frames():
    pairs = [(float(i), float(i)) for i in range(9)]
    test, _, control, _ = rank_correlations(_points("test", pairs))
    assert test.n == 9
    assert np.isnan(test.spearman)
    assert control.n == 0


def test_frames_without_a_surprise_are_not_ranked():
    pairs = [(float("nan"), 1.0)] * 12
    test, *_ = rank_correlations(_points("test", pairs))
    assert test.n == 0


def test_hits_and_misses_are_counted_on_control_frames_alone():
    pairs = [(2.0, 2.0), (0.5, 3.0), (2.0, 0.1), (0.5, 0.1), (0.4, 0.2)]
    control = _points("control", pairs, threshold=1.0, limit=1.0)
    chosen = _points("chosen", [(9.0, 5.3)], threshold=1.0, limit=1.0)
    said = threshold_verdict([*control, *chosen])
    assert (said.hits, said.misses, said.false_alarms, said.quiet) == (1, 1, 1, 2)
    assert said.enrichment == pytest.approx(5.3 / np.mean([2.0, 3.0, 0.1, 0.1, 0.2]))


def test_without_a_threshold_there_are_no_hits():
    assert threshold_verdict(_points("control", [(1.0, 1.0)], limit=0.5)).n == 0


def test_bias_is_that_of_training_where_it_is_known(finished):
    found = _biases(finished)
    assert found.trained
    assert list(found.generation) == [1, 2, 3]
    assert found.generation[1] == pytest.approx(0.1 + 0.01 * np.arange(20))


def test_bias_is_taken_from_predictions_where_training_tells_none(finished, remade):
    entries = [
        replace(entry, turn=replace(entry.turn, event=_mute(entry.turn.event)))
        for entry in finished.entries
    ]
    found = _biases(remade(entries))
    assert not found.trained
    good = [x for x in finished.state.labels.entries() if x.bias is not None]
    expected = sorted(float(x.bias or 0.0) for x in good)
    got = sorted(np.concatenate(list(found.generation.values())))
    assert got == pytest.approx(expected)


def _mute(event):
    return replace(event, history={}) if isinstance(event, e.Trained) else event


def test_levels_are_compared_on_frames_that_have_both_labels(finished):
    assert len(_biases(finished).levels) == 16
    level = finished.opened.levels
    frame = finished.state.labels.trained_on("expensive")[0]
    one = finished.label_index.labels[level["cheap"], frame].forces
    other = finished.label_index.labels[level["expensive"], frame].forces
    assert np.isclose(_biases(finished).levels, np.abs(one - other).mean()).any()


def test_parity_repeats_the_errors_of_the_evaluation(finished):
    found, test = parity_data(finished), finished.trained()[-1].evaluation
    label, model = found.forces
    assert np.abs(model - label).mean() == pytest.approx(test.force_mae)
    assert np.sqrt(((model - label) ** 2).mean()) == pytest.approx(test.force_rmse)
    label, model = found.energies
    assert np.abs(model - label).mean() == pytest.approx(test.energy_mae)
    assert label.mean() == pytest.approx(0.0, abs=1e-9)
