"""A fixed lag between labels and exploration: what runs beside what, and that no order
of answers, no loss and no kill changes what is decided."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise

import numpy as np
import psutil
import pytest

from alloop import Campaign
from alloop.core.frame import Frame
from alloop.core.records import Failure, Unlabelled
from alloop.history.label_entries import lost_labels
from alloop.history.reader import read_history
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Recheck, Train
from alloop.loop.reducer import ATTEMPTS
from alloop.loop.rules import Budget, StopRules
from benchmarks.durability.comparison import campaign_contents
from tests.conftest import replay, write_toy

pytestmark = pytest.mark.usefixtures("uncovered")

SPENT = "the budget of expensive labels is spent"
LAGS = (0, 1, 2)
_MORE = (pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 60))
SEEDS = pytest.mark.parametrize("seed", [*range(2), *_MORE])


@pytest.fixture(scope="module")
def long(world):
    """Rules of a campaign of five rounds, by lag."""
    budget = Budget(cheap=40, expensive=20)
    noise = {"cheap": 0.1, "expensive": 0.3}
    return lambda lag, **facts: replace(
        world.RULES, budget=budget, recheck=noise, staleness=lag, **facts
    )


@pytest.fixture(scope="module")
def telling(world):
    """Answers that tell generations apart, a few failures, and prices of what was
    asked for: whatever depends on "the newest" shows."""

    def reply(command):
        event = world.answer(command)
        match event:
            case e.Trained(generation=number):
                rng = np.random.default_rng(number)
                marks = rng.normal(size=(4, 3))
                return replace(event, threshold=0.3 + 0.05 * number, landmarks=marks)
            case e.Labelled() if int(command.frame.id, 16) % 11 == 0:
                return world.failed(command)
            case e.Priced():
                seconds = zip(world.LEVELS.values(), (1.0, 20.0), strict=True)
                costs = {x: world.cost(x, s + command.generation) for x, s in seconds}
                return replace(event, costs=costs)
        return event

    return reply


def plain(fact):
    """A fact as text to the last bit, whatever the order in which its parts came."""
    if isinstance(fact, Frame):
        return fact.id
    if isinstance(fact, np.ndarray):
        return fact.tobytes().hex()
    if is_dataclass(fact):
        parts = [
            plain(getattr(fact, each.name)) for each in fields(fact) if each.compare
        ]
        return f"{type(fact).__name__}{parts}"
    if isinstance(fact, Mapping):
        return str(sorted((repr(key), plain(value)) for key, value in fact.items()))
    if isinstance(fact, set | frozenset):
        return str(sorted(map(plain, fact)))
    if isinstance(fact, tuple):
        return str([plain(part) for part in fact])
    return repr(fact)


def outcome(game):
    """All commands, how often each was sent, and the end."""
    asked = Counter(plain(x) for turn in game.turns for x in turn.commands)
    blocks = [sorted(map(plain, block.entries)) for block in game.state.labels.blocks]
    recent = sorted(map(plain, game.state.labels.recent))
    return (
        asked,
        blocks,
        recent,
        plain(
            replace(game.state, labels=replace(game.state.labels, blocks=(), recent=()))
        ),
    )


def shuffled(game, rng):
    """Answer in any order; a few tasks take so long that many others overtake them."""
    due, now = {}, 0.0
    while game.state.open:
        for name in sorted(set(game.state.open) - set(due)):
            due[name] = now + rng.exponential() * rng.choice([1, 1, 30])
        name = min(game.state.open, key=due.__getitem__)
        now = due.pop(name)
        game.turn(game.reply(game.state.open[name]))
    return game


def slowly(game, kind, until=lambda _: False):
    """Answer tasks of this kind only where nothing else is open."""
    while game.state.open and not until(game):
        step(game, kind)
    return game


def step(game, kind):
    names = sorted(game.state.open, key=lambda name: (name.startswith(kind), name))
    game.turn(game.reply(game.state.open[names[0]]))


@pytest.mark.parametrize("lag", LAGS)
def test_only_the_training_that_ends_the_campaign_is_longer(world, long, lag):
    begun = shuffled(
        world.game(replace(long(lag), last=3.0)), np.random.default_rng(lag)
    )
    lengths = {x.generation: x.length for x in begun.asked(Train)}
    last = max(lengths)
    assert last >= 4
    assert lengths == {n: 3.0 if n == last else 1.0 for n in range(1, last + 1)}


@pytest.mark.parametrize("lag", LAGS)
def test_a_round_explores_on_the_generation_that_is_its_lag_behind(world, long, lag):
    begun = slowly(world.game(long(lag)), "train")
    used = {x.round: (x.generation, x.model) for x in begun.asked(Explore)}
    models = [t.event.model for t in begun.turns if isinstance(t.event, e.Trained)]
    assert len(used) >= 4
    assert used == {r: (max(1, r - lag), models[max(1, r - lag) - 1]) for r in used}


@pytest.mark.parametrize("lag", LAGS)
def test_the_last_generation_has_learned_every_label(world, long, telling, lag):
    begun = slowly(world.game(long(lag), reply=telling), "train")
    assert begun.state.finished == SPENT
    assert not begun.state.open
    last = begun.asked(Train)[-1]
    assert last.expensive == begun.state.labels.trained_on("expensive")
    assert last.cheap == begun.state.labels.trained_on("cheap")
    assert (
        begun.state.generations.count
        == last.generation
        == begun.state.exploration.round + 1
    )


@pytest.mark.parametrize("lag", LAGS)
def test_lag_many_trainings_wait_or_run_beside_a_round(world, long, lag):
    """As many generations are under way as the lag allows, where training is slow."""
    begun = world.game(long(lag))
    ahead = []
    while begun.state.open:
        step(begun, "train")
        ahead.append(begun.state.generations.labelled - begun.state.generations.count)
        trains = [x for x in begun.state.open.values() if isinstance(x, Train)]
        assert len(trains) <= 1
        if lag == 0 and trains:
            assert begun.state.stage == "train"
    assert max(ahead) == lag + 1


@pytest.mark.parametrize("lag", LAGS)
def test_each_generation_learns_from_its_parent_and_the_rounds_before_it(
    world, long, lag
):
    quick = world.game(long(0)).play()
    begun = slowly(world.game(long(lag)), "train")
    trains = begun.asked(Train)
    parents = [train.parent for train in trains]
    models = [t.event.model for t in begun.turns if isinstance(t.event, e.Trained)]
    assert parents == [None, *models[:-1]]
    for one, other in pairwise(trains):
        assert set(one.expensive) < set(other.expensive)
    counts = [len(x.expensive) for x in trains]
    assert counts == [len(x.expensive) for x in quick.asked(Train)]


@pytest.mark.parametrize("lag", LAGS)
@SEEDS
def test_no_order_of_answers_changes_a_command_or_the_end(
    world, long, telling, lag, seed
):
    selection = ("flagged", "random")[seed % 2]
    rules = long(lag, selection=selection, stopping=StopRules(patience=3))
    one = slowly(world.game(rules, 2, telling), "train")
    other = shuffled(world.game(rules, 2, telling), np.random.default_rng(seed))
    assert outcome(other) == outcome(one)


@pytest.mark.parametrize("lag", LAGS)
@SEEDS
def test_kills_and_lost_tasks_at_any_time_change_nothing(
    world, long, telling, lag, seed
):
    """A kill leaves a prefix of the journal; its open commands are sent again. A lost
    task is tried again."""
    rng = np.random.default_rng(seed)
    calm = world.game(long(lag), reply=telling).play()
    rough = world.game(long(lag), reply=telling)
    while rough.state.open:
        pending = [rough.state.open[name] for name in sorted(rough.state.open)]
        command = pending[rng.integers(len(pending))]
        tried = rough.state.attempts.get(command.name, 0)
        if rng.random() < 0.1:
            rough.state = replay(rough.turns)
        elif tried < ATTEMPTS - 1 and rng.random() < 0.2:
            again = rough.turn(e.TaskLost(command.name, tried + 1, "killed"))
            assert again == (command,)
        else:
            rough.turn(telling(command))
    rough.state = replace(rough.state, attempts={})
    asked, *end = outcome(rough)
    assert (Counter(set(asked)), *end) == outcome(calm)


@pytest.mark.parametrize("lag", LAGS)
def test_every_prefix_of_a_journal_goes_on_to_the_same_end(world, long, telling, lag):
    whole = slowly(world.game(long(lag), reply=telling), "train")
    expected = outcome(whole)
    for cut in range(1, len(whole.turns), 7):
        begun = world.Game(long(lag), telling)
        begun.turns = whole.turns[:cut]
        begun.state = replay(begun.turns)
        assert outcome(begun.play()) == expected


@pytest.mark.parametrize("lag", LAGS)
def test_frames_are_chosen_with_the_threshold_of_the_generation_that_explored(
    world, long, telling, lag
):
    """Even where newer ones are trained by the time of the choice."""
    begun = world.game(long(lag), reply=telling)
    while begun.state.open:
        names = sorted(begun.state.open, key=lambda x: (x[:5] != "train", x))
        begun.turn(telling(begun.state.open[names[0]]))
        if begun.state.stage in ("explore", "flag", "bias"):
            used = max(1, begun.state.exploration.round - lag)
            assert begun.state.exploration.threshold == 0.3 + 0.05 * used
            assert min(begun.state.generations.summaries) == used
            assert len(begun.state.generations.summaries) <= lag + 1


@pytest.mark.parametrize("lag", LAGS)
def test_the_target_is_asked_of_generations_that_any_order_has_trained(
    world, long, lag
):
    """Generation 3 meets the target; its error is known `lag` rounds later."""

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Trained):
            error = 0.01 if event.generation == 3 else 1.0
            told = replace(event.evaluation, force_mae=error)
            return replace(event, evaluation=told)
        return event

    rules = long(lag, stopping=StopRules(target=0.02), every=2)
    rounds = set()
    for slow in ("train", "label"):
        begun = slowly(world.game(rules, reply=reply), slow)
        assert begun.state.finished.startswith("the target is met")
        rounds.add(begun.state.exploration.round)
    assert rounds == {2 + lag}


@pytest.mark.parametrize("lag", LAGS)
def test_rechecks_do_not_hold_up_a_round_unless_rounds_are_barriers(world, long, lag):
    only = lambda g: all(name.startswith("recheck") for name in g.state.open)  # noqa: E731
    begun = slowly(world.game(long(lag)), "recheck", until=only)
    assert begun.asked(Recheck)
    assert (begun.state.exploration.round > 1) == (lag > 0)
    begun.play()
    assert begun.state.finished == SPENT


@SEEDS
def test_the_lag_may_change_at_any_time(world, long, telling, seed):
    """No generation goes back in time, none is used before it is trained, the budget is
    spent, every label is learned."""
    rng = np.random.default_rng(seed)
    begun = world.game(long(0), reply=telling)
    while begun.state.open:
        if rng.random() < 0.1:
            begun.rules = long(int(rng.integers(4)))
            begun.turn(e.Amended("staleness"))
        else:
            names = sorted(begun.state.open)
            name = names[rng.integers(len(names))]
            begun.turn(telling(begun.state.open[name]))
        for explore in begun.asked(Explore)[-1:]:
            assert explore.generation <= begun.state.generations.count
    assert begun.state.finished == SPENT
    used = [x.generation for x in begun.asked(Explore)]
    assert used == sorted(used)
    by_round = {(x.round, x.generation) for x in begun.asked(Explore)}
    assert len(by_round) == begun.state.exploration.round
    assert begun.asked(Train)[-1].expensive == begun.state.labels.trained_on(
        "expensive"
    )


@pytest.mark.parametrize("lag", LAGS)
def test_more_budget_goes_on_as_if_it_had_been_there_before(world, long, lag):
    """The next round explores the lag behind, though newer generations are there."""
    rich = long(lag)
    begun = world.game(replace(rich, budget=Budget(cheap=24, expensive=11))).play()
    rounds = begun.state.exploration.round
    begun.rules = rich
    begun.turn(e.Amended("budget"))
    begun.play()
    explore = begun.asked(Explore, round=rounds + 1)[0]
    assert explore.generation == max(1, rounds + 1 - lag)
    assert begun.state.finished == SPENT
    assert begun.state.labels.used("expensive") == 20


@pytest.mark.parametrize("lag", LAGS)
@SEEDS
def test_a_retry_has_all_for_itself_and_no_order_changes_what_follows(
    world, long, lag, seed
):
    instant = int(np.random.default_rng(seed).integers(12, 110))
    first = world.game(long(lag)).to("train")
    names = [x.name for x in first.asked(LabelFrame, purpose="seed")][::2]

    def play(choose):
        """Lose labels, ask again after the same events, answer in some order."""
        missing = set(names)

        def reply(command):
            if command.name in missing:
                missing.discard(command.name)
                known = (command.frame.id, command.level, Failure.TIMEOUT)
                return e.NotLabelled(command.name, Unlabelled(*known))
            return world.answer(command)

        begun = world.game(long(lag), reply=reply)
        begun.play(lambda g: len(g.turns) >= instant)
        labels = lost_labels(world.history(begun.turns))
        begun.turn(e.Retried(labels))
        while begun.state.open:
            again = set(begun.state.open) & {x.name for x in labels}
            assert not again or again == set(begun.state.open)
            open_ = sorted(begun.state.open)
            begun.turn(reply(begun.state.open[open_[choose(len(open_))]]))
        return begun

    rng = np.random.default_rng(seed)
    one, other = play(lambda _: 0), play(lambda n: int(rng.integers(n)))
    assert outcome(one) == outcome(other)
    assert one.state.finished == SPENT
    assert one.asked(Train)[-1].expensive == one.state.labels.trained_on("expensive")


@pytest.mark.parametrize("lag", LAGS)
def test_a_frame_excluded_while_a_lesson_waits_is_not_learned(world, long, lag):
    begun = world.game(long(lag))
    while begun.state.exploration.round < lag + 2:
        step(begun, "train")
    victim = begun.asked(Train)[0].expensive[0]
    asked = len(begun.asked(Train))
    begun.turn(e.Excluded(victim, None, "odd"))
    begun.play()
    later = begun.asked(Train)[asked:]
    assert later
    assert not any(victim in {*x.cheap, *x.expensive} for x in later)


BURN = {"burn": 0.05}  # CPU seconds a label, so that kills meet work
TOY = {
    "levels": {
        "cheap": {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, **BURN},
        "expensive": {"kind": "toy", **BURN},
    },
    "training": {"kind": "asteroid", "every": 4, "staleness": 1},
    "budget": {"cheap": 36, "expensive": 18},
}


def begin(file):
    command = (sys.executable, "-m", "alloop", "run", str(file), "--quiet")
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=nothing, start_new_session=True)


def grown(process, store, length):
    """Wait until the journal of a run has grown so long."""
    while process.poll() is None:
        if store.exists() and len(read_history(store).entries) >= length:
            return
        time.sleep(0.1)
    raise AssertionError(f"it ended before its journal had {length} records")


@pytest.mark.slow
def test_a_campaign_on_a_cluster_with_a_lag_survives_kills_bit_for_bit(tmp_path):
    """A worker dies, then the driver with all its processes, at random instants; what
    was never disturbed, and what goes on after, runs in one process."""
    rng = np.random.default_rng()
    Campaign.from_yaml(write_toy(tmp_path / "alone", **TOY)).run()
    alone = read_history(tmp_path / "alone/toy.zarr")
    cluster = {"kind": "local", "workers": 2}
    file = write_toy(tmp_path / "hit", **TOY, cluster=cluster)
    store = file.with_name("toy.zarr")
    process = begin(file)
    grown(process, store, int(rng.integers(5, 35)))
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    workers[rng.integers(len(workers))].kill()
    grown(process, store, int(rng.integers(40, 70)))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    Campaign.from_yaml(write_toy(tmp_path / "hit", **TOY)).run()
    assert campaign_contents(read_history(store)) == campaign_contents(alone)
    used = [x.generation for x in explorations(alone)]
    assert used == [max(1, x.round - 1) for x in explorations(alone)]


def explorations(history):
    turns = (entry.turn for entry in history.entries)
    return [x for turn in turns for x in turn.commands if isinstance(x, Explore)]
