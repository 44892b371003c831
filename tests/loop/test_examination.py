"""The examination, and rounds that get nowhere."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.history.label_entries import lost_labels
from alloop.loop import events as e
from alloop.loop.commands import Examine, LabelFrame, Train
from alloop.loop.rules import Budget, Examining, StopRules
from alloop.loop.state import Generations, LoopState
from tests.conftest import replay

SPENT = "the budget of expensive labels is spent"


@pytest.fixture
def rules(world):
    return replace(world.RULES, examining=Examining(5, 100, (350.0,)))


def papers(begun):
    return begun.asked(LabelFrame, purpose="examination")


def test_the_end_waits_for_an_examination(world, rules):
    begun = world.game(rules).play()
    assert begun.state.finished == SPENT
    examines = begun.asked(Examine)
    # 5 frames are 3 walkers, in batches of 2; two of them give a second frame.
    assert [x.name for x in examines] == [
        "examine/1/0/0",
        "examine/1/1/0",
        "examine/1/0/1",
    ]
    assert {(x.steps, x.wanted) for x in examines} == {(100, 5)}
    assert {w.temperature for x in examines for w in x.walkers} == {350.0}
    assert len(papers(begun)) == 5
    assert {x.fidelity for x in papers(begun)} == {"expensive"}
    last = begun.turns[-1]
    assert [command.name for command in last.commands] == ["stop"]


def test_walkers_of_each_molecule_have_all_temperatures(world, rules):
    kelvin = Examining(8, 100, (350.0, 700.0))
    begun = world.game(replace(rules, examining=kelvin)).play()
    examines = begun.asked(Examine)
    molecules = len(begun.state.start)
    seen = {
        (walker.molecule, walker.temperature)
        for command in examines
        for walker in command.walkers
    }
    assert seen == {(m, k) for m in range(molecules) for k in (350.0, 700.0)}


def test_predictions_are_committed_before_labels_are_asked_for(world, rules):
    begun = world.game(rules).play()
    for turn in begun.turns:
        asked = {
            x.frame.id
            for x in turn.commands
            if isinstance(x, LabelFrame) and x.purpose == "examination"
        }
        if asked:
            assert isinstance(turn.event, e.Examined)
            assert asked == {x.frame.id for x in turn.event.frames}


def test_the_best_generation_is_examined_not_the_last(world, rules):
    """The error grows from the second generation on."""

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Trained) and event.generation > 1:
            worse = replace(event.evaluation, force_mae=9.0 + event.generation)
            return replace(event, evaluation=worse)
        return event

    begun = world.game(rules, reply=reply).play()
    assert begun.state.generations.count > 1
    assert begun.state.generations.best == 1
    assert {x.generation for x in begun.asked(Examine)} == {1}
    assert {x.model for x in begun.asked(Examine)} == {
        begun.state.generations.models[0]
    }


def test_walkers_are_independent_and_start_from_first_frames(world, rules):
    begun = world.game(rules, molecules=2).play()
    walkers = [w for x in begun.asked(Examine, piece=0) for w in x.walkers]
    assert [w.molecule for w in walkers] == [0, 1, 0]
    assert all(w.frame in begun.state.seeds[w.molecule] for w in walkers)
    assert len({w.velocities.tobytes() for w in walkers}) == 3
    assert set(begun.state.exploration.walkers) == {
        0,
        1,
        2,
        3,
    }  # explorers are left alone


def test_examined_frames_are_never_learned_and_never_paid_from_the_budget(world, rules):
    more = replace(rules, budget=Budget(cheap=40, expensive=24))
    begun = world.game(rules).play()
    frames = {x.frame.id for x in papers(begun)}
    assert begun.state.labels.used("expensive") == 12
    begun.rules = more
    begun.turn(e.Amended("more"))
    begun.play()
    assert begun.state.finished == SPENT
    assert begun.state.labels.used("expensive") == 24
    for train in begun.asked(Train):
        used = {*train.cheap, *train.expensive, *train.test, *train.heldout}
        assert not used & frames
    assert {x.number for x in begun.asked(Examine)} == {1, 2}
    again = {x.frame.id for x in papers(begun)} - frames
    assert len(again) == 5


def test_an_examination_follows_every_reason_to_end(world, rules):
    for stopping, said in [
        (StopRules(rounds=1), "1 round"),
        (StopRules(target=1.0), "target"),
        (StopRules(patience=1, improvement=0.9), "improved"),
    ]:
        begun = world.game(replace(rules, stopping=stopping)).play()
        assert said in begun.state.finished
        assert len(papers(begun)) == 5


def test_a_target_that_is_met_twice_is_examined_once_a_model(world, rules):
    begun = world.game(rules).play()
    before = len(begun.turns)
    begun.turn(e.Amended("the same"))
    begun.play()
    assert begun.state.finished == SPENT
    assert len(begun.turns) == before + 1


def test_a_campaign_that_ended_before_there_were_examinations_gets_its(world, rules):
    begun = world.game().play()
    assert begun.asked(Examine) == []
    begun.rules = rules
    begun.turn(e.Amended("a newer alloop"))
    begun.play()
    assert begun.state.finished == SPENT
    assert len(papers(begun)) == 5


def test_a_stopped_walker_gives_no_further_frame(world, rules):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Examined) and command.name == "examine/1/0/0":
            dead = replace(event.walkers[0], stopped="force")
            rest = event.walkers[1:]
            return replace(event, walkers=(dead, *rest), frames=event.frames[1:])
        return event

    begun = world.game(rules, reply=reply).play()
    (second,) = begun.asked(Examine, piece=1)
    assert [w.index for w in second.walkers] == [1]
    assert len(papers(begun)) == 3
    assert begun.state.finished == SPENT


def test_an_examination_without_a_frame_is_no_success(world, rules):
    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Examined) and alive[0] is False:
            dead = tuple(replace(x, stopped="force") for x in event.walkers)
            return replace(event, walkers=dead, frames=())
        return event

    alive = [False]
    begun = world.game(rules, reply=reply).play()
    assert "timestep" in begun.state.broken
    assert begun.state.finished.startswith(SPENT)
    alive[0] = True
    begun.turn(e.Amended("a smaller time step"))
    begun.play()
    assert (begun.state.finished, begun.state.broken) == (SPENT, None)
    assert len(papers(begun)) == 5


def test_a_lost_examination_label_is_tried_again_and_teaches_nothing(world, rules):
    def reply(command):
        if isinstance(command, LabelFrame) and command.purpose == "examination":
            bad = world.failed(command)
            return replace(bad, unlabelled=replace(bad.unlabelled, failure=TIMEOUT))
        return world.answer(command)

    from alloop.core.records import Failure

    TIMEOUT = Failure.TIMEOUT
    begun = world.game(rules, reply=reply).play()
    assert begun.state.finished == SPENT
    trained = len(begun.asked(Train))
    begun.reply = world.answer
    begun.turn(e.Retried(lost_labels(world.history(begun.turns))))
    begun.play()
    assert begun.state.finished == SPENT
    good = [
        x for x in begun.state.labels.entries() if x.purpose == "examination" and x.good
    ]
    assert len(good) == 5
    assert len(begun.asked(Train)) == trained


def test_posed_frames_are_predicted_where_they_are(world, rules):
    begun = world.game().play()
    frames = tuple(world.frame(f"posed/{i}") for i in range(3))
    begun.turn(e.Posed(frames, (0, 0, 0)))
    begun.play()
    examines = begun.asked(Examine)
    assert {x.steps for x in examines} == {0}
    assert [w.frame for x in examines for w in x.walkers] == list(frames)
    assert [x.frame for x in papers(begun)] == list(frames)
    assert begun.state.finished == SPENT


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=60, max_size=60))
def test_the_order_of_arrival_changes_nothing(world, order):
    rules = replace(world.RULES, examining=Examining(5, 100, (350.0,)))
    numbers = iter(order * 3)
    first = world.game(rules).play()
    other = world.game(rules).play(choose=lambda n: next(numbers) % n)
    assert other.state.finished == first.state.finished
    assert {x.name for x in papers(other)} == {x.name for x in papers(first)}
    assert other.state.generations.models == first.state.generations.models


def test_a_run_may_end_after_every_record(world, rules):
    """State is the fold: what is open after any prefix leads to the same end."""
    whole = world.game(rules).play()
    for length in range(1, len(whole.turns)):
        again = world.Game(rules)
        again.turns = list(whole.turns[:length])
        again.state = replay(again.turns)
        again.play()
        assert again.state.finished == whole.state.finished
        assert {x.name for x in papers(again)} == {x.name for x in papers(whole)}


def flexible(world, rules, **examining):
    """A game of three molecules, of which the first has two conformers."""
    settings = Examining(5, 100, (350.0,), **examining)
    conformers = ((world.frame("other"),), (), ())
    return world.game(
        replace(rules, examining=settings), molecules=3, conformers=conformers
    )


def test_walkers_of_flexible_molecules_move_before_their_first_frame(world, rules):
    begun = flexible(world, rules, equilibration=2).play()
    examines = begun.asked(Examine)
    assert {x.equilibration for x in examines} == {2}
    walkers = {
        piece: sum(len(x.walkers) for x in examines if x.piece == piece)
        for piece in {x.piece for x in examines}
    }
    assert walkers == {0: 3, 1: 3, 2: 3, 3: 2}
    assert len(papers(begun)) == 5
    assert begun.state.finished == SPENT
    rigid = world.game(replace(rules, examining=Examining(5, 100, (350.0,)))).play()
    assert {x.equilibration for x in rigid.asked(Examine)} == {0}


@pytest.mark.parametrize("equilibration", [0, 3])
def test_frames_beyond_md_are_asked_of_molecules_with_bonds(
    world, rules, equilibration
):
    """Of the three molecules only the third is bonded, the others are far apart."""
    begun = flexible(world, rules, equilibration=equilibration, beyond=3).play()
    beyond = begun.asked(Examine, explorer="shapes")
    md = begun.asked(Examine, explorer="md")
    assert {w.molecule for x in beyond for w in x.walkers} == {2}
    assert {x.piece for x in beyond} == set(range(1 + min(equilibration, 1)))
    assert not {x.batch for x in beyond} & {x.batch for x in md}
    first = [w for x in (*md, *beyond) if x.piece == 0 for w in x.walkers]
    assert len({w.index for w in first}) == len(first) == 6
    labels = begun.asked(LabelFrame, purpose="beyond")
    assert len(labels) == 3
    assert {x.fidelity for x in labels} == {"expensive"}
    assert len(papers(begun)) == 5
    learned = {
        x
        for train in begun.asked(Train)
        for x in (*train.cheap, *train.expensive, *train.test, *train.heldout)
    }
    assert not {x.frame.id for x in labels} & learned
    assert begun.state.labels.used("expensive") == 12
    assert begun.state.finished == SPENT


def test_examinations_with_frames_beyond_may_end_after_every_record(world, rules):
    whole = flexible(world, rules, equilibration=1, beyond=2).play()
    for length in range(len(whole.turns) - 20, len(whole.turns)):
        again = world.Game(whole.rules)
        again.turns = list(whole.turns[:length])
        again.state = replay(again.turns)
        again.play()
        assert [x.name for x in again.asked(LabelFrame, purpose="beyond")] == [
            x.name for x in whole.asked(LabelFrame, purpose="beyond")
        ]
        assert {x.name for x in papers(again)} == {x.name for x in papers(whole)}


def test_there_is_nothing_beyond_an_examination_without_bonds(world, rules):
    beyond = Examining(5, 100, (350.0,), beyond=3)
    begun = world.game(replace(rules, examining=beyond)).play()
    assert not begun.asked(Examine, explorer="shapes")
    assert not begun.asked(LabelFrame, purpose="beyond")
    assert len(papers(begun)) == 5


def stuck(world, steps, candidates=True):
    """Answers by which guard rails stop every explorer after so many steps."""

    def reply(command):
        event = world.answer(command)
        if not isinstance(event, e.Explored):
            return event
        walkers = tuple(
            replace(x, step=before.step + (steps if not before.stopped else 0))
            for x, before in zip(event.walkers, command.walkers, strict=True)
        )
        walkers = tuple(replace(x, stopped="force") for x in walkers)
        found = event.candidates if candidates else ()
        return replace(event, walkers=walkers, candidates=found, controls=())

    return reply


def test_walkers_that_get_nowhere_are_no_success(world, rules):
    begun = world.game(rules, reply=stuck(world, 0, candidates=False)).play()
    assert begun.state.exploration.round == 1
    assert begun.state.finished == begun.state.broken
    assert "timestep` (0.5 fs)" in begun.state.broken
    begun.reply = world.answer
    begun.turn(e.Amended("a smaller time step"))
    begun.play()
    assert (begun.state.finished, begun.state.broken) == (SPENT, None)


def test_a_round_that_got_nowhere_may_still_teach_but_not_twice(world, rules):
    begun = world.game(rules, reply=stuck(world, 3)).play()
    assert begun.state.exploration.round == 2
    assert "timestep" in begun.state.broken
    assert begun.asked(LabelFrame, purpose="flagged")


def test_walkers_that_walk_a_while_before_they_stop_are_ordinary(world, rules):
    begun = world.game(rules, reply=stuck(world, 30)).play()
    assert begun.state.finished
    assert begun.state.broken is None


@pytest.mark.parametrize(
    ("errors", "best"),
    [
        ((), 2),
        ((0.3, 0.2), 2),
        ((0.2, 0.3), 1),
        ((0.2, 0.2), 2),
        ((0.2, float("nan")), 1),
        ((float("nan"), float("nan")), 2),
    ],
)
def test_the_best_generation_errs_least(errors, best):
    assert (
        LoopState(
            generations=Generations(errors=errors, models=("a", "b"))
        ).generations.best
        == best
    )


def test_cpu_hours_leave_room_for_the_examination(world, rules):
    hours = 60.0 / 3600  # 3 labels of 20 s, less than the examination takes
    costs = {
        x: world.cost(x, s) for x, s in zip(world.LEVELS.values(), (1, 20), strict=True)
    }

    def reply(command):
        event = world.answer(command)
        return replace(event, costs=costs) if isinstance(event, e.Priced) else event

    poor = replace(rules, budget=Budget(20, 12, cpu_hours=hours * 5))
    rich = replace(poor, examining=Examining())
    spent = [world.game(x, reply=reply).play().state.labels for x in (poor, rich)]
    assert spent[0].used("expensive") < spent[1].used("expensive")
