"""Reaction paths that a campaign remembers, follows and ends."""

from dataclasses import replace

import pytest

from alloop.core.records import STATIONARY, MinimumPath
from alloop.loop.commands import Explore
from alloop.md.path_explorer import PathExplorerSettings


def looking(world, *, off=0.0):
    """Answers in which one path is found in each batch; its top surprises little.

    off: error of the energy of the top, eV.
    """

    def reply(command):
        event = world.answer(command)
        if not isinstance(command, Explore) or command.explorer != "paths":
            return event
        top, *others = (replace(x, explorer="paths") for x in event.candidates)
        energy = top.energy + off  # that of the expensive level was right
        top = replace(top, origin=STATIONARY, surprise=0.0, energy=energy)
        followed = [x for x in command.paths if not x.is_done(0.01)]
        path = MinimumPath(
            molecule=0,
            lowest=command.walkers[0].frame,
            minimum=followed[0].minimum if followed else top.frame,
            top=top.frame.id,
            energy=top.energy,
            surprising=0,
        )
        return replace(
            event,
            walkers=(),
            candidates=(top, *others),
            controls=(),
            explorer="paths",
            paths=(*(x for x in command.paths if x not in followed), path),
        )

    return reply


@pytest.fixture
def rules(world):
    budget = replace(world.RULES.budget, cheap=60, expensive=40)
    explorers = {"paths": PathExplorerSettings(share=0.3)}
    return replace(world.RULES, every=10, budget=budget, explorers=explorers)


def test_the_top_of_a_path_gets_both_labels_though_it_surprises_least(world, rules):
    game = world.game(rules, reply=looking(world)).to("train", generation=1)
    tops = {path.top for path in game.state.exploration.all_paths}
    assert len(tops) == 2  # of two batches
    labels = {(x.frame, x.fidelity) for x in game.state.labels.entries()}
    assert all((top, at) in labels for top in tops for at in ("cheap", "expensive"))


@pytest.mark.parametrize(("off", "done"), [(0.0, True), (0.005, True), (0.02, False)])
def test_a_path_is_done_when_the_label_of_its_top_agrees(world, rules, off, done):
    game = world.game(rules, reply=looking(world, off=off)).to("train", generation=1)
    for path in game.state.exploration.all_paths:
        assert path.error == pytest.approx(-off)
        assert path.is_done(0.01) == done
        assert not replace(path, surprising=1).is_done(0.01)
        assert not replace(path, error=None).is_done(0.01)


def test_paths_are_remembered_in_the_next_round(world, rules):
    game = world.game(rules, reply=looking(world, off=0.02))
    game.play(lambda g: g.state.exploration.round == 2)
    first, second = (
        [x for x in game.asked(Explore, round=n) if x.explorer == "paths"]
        for n in (1, 2)
    )
    assert not any(x.paths for x in first)
    assert [len(x.paths) for x in second] == [2, 0]  # the first batch has all of them
    assert all(path.error is not None for path in second[0].paths)


def test_the_order_of_answers_does_not_matter(world, rules):
    games = [
        world.game(rules, reply=looking(world)).play(
            lambda g: g.state.exploration.round == 3, choose
        )
        for choose in (lambda _: 0, lambda count: count - 1)
    ]
    first, second = (
        [(x.top, x.error) for x in game.state.exploration.all_paths] for game in games
    )
    assert first == second != []
