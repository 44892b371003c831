"""What readers make of a store: with a fold or without, whole or cut short."""

import shutil
from dataclasses import replace

import pytest

from alloop.core.errors import InputError
from alloop.core.records import Failure
from alloop.history.fold_updater import FoldUpdater
from alloop.history.frame_search import find_frame
from alloop.history.label_entries import label_entries, lost_labels, task_entries
from alloop.history.measured_costs import cpu_seconds_by_part, worker_utilisation
from alloop.history.reader import CODEC, History, read_history
from alloop.history.saved_fold import load_saved_fold, save_fold
from alloop.loop import events as e
from alloop.loop.reducer import ATTEMPTS
from alloop.store import columns, packs
from alloop.store.archive import Archive

ATTRS = {"config": "name: first"}


@pytest.fixture(scope="module")
def turns(world):
    """A campaign with all that can happen to a label, and several changes by hand."""
    rules = replace(world.RULES, staleness=1, recheck={"cheap": 0.1})
    given = (world.given("a", "expensive"), world.given("t", "expensive", test=True))
    game = world.game(rules, molecules=2, given=given).to("flag")
    failing, crashing, lost_, *_ = sorted(
        k for k in game.state.open if k.startswith("label")
    )
    asked, again = game.state.open[failing], game.state.open[crashing]
    game.turn(world.failed(asked))
    crash = world.failed(again)
    passing = replace(crash.unlabelled, failure=Failure.CRASHED)
    game.turn(replace(crash, unlabelled=passing))
    for attempt in range(1, ATTEMPTS + 1):
        game.turn(e.TaskLost(lost_, attempt, "killed"))
    game.turn(e.Retried((again,)))
    game.turn(e.Excluded(asked.frame.id, "cheap", "odd"))
    game.turn(e.Amended("name: other", ("name",)))
    return game.play().turns


@pytest.fixture(autouse=True)
def small_packs(monkeypatch):
    monkeypatch.setattr(packs, "RECORDS", 16)


def made(path, turns, fold_at=0, columns_at=0):
    """A store of these turns whose fold and columns are those after so many records."""
    with Archive.create(path, attrs=ATTRS, codec=CODEC) as archive:
        for number, turn in enumerate(turns, 1):
            archive.append(turn)
            if number == fold_at:
                save_fold(archive, FoldUpdater(archive).fold)
            if number == columns_at:
                FoldUpdater(archive).fill_columns()
        assert load_saved_fold(archive).seq == fold_at - 1
        assert columns.appendable_record(path) == columns_at - 1
    return path


def said(world, history):
    """All that readers ask of a history."""
    proposed = sorted(x.name for x in task_entries(history) if x.kind == "Explored")
    return (
        *(
            list(task_entries(history)),
            cpu_seconds_by_part(history),
            worker_utilisation(history),
        ),
        *(lost_labels(history), history.config, history.opened, history.trained()),
        *(history.priced(), history.rechecked(), proposed, label_entries(history)),
        [(x.seq, x.event.model) for x in history.generations],
    )


@pytest.mark.parametrize(
    ("fold_part", "columns_part"), [(0, 0), (0.3, 0.6), (0.6, 0.3), (1, 1)]
)
def test_with_a_fold_or_without_a_store_says_the_same(
    world, turns, tmp_path, fold_part, columns_part
):
    parts = int(fold_part * len(turns)), int(columns_part * len(turns))
    store = made(tmp_path / "a.zarr", turns, *parts)
    whole = History.from_entries(store, ATTRS, world.history(turns).entries)
    history = read_history(store)
    assert world.same(said(world, history), said(world, whole))
    assert world.same(history.fold, whole.fold)
    for frame in some_frames(turns):
        one, other = find_frame(history, frame[:12]), find_frame(whole, frame[:12])
        assert world.same(one, other)


def some_frames(turns):
    """Frames with a label, frames proposed in vain, and those of the first steps."""
    explored = [x.event for x in turns if isinstance(x.event, e.Explored)]
    events = [x.event for x in turns]
    found = {x.frame.id for each in explored for x in each.candidates[:3]}
    found |= {x.frame.id for each in explored for x in each.controls}
    found |= {x.label.frame for x in events if isinstance(x, e.Labelled)}
    prepared = [x for x in events if isinstance(x, e.Prepared)]
    return sorted(found | {x.seeds[-1].id for x in prepared if x.seeds})[::5]


def test_a_store_killed_at_any_record_says_what_its_journal_says(
    world, turns, tmp_path
):
    entries = world.history(turns).entries
    for end in (20, 31, 33, 48):
        store = made(tmp_path / f"{end}.zarr", turns[:end], 20, min(end, 30))
        whole = History.from_entries(store, ATTRS, entries[:end])
        assert world.same(said(world, read_history(store)), said(world, whole)), end


def test_the_fold_of_another_journal_is_not_believed(world, turns, tmp_path):
    other = made(tmp_path / "other.zarr", turns, 40)
    for end in (30, 50):
        store = made(tmp_path / f"{end}.zarr", turns[:end])
        shutil.copytree(other / "journal" / "folds", store / "journal" / "folds")
        whole = History.from_entries(store, ATTRS, world.history(turns[:end]).entries)
        assert world.same(said(world, read_history(store)), said(world, whole))


def test_damaged_columns_mislead_nobody(world, turns, tmp_path):
    store = made(tmp_path / "a.zarr", turns, 60, 60)
    frames = some_frames(turns)[::2]
    before = [find_frame(read_history(store), frame) for frame in frames]
    for chunk in (store / "structures" / "id").glob("c.*"):
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
    assert world.same(
        [find_frame(read_history(store), frame) for frame in frames], before
    )
    shutil.rmtree(store / "scores")
    assert world.same(
        [find_frame(read_history(store), frame) for frame in frames], before
    )


def test_no_frame_and_several_are_refused(turns, tmp_path):
    for end in (0, len(turns)):
        history = read_history(made(tmp_path / f"{end}.zarr", turns, end, end))
        with pytest.raises(InputError, match="fits no frame"):
            find_frame(history, "x")
        with pytest.raises(InputError, match="fits no frame"):
            find_frame(history, "0" * 40)
        with pytest.raises(InputError, match=r"fits \d+ frames"):
            find_frame(history, "")


def test_records_are_read_when_they_are_asked_for(world, turns, tmp_path):
    entries = read_history(made(tmp_path / "a.zarr", turns)).entries
    assert len(entries) == len(turns)
    assert [entry.seq for entry in entries] == list(range(len(turns)))
    for key in (0, 17, -1):
        assert world.same(entries[key].turn, turns[key])
    for part in (slice(2, 40, 3), slice(-3, None), slice(0, 0)):
        assert world.same([x.turn for x in entries[part]], turns[part])
    with pytest.raises(IndexError):
        entries[len(turns)]


def test_a_frame_is_looked_for_in_few_records(turns, tmp_path, monkeypatch):
    history = read_history(made(tmp_path / "a.zarr", turns, len(turns), len(turns)))
    rounds = [x for x in history.record_index.tasks if x.kind == "Explored"]
    last = next(iter(history.select([rounds[-1].seq]))).turn.event
    asked: list[int] = []
    pick = History.select

    def noted(history, numbers):
        asked.extend(numbers)
        return pick(history, numbers)

    monkeypatch.setattr(History, "select", noted)
    find_frame(history, last.candidates[-1].frame.id)
    explored = {x.seq for x in rounds} & set(asked)
    requests = history.record_index.explorations
    numbers = {requests[x.name].round for x in rounds if x.seq in explored}
    assert numbers == {requests[rounds[-1].name].round}
    assert len(explored) < len(rounds)
