"""What is sent, in which order, and what is never sent."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.driver.driver import Driver
from alloop.history.record_index import LabelIndex
from alloop.labels.programs import level_cost
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Price, Recheck, Train
from alloop.loop.reducer import apply_commands
from alloop.loop.state import CampaignLabels, LoopState
from alloop.workers.pools import Task

CHEAP, EXPENSIVE = make_level("toy", {"stretch": 0.1}), make_level("toy", {})
LEVELS = {"cheap": CHEAP, "expensive": EXPENSIVE}


@dataclass
class Shelf:
    """A book and a cache in memory, and a pool that only remembers."""

    sent: list[Task] = field(default_factory=list)
    kept: dict = field(default_factory=dict)
    turns: list = field(default_factory=list)

    def append(self, turn):
        self.turns.append(turn)
        return len(self.turns) - 1

    def submit(self, task):
        self.sent.append(task)

    def next(self, _timeout):
        return None

    def get(self, where, frame):
        return self.kept.get((where, frame))

    def put(self, record):
        self.kept[record.level, record.frame] = record


def chain(atoms, shift=0.0):
    positions = np.arange(atoms)[:, None] * [1.5, 0.0, 0.0] + shift
    return Frame(np.full(atoms, 6), positions)


def asked(frame, fidelity="expensive"):
    return LabelFrame(frame, LEVELS[fidelity].id, fidelity, "seed", 0)


def start(world, shelf, commands, labels=None, costs=None):
    """Go on with a campaign that has these commands open, without turning."""
    driver = Driver(
        archive=shelf,
        label_index=labels or LabelIndex(),
        rules=world.RULES,
        pool=shelf,
        levels=LEVELS,
        caches=(shelf,),
        stop=lambda: True,
    )
    levels = {name: each.id for name, each in LEVELS.items()}
    priced = CampaignLabels(costs=costs or {})
    begun = LoopState(stage="seed", levels=levels, labels=priced)
    state = apply_commands(begun, commands)
    driver.run(state)
    return driver


def label(frame, where=EXPENSIVE, seconds=1.0):
    forces = np.zeros((len(frame), 3))
    return Label(frame.id, where.id, -1.0, forces, cpu_seconds=seconds)


def test_before_any_price_expensive_labels_go_first_then_large_molecules(world):
    shelf = Shelf()
    frames = [chain(3), chain(9), chain(6)]
    commands = [asked(x, y) for y in ("cheap", "expensive") for x in frames]
    start(world, shelf, commands)
    sent = [(x.command.fidelity, len(x.command.frame)) for x in shelf.sent]
    assert sent == [(y, n) for y in ("expensive", "cheap") for n in (9, 6, 3)]


def test_once_priced_the_longest_label_goes_first_and_names_break_ties(world):
    """Here the small molecule is the expensive one."""
    shelf = Shelf()
    small, large = chain(3), chain(9)
    paid = [(small, label(small, seconds=50.0)), (large, label(large, seconds=2.0))]
    costs = {EXPENSIVE.id: level_cost(EXPENSIVE, paid)}
    commands = [asked(chain(n, 0.1 * i)) for i in range(4) for n in (9, 3)]
    start(world, shelf, commands, costs=costs)
    assert [len(x.command.frame) for x in shelf.sent] == [3] * 4 + [9] * 4
    names = [x.command.name for x in shelf.sent]
    assert names == sorted(names[:4]) + sorted(names[4:])


def test_seconds_order_within_a_class_and_never_across_classes():
    def priority(command, seconds):
        return Task(command, 1, seconds=seconds).priority

    short, long = (priority(asked(chain(2)), x) for x in (0.01, 1e6))
    cheap = priority(asked(chain(2), "cheap"), 1e9)
    train = priority(Train(1, (), (), ()), 0.0)
    recheck = priority(Recheck("f", EXPENSIVE.id, "expensive"), 1e9)
    explore = priority(Explore(1, 0, 0, 1, "m", (), 1, 1, 0), 0.0)
    assert long > short > cheap > train > explore > recheck


@pytest.mark.parametrize("place", ["ledger", "cache"])
def test_what_is_known_is_not_sent(world, place):
    shelf, ledger, frame = Shelf(), LabelIndex(), chain(3)
    if place == "ledger":
        ledger.labels[EXPENSIVE.id, frame.id] = label(frame)
    else:
        shelf.put(label(frame))
    driver = start(world, shelf, [asked(frame), asked(frame, "cheap")], ledger)
    assert [x.command.fidelity for x in shelf.sent] == ["cheap"]
    (answer,) = driver._ready
    assert answer.cached


@pytest.mark.parametrize(
    ("failure", "sent"), [(Failure.GATE, 0), (Failure.TIMEOUT, 1), (Failure.MEMORY, 1)]
)
def test_only_a_refusal_that_another_try_would_meet_is_an_answer(world, failure, sent):
    shelf, ledger, frame = Shelf(), LabelIndex(), chain(3)
    refused = Unlabelled(frame.id, EXPENSIVE.id, failure)
    ledger.labels[EXPENSIVE.id, frame.id] = refused
    start(world, shelf, [asked(frame)], ledger)
    assert len(shelf.sent) == sent


@pytest.mark.parametrize(
    ("failure", "kept"),
    [
        (Failure.NOT_CONVERGED, True),
        (Failure.UNSTABLE, True),
        (Failure.TIMEOUT, False),
        (Failure.MEMORY, False),
        (Failure.CRASHED, False),
        (Failure.LOST, False),
    ],
)
def test_failures_that_may_pass_are_not_put_into_a_cache(world, failure, kept):
    shelf, frame = Shelf(), chain(3)
    command = asked(frame)
    driver = start(world, shelf, [command])
    state = apply_commands(LoopState(stage="seed"), [command, asked(chain(4))])
    refused = Unlabelled(frame.id, EXPENSIVE.id, failure)
    driver.turn(state, e.NotLabelled(command.name, refused))
    assert (shelf.get(EXPENSIVE.id, frame.id) is not None) == kept


def test_prices_are_answered_from_labels_made_here_and_no_others(world):
    shelf, ledger = Shelf(), LabelIndex()
    made, cached = chain(3), chain(3, 0.5)
    commands = (asked(made), asked(cached))
    ledger.add_turn(e.Turn(e.Amended(""), commands))
    first, second = (command.name for command in commands)
    ledger.add_turn(e.Turn(e.Labelled(first, label(made, seconds=8.0))))
    other = label(cached, seconds=800.0)
    ledger.add_turn(e.Turn(e.Labelled(second, other, cached=True)))
    driver = start(world, shelf, [Price(1)], ledger)
    (priced,) = driver._ready
    assert shelf.sent == []
    assert set(priced.costs) == {EXPENSIVE.id}
    assert priced.costs[EXPENSIVE.id].labels == 1
    assert priced.costs[EXPENSIVE.id].seconds(cached) == pytest.approx(8.0, rel=0.2)


def test_a_recheck_travels_with_its_frame_and_label(world):
    shelf, ledger, frame = Shelf(), LabelIndex(), chain(3)
    ledger.frames[frame.id] = frame
    known = label(frame)
    ledger.labels[EXPENSIVE.id, frame.id] = known
    start(world, shelf, [Recheck(frame.id, EXPENSIVE.id, "expensive")], ledger)
    (task,) = shelf.sent
    assert task.data.frame == frame
    assert task.data.label is known
    assert task.seconds > 0


def test_prices_reach_the_state_through_the_journal_alone(world):
    begun = world.game().to("train")
    (price,) = begun.asked(Price)
    costs = {world.LEVELS["cheap"]: world.cost(world.LEVELS["cheap"], 3.0)}
    begun.turn(e.Priced(price.name, costs))
    assert begun.state.labels.costs == costs
    assert price.name not in begun.state.open
