"""Surprise, bias, parity and the timeline: sums done by hand, and their figures."""

from collections.abc import Callable
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from alloop.core.records import Label
from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.explorations import exploration_proposals, read_explorations
from alloop.report.analysis.timeline import (
    TaskBar,
    axis_length,
    axis_position,
    round_starts,
    run_spans,
    task_bars,
    worker_lanes,
)
from alloop.report.sections.error_sections import (
    ParityData,
    parity_data,
    parity_figures,
    thinning_note,
)
from alloop.report.sections.generation_sections import (
    BiasData,
    GenerationBias,
    bias_data,
    bias_figure,
    generation_biases,
    residual_figure,
    residual_section,
)
from alloop.report.sections.run_sections import timeline_figures
from alloop.report.sections.surprise_sections import (
    ErrorPoint,
    error_points,
    rank_correlations,
    surprise_figure,
    threshold_verdict,
)
from alloop.report.sections.surprise_sections import surprise_section as section

pytestmark = pytest.mark.usefixtures("figures")


def test_bars_are_the_tasks_of_the_journal(finished):
    found = task_bars(finished)
    assert len(found) == sum(
        getattr(event, "timing", None) is not None
        and event.timing.ended > event.timing.started
        for _, event in finished.events()
    )
    parts = {bar.part for bar in found}
    assert parts == {
        *("cheap labels", "expensive labels", "validation set"),
        *("training", "MD", "preparation"),
    }


def test_a_pause_between_two_runs_is_cut_out():
    found = run_spans(
        [TaskBar("MD", "a", 0.0, 10.0), TaskBar("MD", "b", 7210.0, 7230.0)]
    )
    assert [shift.at for shift in found] == [0.0, 10.0]
    assert found[1].paused == "2 h 0 min"
    assert axis_length(found) == 30.0
    assert axis_position(7215.0, found) == 15.0


def test_short_gaps_stay():
    found = run_spans([TaskBar("MD", "a", 0.0, 10.0), TaskBar("MD", "a", 50.0, 60.0)])
    assert len(found) == 1
    assert axis_length(found) == 60.0


def test_workers_that_follow_each_other_share_a_lane():
    found = worker_lanes(
        [
            TaskBar("MD", "h:1", 0.0, 10.0),
            TaskBar("MD", "h:2", 0.0, 20.0),
            TaskBar("MD", "h:3", 30.0, 40.0),
        ]
    )
    assert [len(lane.bars) for lane in found] == [2, 1]


def test_many_short_tasks_become_few_bars():
    many = [TaskBar("MD", "a", 0.1 * i, 0.1 * i + 0.1) for i in range(20_000)]
    (lane,) = worker_lanes(many)
    spans = lane.spans(run_spans(many))["MD"]
    assert len(spans) < 1600
    assert sum(length for _, length in spans) == pytest.approx(2000.0)


def test_drawing_leaves_the_global_style_alone():
    before = dict(matplotlib.rcParams)
    timeline_figures([TaskBar("MD", "a", 0.0, 1.0)])
    assert dict(matplotlib.rcParams) == before


def test_a_large_test_set_is_thinned_and_the_caption_says_so():
    rng = np.random.default_rng(0)
    forces = rng.standard_normal(90_000)
    parity = ParityData(1, (np.zeros(2), np.zeros(2)), (forces, forces))
    assert sum(map(len, parity_figures(parity))) < 200_000
    assert "Of the components, one in 46 is drawn." in thinning_note(parity)


def test_of_many_points_the_worst_are_drawn_and_the_caption_says_so():
    rng = np.random.default_rng(3)
    errors = rng.exponential(size=90_000)
    many = [ErrorPoint(f"{i:012x}", "chosen", 1, 1.0, x) for i, x in enumerate(errors)]
    body = section(many).body
    assert 1500 < body.count("<use href=") <= 2000
    assert f'data-f="{many[errors.argmax()].frame[:12]}"' in body
    assert "Of 90000 frames" in body
    assert len(body) < 250_000


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.1], [1e-9, 10.0]])
def test_bias_of_any_size_can_be_drawn(values):
    assert bias_figure(BiasData({1: np.array(values)})).startswith("<svg")


def test_many_generations_are_sampled_first_and_last_among_them():
    every = {number: np.array([0.1, 0.2]) for number in range(1, 41)}
    text = bias_figure(BiasData(every))
    assert "generation 1:" in text
    assert "generation 40:" in text
    assert text.count("generation ") < 10


def test_negative_surprise_and_an_infinite_threshold_can_be_drawn():
    found = [
        ErrorPoint(str(i), "test", 1, surprise=i - 3.0, error=0.1, threshold=np.inf)
        for i in range(6)
    ]
    assert surprise_figure(found).startswith("<svg")


def test_the_chart_of_a_run_names_rounds_and_generations_that_overlap():
    """Training of generation 2 runs beside round 2, on another worker."""
    ran = [
        TaskBar("training", "a", 0.0, 9.0, 1),
        TaskBar("MD", "b", 9.0, 12.0, 1),
        TaskBar("MD", "a", 9.5, 13.0, 1),
        TaskBar("training", "a", 13.0, 24.0, 2),
        TaskBar("MD", "b", 13.0, 15.0, 2),
    ]
    assert round_starts(ran) == {1: 9.0, 2: 13.0}
    drawn = "".join(timeline_figures(ran))
    for words in ("round 1", "round 2", "worker 2", "training"):
        assert words in drawn


def test_bars_of_a_journal_know_their_round_and_generation(finished):
    found = task_bars(finished)
    numbers = {
        part: {bar.number for bar in found if bar.part == part}
        for part in ("MD", "training", "cheap labels")
    }
    assert numbers["cheap labels"] == {0}
    assert min(numbers["training"]) == min(numbers["MD"]) == 1


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


def test_a_shift_of_energies_and_a_factor_of_forces_are_found(
    finished: History, remade: Callable[..., History]
) -> None:
    seq, trained = finished.generations[0]
    labels = labels_of_test(finished, trained)
    assert labels is not None
    assert trained.evaluation is not None
    biased = replace(
        trained.evaluation,
        energies=labels.energies - 0.02 * labels.batch.sizes,
        forces=0.9 * labels.forces,
    )
    entries = list(finished.entries)
    turn = replace(entries[seq].turn, event=replace(trained, evaluation=biased))
    entries[seq] = replace(entries[seq], turn=turn)
    found, *_ = generation_biases(remade(entries))
    assert found.frames == len(labels)
    assert found.energy == pytest.approx(-0.02)
    assert found.energy_spread == pytest.approx(0.0, abs=1e-9)
    assert found.force_scale == pytest.approx(0.9)


def test_the_section_shows_each_generation(finished: History) -> None:
    section = residual_section(finished, read_explorations(finished))
    assert "Protocol of fine-tuning: periodic" in section.body
    found = generation_biases(finished)
    assert len(found) == len(finished.generations)
    assert all(np.isfinite([x.energy, x.force_scale]).all() for x in found)
    assert f"{1e3 * found[-1].energy:.0f}"[:2] in section.body


@pytest.mark.usefixtures("figures")
def test_the_figure_is_drawn() -> None:
    found = [GenerationBias(n, 5, -0.01 / n, 0.002, 1.0 - 0.1 / n) for n in (1, 2, 3)]
    assert "<svg" in residual_figure(found)
