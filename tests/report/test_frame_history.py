"""The history of one frame, the log and the status of a campaign."""

import json
from dataclasses import replace
from datetime import datetime

import pytest

from alloop.core.errors import InputError
from alloop.core.records import Failure, Noise, Unlabelled
from alloop.core.text import local_time
from alloop.history.label_entries import label_entries
from alloop.history.reader import JournalEntry
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame
from alloop.report.status import campaign_status
from alloop.report.text.event_log import log_lines
from alloop.report.text.frame_history import describe_frame, describe_frames

_LOST = Failure.LOST


def _story(history, frame):
    return "\n".join(describe_frame(history, frame))


def _of(history, purpose, fidelity="expensive", good=True):
    return next(
        label.frame.id
        for label in label_entries(history)
        if (label.purpose, label.fidelity) == (purpose, fidelity)
        and isinstance(label.record, Unlabelled) is not good
    )


def test_the_story_of_a_chosen_frame_is_told_from_birth_to_learning(finished):
    frame = _of(finished, "bias")
    label = finished.label_index.labels[finished.opened.levels["expensive"], frame]
    story = _story(finished, frame[:10])
    assert story.startswith(f"Frame {frame}: H2O, 3 atoms.\nProposed by MD on walker ")
    assert "in round 1 on generation 1, among the most surprising" in story
    assert "above the threshold of 1.5, which is not calibrated for MD: " in story
    assert "for the cheap label (HF/STO-3G) as `flagged`: surprise" in story
    assert "for the expensive label (CCSD(T)/cc-pVDZ) as `bias`: bias" in story
    assert f"Expensive label made: {label.energy:.6f} eV, largest force" in story
    assert "4.0 s of CPU time (gap 0.42 eV, program pyscf 2.14)" in story
    assert "differed from the cheap label by B = " in story
    assert "Generation 1 was wrong by " in story
    assert "Its expensive label was learned by generations 2–3." in story


def test_the_story_of_a_failure_gives_the_reason_and_the_advice(finished):
    story = _story(finished, _of(finished, "flagged", "cheap", good=False))
    assert "No cheap label, not converged: the SCF did not converge; try" in story
    assert "(after 4 rungs); 0.5 s of CPU time." in story
    assert "It is in quarantine; another try would fail in the same way." in story
    assert "was learned by" not in story


def test_a_story_may_look_at_the_last_trainings_alone_and_says_so(finished):
    frame = finished.label_index.frames[_of(finished, "bias")]
    lines = describe_frames(finished, [frame], {}, limit=2)[frame.id]
    said = (
        "Its expensive label was learned by generations 2–3 (of the last 2 searched)."
    )
    assert said in lines


def test_first_frames_are_drawn_around_the_minimum(finished):
    story = _story(finished, _of(finished, "seed"))
    assert "Drawn around the minimum of the cheap level, as a first frame." in story
    assert "Chosen before the first round for the expensive label" in story
    assert "Its expensive label was learned by generations 1–3." in story


def test_test_frames_teach_nobody(finished):
    story = _story(finished, _of(finished, "test"))
    assert "Made by MD at the cheap level, for the validation set." in story
    assert "In the validation set, to measure generations 1–3." in story
    assert "was learned by" not in story


def test_control_frames_were_drawn_at_random(finished):
    story = _story(finished, _of(finished, "control"))
    assert "drawn at random, whatever its surprise." in story
    assert "as `control`: random control frame." in story


def test_held_out_frames_say_that_no_training_saw_them(synthetic, opened, rules):
    shy = replace(rules, heldout=0.9)
    history = synthetic(rules=shy).history(opened)
    held = history.state.labels.held_out(history.state.seed, 0.9)
    assert len(held) >= 8
    story = _story(history, held[0])
    assert "Held out from the training of generations 1–3: it calibrates" in story
    assert "was learned by" not in story


def test_the_minimum_has_a_story_too(finished):
    story = describe_frame(finished, finished.opened.start[0].id)
    assert story[1] == "The minimum of its molecule at the cheap level."
    assert story[-1] == "It was not chosen for a label."


def test_a_frame_that_nobody_chose_says_so(finished):
    labelled = {label.frame.id for label in label_entries(finished)}
    frame = next(
        candidate.frame.id
        for _, event in finished.events()
        if isinstance(event, e.Explored)
        for candidate in event.candidates
        if candidate.frame.id not in labelled
    )
    story = describe_frame(finished, frame)
    assert story[1].startswith("Proposed by MD on walker ")
    assert story[-1] == "It was not chosen for a label."


def _with_sign(history, key, value):
    return next(
        label
        for label in label_entries(history)
        if label.fidelity == "expensive" and label.record.details.get(key) == value
    )


def test_a_rescued_label_names_its_rung_and_what_the_others_cost(troubled):
    story = _story(troubled, _with_sign(troubled, "rung", "damping").frame.id)
    assert (
        "Rescued by the rung `damping` (default, damping); 0.2 s went to the others."
        in story
    )
    story = _story(troubled, _with_sign(troubled, "rung", "default").frame.id)
    assert "Rescued" not in story


def test_a_doubtful_label_says_why_and_what_becomes_of_it(troubled):
    doubtful = _with_sign(troubled, "doubts", "instability")
    story = _story(troubled, doubtful.frame.id)
    assert "external stability -0.02 hartree" in story
    assert "Doubtful: externally unstable: a solution with broken" in story
    assert "lies lower. It is kept, with a mark." in story
    sure = _with_sign(troubled, "doubts", "")
    assert "Doubtful" not in _story(troubled, sure.frame.id)


def test_a_rechecked_label_says_how_far_it_moved(troubled):
    noise = troubled.rechecked()[-1].noise
    story = _story(troubled, noise.frame)
    assert "The cheap label was made again to know its noise: energy" in story
    assert "<0.001 meV/Å (RMS; at most <0.001)" in story
    assert story.count("made again") == 1


def test_a_lost_label_may_be_retried_and_the_story_tells_when(finished, remade):
    frame = _of(finished, "flagged", "cheap", good=False)
    label = next(
        x
        for x in label_entries(finished)
        if x.frame.id == frame and x.fidelity == "cheap"
    )
    entries = list(finished.entries)
    turn = entries[label.answered].turn
    lost = replace(label.record, failure=Failure.TIMEOUT)
    turn = replace(turn, event=replace(turn.event, unlabelled=lost))
    entries[label.answered] = replace(entries[label.answered], turn=turn)
    story = _story(remade(entries), frame)
    assert "It is in quarantine; `alloop resume STORE --retry` tries it" in story
    command = LabelFrame(label.frame, label.level, "cheap", "flagged", 0)
    again = e.Turn(e.Retried((command,)), (command,))
    refused = replace(lost, failure=Failure.UNSTABLE)
    turns = (again, e.Turn(e.NotLabelled(command.name, refused)))
    late = entries[-1].time
    entries += [
        JournalEntry(len(entries) + i, late, turn) for i, turn in enumerate(turns)
    ]
    story = _story(remade(entries), frame)
    assert "Tried again in round" in story
    assert "Its cheap label was asked for again by hand on 20" in story
    assert story.count("quarantine") == 1
    assert "another try would fail in the same way" in story
    lines = "\n".join(log_lines(remade(entries)))
    assert "1 lost label asked for again by hand → 1 × label cheap" in lines


def test_exclusions_by_hand_are_told_with_their_reason(finished, remade):
    frame = _of(finished, "bias")
    event = e.Excluded(frame, "expensive", "the wrong state")
    entry = JournalEntry(
        len(finished.entries), finished.entries[-1].time, e.Turn(event)
    )
    story = describe_frame(remade([*finished.entries, entry]), frame)
    when = local_time(entry.time)
    assert story[-1] == (
        f"Its expensive label was excluded by hand on {when}: the wrong state."
    )


def test_supplied_labels_have_no_price_and_nobody_chose_them(
    finished, synthetic, rules
):
    label = next(x for x in label_entries(finished) if x.fidelity == "expensive")
    given = e.Given(label.frame, 0, "expensive", label.record)
    opened = replace(finished.opened, given=(given,))
    story = _story(synthetic().history(opened, turns=1), label.frame.id)
    assert "Supplied by the user." in story
    assert "Expensive label supplied: " in story
    assert "CPU time" not in story
    assert "Chosen" not in story


@pytest.mark.parametrize("prefix", ["zzzz", ""])
def test_a_prefix_must_fit_one_frame(finished, prefix):
    with pytest.raises(InputError, match="the beginning of one frame's id"):
        describe_frame(finished, prefix)


def test_the_log_has_a_line_for_every_record(finished):
    lines = list(log_lines(finished))
    assert len(lines) == len(finished.entries)
    assert "campaign opened: H2O, seed 7 → 1 × prepare" in lines[0]
    assert "no cheap label of frame " in "".join(lines)
    assert lines[-1].endswith("→ finished: the budget of expensive labels is spent")
    assert "prices of labels fitted: cheap from 55 labels and exp" in lines[-1]
    assert "generation 3 trained: validation set: forces 12.1 meV/Å" in lines[-2]


def test_the_log_words_what_people_and_accidents_do(finished, remade):
    name = "label/x/0123456789"
    events = [
        e.TaskLost(name, 1, "the worker died"),
        e.Amended("name: springs\n", ("budget.cheap",)),
        e.Amended("name: springs\n"),
        e.Excluded("0123456789", None, "twin"),
        e.Rechecked("recheck/x/0123456789", Noise("0123456789", "x", failure=_LOST)),
        e.Priced("price/1", {}),
    ]
    entries = [JournalEntry(i, 0.0, e.Turn(event)) for i, event in enumerate(events)]
    text = "\n".join(log_lines(remade([*finished.entries[:1], *entries])))
    assert f"{name} was lost (attempt 1): the worker died" in text
    assert "configuration changed: budget.cheap" in text
    assert "resumed" in text
    assert "frame 01234567 excluded by hand: twin" in text
    assert "x label of frame 01234567 could not be made again: lost" in text
    assert "prices of labels fitted: none known" in text


def test_status_is_plain_json_and_says_where_the_campaign_stands(finished):
    told_ = json.loads(json.dumps(campaign_status(finished), allow_nan=False))
    assert told_["name"] == "springs"
    assert told_["finished"] == "the budget of expensive labels is spent"
    assert (told_["round"], told_["generation"]) == (2, 3)
    assert told_["labels"]["cheap"]["failures"] == {
        "NOT_CONVERGED": told_["labels"]["cheap"]["failed"]
    }
    assert told_["labels"]["expensive"]["budget"] == 16
    assert told_["walkers"] == {"walking": 3, "stopped": {"force": 1}}
    assert told_["errors"] == list(finished.state.generations.errors)
    assert told_["threshold"] == 1.5
    assert told_["open"] == {}
    failed = told_["labels"]["cheap"]["failed"]
    assert told_["quarantined"] == {"labels": failed, "retry": 0}
    assert told_["noise"] == {}
    assert told_["time_left"] == 0.0
    assert datetime.fromisoformat(told_["last_commit"]).timestamp() == pytest.approx(
        finished.entries[-1].time
    )


def test_status_tells_noise_in_units_of_forces(troubled):
    noise = campaign_status(troubled)["noise"]
    assert noise["cheap"]["labels"] == 6
    assert noise["expensive"] == {"labels": 3, "force_rms": pytest.approx(7.1e-4, 0.02)}


def test_status_counts_open_work_of_a_campaign_under_way(finished, remade):
    told_ = campaign_status(remade(list(finished.entries[:2])))
    assert told_["stage"] == "seed"
    assert told_["open"] == {
        "cheap label": 20,
        "expensive label": 6,
        "preparation": 4,
    }
    assert told_["time_left"] is None
    json.dumps(told_, allow_nan=False)


def test_status_of_an_empty_store_is_empty(remade):
    told_ = campaign_status(remade([]))
    assert told_["last_commit"] is None
    assert told_["errors"] == []


def test_an_untested_generation_is_null_in_json(finished, remade):
    entries = [
        replace(x, turn=replace(x.turn, event=replace(x.turn.event, evaluation=None)))
        if isinstance(x.turn.event, e.Trained)
        else x
        for x in finished.entries
    ]
    told_ = campaign_status(remade(entries))
    assert told_["errors"] == [None, None, None]
    json.dumps(told_, allow_nan=False)
