"""Records that older alloops wrote are read as if they had been written today."""

from dataclasses import replace

import pytest

from alloop.core.errors import DamagedError
from alloop.history.journal_codec import CODEC, identical_commands
from alloop.loop import events as e
from alloop.loop.commands import (
    Examine,
    Explore,
    Sample,
    TrainPart,
    moved_walkers,
    with_walkers,
)
from alloop.loop.rules import Examining, SplitRules

_ADDED = {"round", "number", "batch", "piece", "generation", "part"}  # to events
_EVENTS = (e.Explored, e.Examined, e.PartTrained)


def older(record):
    """The record as alloop wrote it before walkers had a temperature."""
    encoded = CODEC.encode(record)

    def turned(tree):
        if isinstance(tree, list):
            return [turned(x) for x in tree]
        if not isinstance(tree, dict):
            return tree
        fields = {key: turned(x) for key, x in tree.items()}
        if tree.get("#") == "Walker":
            del fields["temperature"]
        if tree.get("#") in {x.__name__ for x in _EVENTS}:
            fields = {k: x for k, x in fields.items() if k not in _ADDED}
            fields["name"] = record.event.name
        return fields

    return replace(encoded, tree=turned(encoded.tree))


@pytest.fixture
def turns(world):
    rules = replace(
        world.RULES,
        exploring=replace(world.RULES.exploring, temperatures=(300.0, 700.0)),
        examining=Examining(8, 100, (350.0, 600.0)),
        split=SplitRules(),
    )
    return world.game(rules, molecules=2).play()


def test_events_have_the_fields_that_their_names_once_held(turns):
    kinds = set()
    for turn in turns.turns:
        if isinstance(turn.event, _EVENTS):
            kinds.add(type(turn.event))
            event = CODEC.decode(older(turn)).event
            assert event.name == turn.event.name
            names = _ADDED & set(type(event).__dataclass_fields__)
            assert all(getattr(event, x) == getattr(turn.event, x) for x in names)
    assert kinds == set(_EVENTS)


def test_a_name_that_is_none_is_damage(turns):
    turn = next(x for x in turns.turns if isinstance(x.event, e.Explored))
    encoded = older(turn)
    encoded.tree["event"]["name"] = "explore/1/one/0"
    with pytest.raises(DamagedError, match="content is not that of a record"):
        CODEC.decode(encoded)


def test_walkers_without_a_temperature_get_it_by_the_rules(turns):
    molecules = len(turns.state.start)
    kinds = set()
    for turn in turns.turns:
        for now, then in zip(
            turn.commands, CODEC.decode(older(turn)).commands, strict=True
        ):
            walkers = moved_walkers(then)
            assert all(x.temperature is None for x in walkers)
            assert identical_commands(now, then)
            if isinstance(now, Explore | Examine):
                kinds.add(type(now))
                again = turns.rules.with_temperatures(then, molecules)
                assert None not in {x.temperature for x in moved_walkers(again)}
                assert identical_commands(again, now)
    assert kinds == {Explore, Examine}


def test_walkers_at_other_temperatures_make_another_command(turns):
    command = turns.asked(Explore)[0]
    walkers = [replace(x, temperature=1.0) for x in command.walkers]
    assert not identical_commands(command, with_walkers(command, walkers))


def test_an_examination_held_the_temperatures_of_its_walkers(turns):
    command = turns.asked(Examine)[0]
    encoded = older(e.Turn(e.Amended(""), (command,)))
    (tree,) = encoded.tree["commands"]
    tree |= {"temperature": 1.0, "temperatures": [2.0, 3.0]}
    (several,) = CODEC.decode(encoded).commands
    assert [x.temperature for x in several.walkers] == [
        3.0 if x.index % 2 else 2.0 for x in command.walkers
    ]
    tree |= {"temperature": 1.0, "temperatures": []}
    (one,) = CODEC.decode(encoded).commands
    assert {x.temperature for x in one.walkers} == {1.0}


def test_validation_walkers_have_the_temperatures_of_their_molecule_in_turn(turns):
    (command, *_) = turns.asked(Sample)
    walker = replace(command.walker, index=3_000_001, temperature=None)
    old = replace(command, walker=walker)
    assert turns.rules.with_temperatures(old, 3).walker.temperature == 600.0
    part = turns.asked(TrainPart)[0]
    assert turns.rules.with_temperatures(part, 3) is part
