"""Columns that grow with the journal: as if all rows had been made at once."""

from dataclasses import replace

import numpy as np
import pytest
import zarr

from alloop.history import fold_updater
from alloop.history.column_rows import ColumnRows
from alloop.history.fold_updater import ColumnFiller, FoldUpdater
from alloop.history.reader import CODEC
from alloop.history.saved_fold import JournalFold
from alloop.loop import events as e
from alloop.loop.reducer import ATTEMPTS
from alloop.store import columns
from alloop.store.archive import Archive
from alloop.store.doctor import verify_store
from tests.history.all_tables import tables


@pytest.fixture(scope="module")
def turns(world):
    """A campaign in which labels fail, are lost and are asked for again."""
    rules = replace(world.RULES, staleness=1, recheck={"cheap": 0.1})
    game = world.game(rules, given=(world.given("a", "expensive"),)).to("flag")
    failing, lost, *_ = sorted(k for k in game.state.open if k.startswith("label"))
    asked = game.state.open[failing]
    game.turn(world.failed(asked))
    for attempt in range(1, ATTEMPTS + 1):
        game.turn(e.TaskLost(lost, attempt, "killed"))
    game.turn(e.Retried((asked,)))
    game.turn(e.Excluded(asked.frame.id, None, "odd"))
    return game.play().turns


@pytest.fixture
def store(turns, tmp_path):
    """A store of these turns, without columns."""
    with Archive.create(tmp_path / "a.zarr", attrs={}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
    return tmp_path / "a.zarr"


def check(world, path, turns):
    """The columns of a store are those of a history of these turns."""
    shown = zarr.open_group(path, mode="r")
    for name, table in tables(world.history(turns)).items():
        home = shown[name]
        if name == "walkers":
            (_, home), *_ = home.groups()
        for key, array in table.items():
            np.testing.assert_array_equal(home[key][:], array, err_msg=f"{name}/{key}")
    assert columns.appendable_record(path) == len(turns) - 1


def follow(archive, turns, every=10**9):
    """Follow the turns, and fill after every so many."""
    known = JournalFold()
    filler = ColumnFiller(archive, known.seq, known.state)
    for number, turn in enumerate(turns, 1):
        known.add_turn(turn)
        filler.add_turn(turn, known.state)
        if number % every == 0:
            filler.fill_columns()
    filler.fill_columns()


def test_columns_filled_piece_by_piece_are_those_of_the_whole(world, turns, store):
    with Archive.open(store, CODEC, "w") as archive:
        follow(archive, turns, every=len(turns) // 3)
    check(world, store, turns)
    assert verify_store(store, CODEC) == []


def test_a_new_driver_adds_only_what_is_new(world, turns, store, monkeypatch):
    cut = len(turns) // 2
    with Archive.open(store, CODEC, "w") as archive:
        follow(archive, turns[:cut])
        monkeypatch.setattr(
            ColumnFiller, "_rebuild", lambda _: pytest.fail("made anew")
        )
        keeper = FoldUpdater(archive)
        keeper.compact()
        keeper.compact()
    check(world, store, turns)
    with Archive.open(store, CODEC, "w") as archive:
        assert world.same(FoldUpdater(archive).fold, keeper.fold)


def test_the_fold_that_a_driver_keeps_spares_the_next_one_the_replay(
    world, store, monkeypatch
):
    with Archive.open(store, CODEC, "w") as archive:
        keeper = FoldUpdater(archive)
        keeper.close()
    monkeypatch.setattr(JournalFold, "add_turn", lambda *_: pytest.fail("replayed"))
    with Archive.open(store, CODEC, "w") as archive:
        assert world.same(FoldUpdater(archive).fold, keeper.fold)


@pytest.mark.parametrize("name", ["structures/id", "labels/cheap/energy"])
def test_damaged_columns_are_made_anew_in_pieces(
    world, turns, store, monkeypatch, name
):
    monkeypatch.setattr(fold_updater, "_PIECE", len(turns) // 2 + 1)
    with Archive.open(store, CODEC, "w") as archive:
        follow(archive, turns[:-9])
        chunk = next((store / name).glob("c.*"))
        chunk.write_bytes(chunk.read_bytes()[:-1])
        FoldUpdater(archive).compact()
    check(world, store, turns)


def test_columns_that_know_less_or_more_than_the_fold_are_made_anew(
    world, turns, store
):
    with Archive.open(store, CODEC, "w") as archive:
        FoldUpdater(archive).close()
        known = tables(world.history(turns))
        columns.clear_columns(archive)
        columns.fill_columns(archive, lambda _: known, len(turns) + 5)
        FoldUpdater(archive).compact()
        check(world, store, turns)
        columns.clear_columns(archive)
        FoldUpdater(archive).compact()
    check(world, store, turns)


def test_rows_of_a_turn_that_was_cut_short_are_made_anew(
    world, turns, store, monkeypatch
):
    def cut_short(*_):
        raise KeyboardInterrupt

    with Archive.open(store, CODEC, "w") as archive:
        known = JournalFold()
        filler = ColumnFiller(archive, known.seq, known.state)
        for turn in turns[:-1]:
            known.add_turn(turn)
            filler.add_turn(turn, known.state)
        with monkeypatch.context() as patch:
            patch.setattr(ColumnRows, "_add_event", cut_short)
            with pytest.raises(KeyboardInterrupt):
                filler.add_turn(turns[-1], known.state)
        filler.fill_columns()
    check(world, store, turns)
