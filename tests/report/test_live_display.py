"""The live display and tables, with a terminal of any width and without one."""

import io
import re
from itertools import count

import pytest
from rich.console import Console, RenderableType

from alloop.cli.inspect_commands import _label_table
from alloop.core.records import Failure
from alloop.loop import events as e
from alloop.loop.reducer import ATTEMPTS, apply_commands, apply_event, next_state
from alloop.loop.state import LoopState
from alloop.report.status import campaign_status, end_table
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.live_display import LabelCounter, LiveDisplay
from alloop.training.state_folder import TrainingProgress, write_progress
from alloop.workers.spool import training_folder, training_progress


def _console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def _shown(history, rules, terminal, turns=None):
    console, ticks = _console(terminal), count()
    state = LoopState()
    with LiveDisplay(
        "springs", rules, console, clock=lambda: 0.3 * next(ticks)
    ) as live:
        for entry in history.entries[:turns]:
            state = next_state(state, entry.turn.event, entry.turn.commands)
            live.observe(state, entry.turn)
    return console.file.getvalue()


def _last_panel(text):
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return plain[plain.rindex("springs  ") :]


def test_a_file_gets_plain_lines_one_for_each_closed_step(finished, rules):
    text = _shown(finished, rules, terminal=False)
    assert "\x1b" not in text
    assert "\r" not in text
    lines = [line.split("] ", 1)[1] for line in text.splitlines()]
    assert lines[0] == "campaign opened: H2O, seed 7"
    assert lines[1].startswith(
        "round 0: first labels and validation set done: 20 cheap"
    )
    assert lines[2].startswith("generation 1 trained: validation set: forces ")
    assert (
        lines[3] == "round 1: exploring done: walkers: 3 walking, 1 stopped (1 force)"
    )
    assert "3 failed (3 not converged)" in lines[4]
    assert lines[5].startswith("round 1: labelling biased frames done: 37 cheap")
    assert lines[-1] == "finished: the budget of expensive labels is spent"
    assert len(lines) == 12


def test_a_terminal_gets_a_panel_with_everything_in_it(finished, rules):
    at = next(
        i
        for i, entry in enumerate(finished.entries)
        if isinstance(entry.turn.event, e.Trained) and entry.turn.event.generation == 2
    )
    panel = _last_panel(_shown(finished, rules, terminal=True, turns=at + 2))
    assert "round 2: exploring · generation 2" in panel
    assert re.search(r"cheap labels +40/60 .*37 good, 3 failed \(3 not conv", panel)
    assert re.search(r"expensive labels +11/16 .*11 good", panel)
    assert re.search(r"validation labels +12 +12 good", panel)
    assert re.search(r"walkers +4 walking, 0 stopped", panel)
    assert re.search(r"error +30.7 → 18.9 meV/Å on the validation set", panel)
    assert re.search(r"under way +2 pieces of MD", panel)
    assert re.search(r"cost +1 min 52 s of CPU time for labels, .* MD, train", panel)
    assert re.search(r"time +1 min \d+ s, less than a minute left", panel)


def test_a_terminal_shows_how_far_a_training_is(finished, rules, tmp_path):
    told = TrainingProgress("pretraining", 300, 2700, 0.0217)
    write_progress(training_folder(tmp_path, "round2/train"), told)
    console = _console(terminal=True)
    with LiveDisplay("springs", rules, console, spool=tmp_path):
        pass
    panel = _last_panel(console.file.getvalue())
    assert re.search(r"training +pretraining 300 of 2700, loss 0.0217", panel)
    assert "pretraining" not in _last_panel(_shown(finished, rules, terminal=True))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1, 2, 3, 4]", '{"stage": "x"}', "[" * 100_000),
        '{"stage": "x", "step": 1, "steps": 2, "loss": "low"}',
        '{"stage": "x", "step": 1, "steps": 2, "loss": null}',
    ],
)
def test_a_crafted_progress_of_a_training_is_none(tmp_path, text):
    folder = training_folder(tmp_path, "round2/train")
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(text)
    assert training_progress(tmp_path) == []


def test_a_file_gets_a_line_a_minute_while_nothing_is_closed(finished, rules, tmp_path):
    told = TrainingProgress("pretraining", 300, 2700, 0.0217)
    write_progress(training_folder(tmp_path, "round2/train"), told)
    console, state, now = _console(terminal=False), LoopState(), [0.0]
    at = next(
        i
        for i, entry in enumerate(finished.entries)
        if isinstance(entry.turn.event, e.Trained) and entry.turn.event.generation == 2
    )
    with LiveDisplay("x", rules, console, lambda: now[0], spool=tmp_path) as live:
        for entry in finished.entries[: at + 2]:
            now[0] += 1.0
            state = next_state(state, entry.turn.event, entry.turn.commands)
            live.observe(state, entry.turn)
        before = len(console.file.getvalue())
        for _ in range(28 * 60 * 4):  # as often as the driver looks for a stop
            now[0] += 0.25
            live.tick()
    lines = console.file.getvalue()[before:].splitlines()
    assert len(lines) == 28
    assert lines[0].split("] ", 1)[1] == (
        "round 2: exploring · generation 2; under way: 2 pieces of MD; pretraining 300 "
        "of 2700, loss 0.0217; labels used: 40 of 60 cheap, 11 of 16 expensive; less "
        "than a minute left"
    )
    output = io.StringIO()
    quiet = Console(file=output, quiet=True)
    with LiveDisplay("x", rules, quiet, lambda: now[0]) as live:
        now[0] += 100.0
        live.tick()
    assert output.getvalue() == ""


def test_doubtful_labels_are_counted_on_the_panel(troubled, rules):
    panel = _last_panel(_shown(troubled, rules, terminal=True))
    assert re.search(r"expensive labels +16/16 .*16 good, \d doubtful", panel)
    assert "doubtful" not in next(x for x in panel.splitlines() if "cheap" in x)


def test_before_a_round_has_passed_labels_tell_the_least_time_left(finished, rules):
    panel = _last_panel(_shown(finished, rules, terminal=True, turns=2))
    assert re.search(r"time +[\d.]+ s, \? left", panel)
    panel = _last_panel(_shown(finished, rules, terminal=True, turns=50))
    assert re.search(r"time +[^,]+, at least [\d.]+ \w+.* left", panel)
    assert "validation set" in panel


def test_at_the_end_the_panel_says_why(finished, rules):
    panel = _last_panel(_shown(finished, rules, terminal=True))
    assert panel.startswith(
        "springs  finished: the budget of expensive labels is spent"
    )
    assert " left" not in panel


def test_a_panel_of_nothing_can_be_shown(rules):
    console = _console(terminal=True)
    with LiveDisplay("springs", rules, console) as live:
        live.tick()
    assert "none yet" in console.file.getvalue()


def test_the_screen_is_refreshed_a_few_times_a_second_at_most(finished, rules):
    console = _console(terminal=True)
    with LiveDisplay("springs", rules, console, clock=lambda: 0.0) as live:
        before = len(console.file.getvalue())
        for _ in range(100):
            live.tick()
        assert len(console.file.getvalue()) == before


@pytest.mark.parametrize("start", [0, 1, 50, 90])
def test_a_display_that_starts_in_the_middle_counts_the_same_labels(finished, start):
    tally, state = LabelCounter(), LoopState()
    for number, entry in enumerate(finished.entries):
        state = next_state(state, entry.turn.event, entry.turn.commands)
        if number >= start:
            tally.add_event(state, entry.turn.event)
    labels = tally.labels(state)
    none = {"examination": 0}
    good = {kind: count.good for kind, count in labels.items()}
    failed = {kind: count.failed for kind, count in labels.items()}
    assert good == {"cheap": 55, "expensive": 16, "validation": 12} | none
    assert failed == {"cheap": 5, "expensive": 0, "validation": 0} | none
    seen = [x.turn.event for x in finished.entries[start:]]
    lost = sum(isinstance(event, e.NotLabelled) for event in seen)
    assert labels["cheap"].reasons.total() == lost


def test_cached_labels_are_counted_among_the_good_ones(control):
    tally, state = LabelCounter(), LoopState()
    for entry in control.entries:
        state = next_state(state, entry.turn.event, entry.turn.commands)
        tally.add_event(state, entry.turn.event)
    events = [event for _, event in control.events() if isinstance(event, e.Labelled)]
    cached = sum(count.cached for count in tally.labels(state).values())
    assert cached == sum(event.cached for event in events) > 0


def test_a_label_that_was_lost_too_often_is_a_failure(finished):
    tally, state = LabelCounter(), LoopState()
    for entry in finished.entries[:2]:
        state = next_state(state, entry.turn.event, entry.turn.commands)
        tally.add_event(state, entry.turn.event)
    name = next(name for name in state.open if name.startswith("label/"))
    for attempt in range(1, ATTEMPTS + 1):
        event = e.TaskLost(name, attempt, "the worker died")
        command = state.open[name]
        state = apply_event(state, event)
        state = apply_commands(state, (command,)) if name in state.open else state
        tally.add_event(state, event)
    count = tally.labels(state)["expensive"]
    assert count.failed == 1
    assert count.reasons == {Failure.LOST: 1}


WIDTHS = (40, 50, 60, 72, 88, 120)


def rendered(table: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[^\s]*\d[^\s]*", text.partition("left out")[0]))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_is_cut(finished, width):
    for table in (
        end_table(finished),
        _label_table(campaign_status(finished)["labels"]),
    ):
        narrow, wide = rendered(table, width), rendered(table, 200)
        assert "…" not in narrow
        assert numbers(narrow) <= numbers(wide)
        assert max(map(len, narrow.splitlines())) <= width
        assert width < 88 or numbers(narrow) == numbers(wide)


def test_what_is_left_out_is_named_and_the_least_important_goes_first():
    table = FittingTable("name", "error", "price", first_out=("error",))
    table.add_row("water", "0.123456789", "12345.678")
    narrow = rendered(table, 24)
    assert "12345.678" in narrow
    assert "0.1234" not in narrow
    assert "columns left out: error" in narrow
    assert "left out" not in rendered(table, 40)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_panel_cuts_no_number(finished, rules, width):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    live = LiveDisplay("springs", rules, console, clock=lambda: 5.0)
    live._state = finished.state
    narrow, wide = rendered(live.panel(), width), rendered(live.panel(), 200)
    assert numbers(narrow) <= numbers(wide)
    assert "…" not in narrow
