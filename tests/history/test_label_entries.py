"""The story of each label."""

from dataclasses import replace

from alloop.core.records import Failure, Label, Unlabelled
from alloop.history.label_entries import label_entries
from alloop.loop import events as e
from alloop.loop.commands import Train
from alloop.loop.reducer import ATTEMPTS


def test_every_label_is_told_once_in_the_order_of_its_answer(world):
    game = world.game(molecules=2).play()
    stories = label_entries(world.history(game.turns))
    answered = [x.event.name for x in game.turns if isinstance(x.event, e.Labelled)]
    assert [f"label/{x.level}/{x.frame.id}" for x in stories] == answered
    assert [x.answered for x in stories] == sorted(x.answered for x in stories)
    assert all(x.asked < x.answered for x in stories)


def test_a_story_says_who_asked_in_which_round_with_which_model(world):
    game = world.game().play()
    for story in label_entries(world.history(game.turns)):
        first = story.purpose in ("seed", "test")
        assert (story.round == 0) == first
        assert story.generation == story.round
        command = next(
            x for x in game.turns[story.asked].commands if x.frame == story.frame
        )
        assert story.reason == command.reason
    assert (
        max(x.round for x in label_entries(world.history(game.turns)))
        == game.state.exploration.round
    )


def test_failures_have_a_story_too(world):
    game = world.game().to("flag")
    one, two = sorted(game.state.open)[:2]
    game.turn(world.failed(game.state.open[one]))
    lost = game.state.open[two]
    game.turn(e.TaskLost(two, 1, "killed"))
    assert len(label_entries(world.history(game.turns))) == len(
        list(game.state.labels.entries())
    )
    for attempt in range(2, ATTEMPTS + 1):
        game.turn(e.TaskLost(two, attempt, "killed"))
    failed, forsaken = label_entries(world.history(game.turns))[-2:]
    assert failed.record.failure is Failure.NOT_CONVERGED
    assert failed.cpu_seconds == 2.0
    assert isinstance(forsaken.record, Unlabelled)
    assert forsaken.frame == lost.frame
    assert (forsaken.record.failure, forsaken.record.message) == (
        Failure.LOST,
        "killed",
    )


def test_a_second_answer_is_not_told(world):
    game = world.game().play()
    again = next(x.event for x in game.turns if isinstance(x.event, e.Labelled))
    twice = world.history([*game.turns, e.Turn(again)])
    assert len(label_entries(twice)) == len(label_entries(world.history(game.turns)))


def test_labels_that_were_given_are_told_as_supplied(world):
    items = (world.given("a", "cheap"), world.given("t", "expensive", test=True))
    game = world.game(given=items).play()
    stories = label_entries(world.history(game.turns))
    assert [x.purpose for x in stories if x.is_given] == ["given", "test"]
    assert [x.frame for x in stories[:2]] == [item.frame for item in items]
    assert all(isinstance(x.record, Label) for x in stories)


def test_what_was_excluded_since_says_so(world):
    game = world.game().play()
    frame = game.asked(Train)[0].expensive[0]
    game.turn(e.Excluded(frame, "cheap", "odd"))
    out = [x for x in label_entries(world.history(game.turns)) if x.excluded]
    assert {(x.frame.id, x.fidelity) for x in out} <= {(frame, "cheap")}
    game.turn(e.Excluded(frame, None, "odd"))
    out = [x for x in label_entries(world.history(game.turns)) if x.excluded]
    assert (frame, "expensive") in {(x.frame.id, x.fidelity) for x in out}


def test_a_label_from_a_cache_says_so(world):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Labelled):
            return replace(event, cached=command.fidelity == "cheap")
        return event

    game = world.game(reply=reply).play()
    for story in label_entries(world.history(game.turns)):
        assert story.cached == (story.fidelity == "cheap")
