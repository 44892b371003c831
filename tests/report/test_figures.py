"""Figures and the timeline behind one of them."""

import matplotlib
import numpy as np
import pytest

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
    parity_figures,
    thinning_note,
)
from alloop.report.sections.generation_sections import BiasData, bias_figure
from alloop.report.sections.run_sections import timeline_figures
from alloop.report.sections.surprise_sections import ErrorPoint, surprise_figure
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
