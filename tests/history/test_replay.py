"""What readers find by the index is what a plain replay of the journal meets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from alloop.core.records import Label
from alloop.history.label_entries import label_entries
from alloop.history.reader import CODEC, read_history
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Train
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.state import LoopState
from alloop.store.archive import Archive

KINDS = (e.Opened, e.Prepared, e.Sampled, e.Explored, e.Trained, e.Rechecked)


@pytest.fixture(scope="module")
def turns(world):
    rules = replace(world.RULES, staleness=1, recheck={"cheap": 0.1})
    game = world.game(rules, molecules=2, given=(world.given("a", "expensive"),))
    game = game.to("flag")
    failing = min(name for name in game.state.open if name.startswith("label"))
    game.turn(world.failed(game.state.open[failing]))
    return game.play().turns


@pytest.fixture(scope="module")
def history(turns, tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "a.zarr"
    with Archive.create(path, attrs={"config": "name: a"}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
    return read_history(path)


def commands_of(turns, kind):
    return [x for turn in turns for x in turn.commands if isinstance(x, kind)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_of_a_kind_are_all_of_the_journal_s_in_their_order(
    world, history, turns, kind
):
    met = [(n, x.event) for n, x in enumerate(turns) if isinstance(x.event, kind)]
    assert met
    read = [(entry.seq, event) for entry, event in history.of_kind(kind)]
    assert [number for number, _ in read] == [number for number, _ in met]
    assert world.same([event for _, event in read], [event for _, event in met])
    assert world.same(
        [x for _, x in history.of_kind(kind, 2)], [x for _, x in met[-2:]]
    )


def test_the_state_is_that_of_the_reducer_over_all_turns(world, history, turns):
    state = LoopState()
    for turn in turns:
        state = apply_commands(apply_event(state, turn.event), turn.commands)
    assert world.same(history.state, state)


def test_labels_are_the_requests_with_their_answers(history, turns):
    asked = {x.name: x for x in commands_of(turns, LabelFrame)}
    events = [x.event for x in turns if isinstance(x.event, e.Labelled | e.NotLabelled)]
    met = Counter(
        (asked[x.name].frame.id, asked[x.name].level, isinstance(x, e.Labelled))
        for x in events
    )
    made = [x for x in label_entries(history) if x.purpose != "given"]
    read = Counter((x.frame.id, x.level, isinstance(x.record, Label)) for x in made)
    assert read == met
    forces = {
        (x.label.level, x.label.frame): x.label.forces
        for x in events
        if isinstance(x, e.Labelled)
    }
    for key, answer in forces.items():
        found = history.label_index.labels[key]
        np.testing.assert_array_equal(found.forces, answer)


def test_trainings_learned_what_their_commands_name(history, turns):
    asked = {x.name: x for x in commands_of(turns, Train)}
    trained = [x.event for x in turns if isinstance(x.event, e.Trained)]
    assert [x.event.model for x in history.generations] == [x.model for x in trained]
    for training in history.record_index.trainings:
        command = asked[training.name]
        told = (training.generation, training.cheap, training.expensive)
        assert told == (
            command.generation,
            len(command.cheap),
            len(command.expensive),
        )


def test_walkers_of_the_state_are_those_of_the_last_pieces(history, turns):
    explored = [x.event for x in turns if isinstance(x.event, e.Explored)]
    last = {}
    for event in explored:
        last |= {walker.index: walker.step for walker in event.walkers}
    told = history.state.exploration.walkers
    assert {index: told[index].step for index in last} == last
    assert len(commands_of(turns, Explore)) == len(explored)
