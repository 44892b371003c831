"""The fold that a driver keeps: fold and rest make what a full replay makes."""

from dataclasses import replace

import grimp
import numpy as np
import pytest

from alloop.core.doubts import KEY
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.history import saved_fold
from alloop.history.column_check import check_columns
from alloop.history.column_labels import read_labels
from alloop.history.fold_updater import FoldUpdater
from alloop.history.reader import CODEC, read_history
from alloop.history.saved_fold import JournalFold
from alloop.loop import events as e
from alloop.loop.reducer import ATTEMPTS
from alloop.loop.rules import SplitRules
from alloop.store.archive import Archive


@pytest.fixture(scope="module")
def turns(world):
    """A campaign with all that can happen to a label, and several changes by hand."""

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Labelled) and command.purpose == "bias":
            details = {KEY: "instability", "gap": float("inf"), "cycles": 9}
            stress = np.arange(6.0) / 7.0
            label = replace(event.label, energy=-0.0, details=details, stress=stress)
            return replace(event, label=label, cached=True)
        return event

    rules = replace(
        world.RULES, staleness=1, recheck={"cheap": 0.1}, split=SplitRules()
    )
    game = world.game(
        rules, molecules=2, reply=reply, given=(world.given("a", "expensive"),)
    )
    game = game.to("flag")
    failing, lost, *_ = sorted(k for k in game.state.open if k.startswith("label"))
    asked = game.state.open[failing]
    game.turn(world.failed(asked))
    for attempt in range(1, ATTEMPTS + 1):
        game.turn(e.TaskLost(lost, attempt, "killed"))
    game.turn(e.Retried((asked,)))
    game.turn(e.Excluded(asked.frame.id, "cheap", "odd"))
    game.turn(e.Amended("name: other", ("name",)))
    return game.play().turns


def test_the_campaign_of_these_tests_measures_its_split(turns):
    assert _replayed(turns).state.generations.part_errors


def _replayed(turns):
    known = JournalFold()
    for turn in turns:
        known.add_turn(turn)
    return known


def test_fold_and_rest_are_a_full_replay_at_every_cut(world, turns):
    whole = _replayed(turns)
    for cut in range(len(turns) + 1):
        before = _replayed(turns[:cut])
        again = saved_fold.fold_from_bytes(before.seq, saved_fold.fold_to_bytes(before))
        assert world.same(again, before), cut
        for turn in turns[cut:]:
            again.add_turn(turn)
        assert world.same(again, whole), cut


def test_a_fold_is_what_the_store_gives_back(world, turns, tmp_path):
    with Archive.create(tmp_path / "a.zarr", attrs={}, codec=CODEC) as archive:
        assert world.same(saved_fold.load_saved_fold(archive), JournalFold())
        for turn in turns:
            archive.append(turn)
        read = _replayed(stored.record for stored in archive.records())
        saved_fold.save_fold(archive, read)
        assert world.same(saved_fold.load_saved_fold(archive), read)
        assert world.same(read, _replayed(turns))


def test_a_damaged_fold_is_none(world, turns, tmp_path):
    with Archive.create(tmp_path / "a.zarr", attrs={}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
        saved_fold.save_fold(archive, _replayed(turns))
        (path,) = (archive.path / "journal" / "folds").iterdir()
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), len(data) // 20):
            spoilt = data.copy()
            spoilt[place] ^= 1
            path.write_bytes(spoilt)
            assert world.same(saved_fold.load_saved_fold(archive), JournalFold())
        path.write_bytes(b"")
        assert world.same(saved_fold.load_saved_fold(archive), JournalFold())


def test_a_fold_of_other_code_is_none(world, turns, tmp_path, monkeypatch):
    with Archive.create(tmp_path / "a.zarr", attrs={}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
        saved_fold.save_fold(archive, _replayed(turns))
        monkeypatch.setattr(saved_fold, "fold_version", lambda: "of other code")
        assert world.same(saved_fold.load_saved_fold(archive), JournalFold())


def test_a_forged_fold_is_not_believed_and_the_doctor_names_it(
    world, turns, tmp_path, monkeypatch
):
    path = tmp_path / "a.zarr"
    attrs = {"name": "a", "config": "name: a"}
    with Archive.create(path, attrs=attrs, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
        updater = FoldUpdater(archive)
        updater.compact()
    assert check_columns(path) == []
    energies = {
        key: label.energy
        for key, label in read_history(path).label_index.labels.items()
        if isinstance(label, Label)
    }
    fold = _replayed(turns)
    labels = fold.label_index.labels
    for key in energies:
        labels[key] = replace(labels[key], energy=energies[key] + 5)
    with monkeypatch.context() as patch, Archive.open(path, CODEC, "w") as archive:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "of a stranger"))
        saved_fold.save_fold(archive, fold)
        assert saved_fold.load_saved_fold(archive).seq >= 0
    found = read_history(path).label_index.labels
    assert {key: found[key].energy for key in energies} == energies
    (finding,) = check_columns(path)
    assert finding.where == "fold driver"
    assert "not what the journal says" in finding.what


def test_a_fold_is_made_by_the_packages_whose_hash_is_its_version():
    graph = grimp.build_graph("alloop", exclude_type_checking_imports=True)
    modules = graph.find_upstream_modules("alloop.history.saved_fold")
    others = {x for x in modules if x.split(".")[1] not in saved_fold._MADE_OF}
    # They name places and contents of files, and are not in a fold.
    assert others == {
        "alloop.files.targets",
        "alloop.models.checkpoint",
        "alloop.models.private_folder",
    }


def test_the_ledger_keeps_no_record_alive_for_the_forces_in_it(turns, tmp_path):
    with Archive.create(tmp_path / "a.zarr", attrs={}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
        label_index = _replayed(
            stored.record for stored in archive.records()
        ).label_index
    labels = [x for x in label_index.labels.values() if isinstance(x, Label)]
    assert labels
    assert all(isinstance(x.forces, np.ndarray) for x in labels)
    assert all(x.forces.base is None for x in labels)


def test_a_store_says_how_it_began_and_what_is_in_force(world, turns, tmp_path):
    path, attrs = tmp_path / "a.zarr", {"config": "name: first"}
    with Archive.create(path, attrs=attrs, codec=CODEC) as archive:
        with pytest.raises(InputError, match="no campaign yet"):
            saved_fold.campaign_beginning(path)
        archive.append(turns[0])
        assert saved_fold.campaign_beginning(path)[0] == "name: first"
        for turn in turns[1:]:
            archive.append(turn)
        for last in (None, e.Amended("name: third"), e.Forked("b", 1, 1, "name: 4")):
            if last is not None:
                archive.append(e.Turn(last))
            text, opened = saved_fold.campaign_beginning(path)
            assert text == read_history(path).config
            assert world.same(opened, turns[0].event)
            saved_fold.save_fold(
                archive, _replayed(x.record for x in archive.records())
            )
            assert saved_fold.campaign_beginning(path)[0] == text


def test_columns_alone_give_back_labels_with_their_stress(world, turns, tmp_path):
    with Archive.create(tmp_path / "x.zarr", attrs={}, codec=CODEC) as archive:
        for turn in turns:
            archive.append(turn)
        FoldUpdater(archive).fill_columns()
    rows = read_labels(tmp_path / "x.zarr", world.LEVELS)
    labels = [x.answer.label for x in rows if isinstance(x.answer, e.Labelled)]
    stressed = [x.stress for x in labels if x.stress is not None]
    assert 0 < len(stressed) < len(labels)
    for stress in stressed:
        np.testing.assert_array_equal(stress, np.arange(6.0) / 7.0)
