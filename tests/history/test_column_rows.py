"""The journal as rows that others read."""

from dataclasses import replace

import numpy as np
import pytest

from alloop.core.levels import FIDELITIES
from alloop.core.records import Label
from alloop.loop import events as e
from alloop.loop.commands import LabelFrame, Recheck, Train
from alloop.loop.reducer import ATTEMPTS
from alloop.store.schema import (
    FAILURES,
    PURPOSES,
    RUNGS,
    checked_table,
    id_texts,
)
from tests.history.all_tables import tables

DETAILS = {
    "gap": 9.5,
    "t1": 0.03,
    "external": -0.1,
    "peak_mb": 133.0,
    "rung": "level shift",
    "doubts": "instability,multireference",
}
STRESS = np.arange(6.0) / 7.0


@pytest.fixture(scope="module")
def played(world):
    """A campaign of two molecules with a failure, a lost label and given ones."""
    items = (
        world.given("a", "expensive"),
        world.given("t", "expensive", test=True),
    )

    def reply(command):
        event = world.answer(command)
        if isinstance(event, e.Labelled) and command.purpose == "bias":
            label = replace(event.label, details=DETAILS, stress=STRESS)
            return replace(event, label=label)
        return event

    rules = replace(world.RULES, recheck={"cheap": 0.1, "expensive": 0.1})
    game = world.game(rules, molecules=2, reply=reply, given=items).to("flag")
    failing, lost, *_ = sorted(game.state.open)
    game.turn(world.failed(game.state.open[failing]))
    for attempt in range(1, ATTEMPTS + 1):
        game.turn(e.TaskLost(lost, attempt, "killed"))
    return game.play()


@pytest.fixture(scope="module")
def history(world, played):
    return world.history(played.turns)


@pytest.fixture(scope="module")
def rows(history):
    return tables(history)


def test_every_table_fits_the_schema(rows):
    assert set(rows) == {
        *("structures", "labels/cheap", "labels/expensive", "noise", "scores"),
        *("selections", "walkers", "generations"),
    }
    for name, table in rows.items():
        made = checked_table(name, table)
        for key, array in made.items():
            np.testing.assert_array_equal(array, table[key])


def test_a_store_without_records_has_empty_tables(world):
    for name, table in tables(world.history([])).items():
        checked_table(name, table)


def test_more_journal_only_adds_rows(world, played, rows):
    turns = played.turns
    for count in range(1, len(turns), 7):
        part = tables(world.history(turns[:count]))
        for name in part.keys() - {"walkers"}:
            for key, array in part[name].items():
                whole = rows[name][key]
                np.testing.assert_array_equal(array, whole[: len(array)])


def test_structures_are_the_frames_of_the_journal_each_once(history, rows):
    table = rows["structures"]
    ids = id_texts(table["id"])
    assert len(set(ids)) == len(ids)
    assert set(history.label_index.frames) <= set(ids)
    positions = np.split(table["positions"], table["offsets"][1:-1])
    numbers = np.split(table["numbers"], table["offsets"][1:-1])
    for frame_id, frame in history.label_index.frames.items():
        row = ids.index(frame_id)
        np.testing.assert_array_equal(positions[row], frame.positions)
        np.testing.assert_array_equal(numbers[row], frame.numbers)
        assert table["molecule"][row] == frame.numbers[0] - 1


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_labels_are_those_of_the_ledger_bit_for_bit(history, rows, fidelity, world):
    table, ids = rows[f"labels/{fidelity}"], id_texts(rows["structures"]["id"])
    level = world.LEVELS[fidelity]
    known = {f: x for (at, f), x in history.label_index.labels.items() if at == level}
    forces = np.split(table["forces"], table["offsets"][1:-1])
    found = [ids[row] for row in table["structure"]]
    assert set(known) <= set(found)
    for row, frame in enumerate(found):
        record = known.get(frame)
        good = isinstance(record, Label)
        assert (table["status"][row] == 0) == good
        if good:
            assert table["energy"][row] == record.energy
            np.testing.assert_array_equal(forces[row], record.forces)
            assert FAILURES[table["failure"][row]] == ""
        else:
            assert np.isnan(table["energy"][row])
            assert len(forces[row]) == 0


def test_what_labels_say_of_themselves_is_in_columns(rows):
    table = rows["labels/expensive"]
    made = np.array([PURPOSES[code] == "bias" for code in table["purpose"]])
    assert made.any()
    for key in ("gap", "t1", "external", "peak_mb"):
        assert set(table[key][made]) == {DETAILS[key]}
        assert np.isnan(table[key][~made]).all()
    assert (table["stress"][made] == STRESS).all()
    assert np.isnan(table["stress"][~made]).all()
    assert np.isnan(table["s2"]).all()
    assert {RUNGS[code] for code in table["rung"][made]} == {"level shift"}
    assert table["instability"][made].all()
    assert table["multireference"][made].all()
    assert not table["contamination"].any()
    assert not table["instability"][~made].any()
    assert not table["cached"].any()


def test_noise_tells_how_far_labels_moved(played, rows):
    table, ids = rows["noise"], id_texts(rows["structures"]["id"])
    found = {
        (ids[row], FIDELITIES[fidelity])
        for row, fidelity in zip(table["structure"], table["fidelity"], strict=True)
    }
    asked = {(x.frame, x.fidelity) for x in played.asked(Recheck)}
    assert found == asked
    assert set(table["force_max"]) == {5e-3}
    assert {FAILURES[code] for code in table["failure"]} == {""}


def test_failures_and_lost_labels_are_rows_with_their_reason(rows):
    codes = np.concatenate([rows[f"labels/{x}"]["failure"] for x in FIDELITIES])
    reasons = sorted(FAILURES[code] for code in codes if code)
    assert reasons == ["LOST", "NOT_CONVERGED"]


def test_labels_that_were_given_come_first(rows):
    table = rows["labels/expensive"]
    assert [PURPOSES[code] for code in table["purpose"][:2]] == ["given", "test"]
    assert list(table["structure"][:2]) == [0, 1]


def test_scores_are_what_the_models_said_before_any_label(played, rows):
    table, ids = rows["scores"], id_texts(rows["structures"]["id"])
    said = {}
    for turn in played.turns:
        if isinstance(turn.event, e.Explored):
            for x in (*turn.event.candidates, *turn.event.controls):
                said[x.frame.id] = (x.surprise, x.energy, x.walker, x.step)
    columns = zip(
        *(table[key] for key in ("structure", "surprise", "energy", "walker", "step")),
        strict=True,
    )
    assert {ids[row]: tuple(rest) for row, *rest in columns} == said
    assert set(table["threshold"]) == {0.5}
    # In this world, generation n explores in round n.
    np.testing.assert_array_equal(table["generation"], table["round"])
    assert table["round"].max() == played.state.exploration.round


def test_selections_are_all_that_was_asked_for_with_its_round(played, rows):
    table, ids = rows["selections"], id_texts(rows["structures"]["id"])
    asked = {(x.frame.id, x.fidelity, x.purpose) for x in played.asked(LabelFrame)}
    columns = (table["structure"], table["fidelity"], table["purpose"])
    found = [
        (ids[row], FIDELITIES[fidelity], PURPOSES[purpose])
        for row, fidelity, purpose in zip(*columns, strict=True)
    ]
    assert set(found) == asked
    assert len(found) == len(asked)
    early = np.isin(table["purpose"], [PURPOSES.index(x) for x in ("seed", "test")])
    assert set(table["round"][early]) == {0}
    assert table["round"][~early].min() == 1


def test_walkers_are_where_they_are_now(played, rows):
    table = rows["walkers"]
    for row, index in enumerate(table["walker"]):
        walker = played.state.exploration.walkers[index]
        span = slice(*table["offsets"][row : row + 2])
        np.testing.assert_array_equal(table["positions"][span], walker.frame.positions)
        np.testing.assert_array_equal(table["velocities"][span], walker.velocities)
        np.testing.assert_array_equal(table["cell"][row], walker.frame.cell)
        assert tuple(table["pbc"][row]) == walker.frame.pbc
        assert (table["step"][row], table["stopped"][row]) == (walker.step, False)


def test_generations_tell_what_they_learned_from_and_how_well(played, rows):
    table = rows["generations"]
    trains = {train.generation: train for train in played.asked(Train)}
    assert list(table["generation"]) == sorted(trains)
    np.testing.assert_array_equal(table["force_mae"], played.state.generations.errors)
    for row, number in enumerate(table["generation"]):
        assert table["cheap"][row] == len(trains[number].cheap)
        assert table["expensive"][row] == len(trains[number].expensive)
    assert id_texts(table["model"])[-1] == played.state.generations.model
    assert set(table["cpu_seconds"]) == {1.0}
