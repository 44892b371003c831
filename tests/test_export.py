"""Labels to files and back, through ASE and through our own intake."""

from dataclasses import replace
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Noise, Unlabelled
from alloop.core.seeds import held_out, random_stream
from alloop.export import Choice, dataset, parse_doubts, write_export
from alloop.history.reader import History, JournalEntry
from alloop.intake import read_labels
from alloop.loop import events as e
from alloop.loop.commands import Explore, LabelFrame, Train

CHEAP, EXPENSIVE = "1" * 16, "2e" + "2" * 14  # ids that look like numbers
LEVELS = {"cheap": CHEAP, "expensive": EXPENSIVE}
ATTRS = {
    "levels": {
        "cheap": {"title": "HF/STO-3G"},
        "expensive": {"title": "CCSD(T)/CC-PVDZ"},
    }
}


def frame(name, charge=0, spin=0):
    positions = random_stream(1, name).normal(0, 1, (3, 3))
    return Frame([8, 1, 1], positions, charge=charge, spin=spin)


def label(of, level):
    rng = random_stream(2, of.id + level)
    details = {"program": "pyscf 2.14", "gap": 0.4, "stable": True, "note": None}
    return Label(
        of.id, level, -2078.1 + rng.normal(), rng.normal(size=(3, 3)), 1.5, details
    )


def ask(of, fidelity, purpose, reason="bias 0.1 eV/Å, said “x”"):
    return LabelFrame(of, LEVELS[fidelity], fidelity, purpose, 0, reason)


FRAMES = {
    "given": frame("given"),
    "seed": frame("seed", charge=1, spin=1),
    "test": frame("test"),
    "later": frame("later"),
    "failed": frame("failed"),
}


@pytest.fixture
def turns():
    given = FRAMES["given"]
    first = [
        ask(FRAMES["seed"], "cheap", "seed"),
        ask(FRAMES["seed"], "expensive", "seed"),
        ask(FRAMES["test"], "expensive", "test"),
    ]
    second = [
        ask(FRAMES["later"], "cheap", "flagged"),
        ask(FRAMES["failed"], "cheap", "flagged"),
    ]
    seed = FRAMES["seed"].id
    train = Train(1, (seed,), (given.id, seed), (FRAMES["test"].id,))
    explore = Explore(1, 0, 0, 1, "m" * 32, (), 10, 1, 1)
    trained = e.Trained("train/1", 1, "m" * 32, 0.5, None, np.zeros((0, 0)))
    supplied = e.Given(given, 0, "expensive", label(given, EXPENSIVE))
    opened = e.Opened(7, LEVELS, (given,), (supplied,))
    unlabelled = Unlabelled(FRAMES["failed"].id, CHEAP, Failure.CRASHED)
    events = [
        (opened, first),
        *((e.Labelled(x.name, label(x.frame, x.level)), ()) for x in first[:2]),
        (e.Labelled(first[2].name, label(first[2].frame, EXPENSIVE)), [train]),
        (trained, [explore]),
        (e.Explored(1, 0, 0, (), (), (), 1), second),
        (e.Labelled(second[0].name, label(second[0].frame, CHEAP)), ()),
        (e.NotLabelled(second[1].name, unlabelled), ()),
    ]
    return [e.Turn(event, tuple(commands)) for event, commands in events]


def told(turns):
    entries = tuple(JournalEntry(seq, 0.0, turn) for seq, turn in enumerate(turns))
    return History.from_entries(Path("x.zarr"), ATTRS, entries)


@pytest.fixture
def history(turns):
    return told(turns)


ALL = Choice("expensive", "all")
IDS = [FRAMES[name].id for name in ("given", "seed")]  # what is trained on


def labels(history, out, **choice):
    """(frame, level) of what is written."""
    files = write_export(history, out, Choice(**choice), force=True)
    images = [x for file in files for x in ase.io.read(file.path, index=":")]
    found = [(x.info["frame"].removeprefix("frame/"), x.info["level"]) for x in images]
    names = {frame.id: name for name, frame in FRAMES.items()}
    assert len(found) == sum(sum(file.counts.values()) for file in files)
    return sorted((names[frame], level) for frame, level in found)


def test_the_default_is_what_the_last_generation_learned_at_the_expensive_level(
    history, tmp_path
):
    (file,) = write_export(history, tmp_path / "x.xyz")
    assert labels(history, tmp_path / "x.xyz") == [
        ("given", "expensive"),
        ("seed", "expensive"),
    ]
    assert (file.level, dict(file.counts)) == ("expensive", {"train": 2})
    assert str(file) == "2 expensive labels (2 train)"


def test_splits_do_not_overlap_and_all_is_all(history, tmp_path):
    out = tmp_path / "x.xyz"
    assert labels(history, out, split="validation") == [("test", "expensive")]
    assert labels(history, out, level="cheap") == [("seed", "cheap")]
    assert labels(history, out, split="all") == [
        (x, "expensive") for x in ("given", "seed", "test")
    ]
    with pytest.raises(InputError, match="no such test labels"):
        labels(history, out, split="test")


def test_both_levels_have_files_of_their_own(history, tmp_path):
    assert labels(history, tmp_path / "x.xyz", level="both", split="all") == [
        ("given", "expensive"),
        ("later", "cheap"),
        ("seed", "cheap"),
        ("seed", "expensive"),
        ("test", "expensive"),
    ]
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == ["x-cheap.xyz", "x-expensive.xyz"]
    for path in tmp_path.iterdir():
        levels = {x.info["level"] for x in ase.io.read(path, index=":")}
        assert len(levels) == 1


def test_a_dataset_is_what_the_file_holds(history):
    (given, seed) = dataset(history)
    assert {x.info["split"] for x in (given, seed)} == {"train"}
    assert {x.info["level"] for x in (given, seed)} == {"expensive"}
    assert seed.info["REF_energy"] == seed.get_potential_energy()
    assert seed.arrays["REF_forces"].shape == (3, 3)
    both = dataset(history, Choice("both", "all"))
    assert len(both) == 5
    for atoms in both:
        level = atoms.info["level"]
        assert {x for x in atoms.info if "REF_" in x} == {f"REF_energy_{level}"}
        assert {x for x in atoms.arrays if "REF_" in x} == {f"REF_forces_{level}"}
        assert atoms.calc is None


def test_a_generation_is_exported_as_it_was_trained(turns, tmp_path):
    turns.append(e.Turn(e.Excluded(FRAMES["seed"].id, "cheap", "odd")))
    now = {"level": "both", "split": "train"}
    assert labels(told(turns), tmp_path / "one.xyz", at=1, **now) == [
        ("given", "expensive"),
        ("seed", "cheap"),
        ("seed", "expensive"),
    ]
    assert ("seed", "cheap") not in labels(told(turns), tmp_path / "one.xyz", **now)
    then = labels(told(turns), tmp_path / "one.xyz", level="both", split="all", at=1)
    assert ("later", "cheap") not in then
    assert ("seed", "cheap") in then


def test_before_the_first_generation_there_is_no_training_set(turns, tmp_path):
    early = told(turns[:4])
    with pytest.raises(InputError, match=r"there are: none yet.*--split all"):
        write_export(early, tmp_path / "x.xyz")
    assert labels(early, tmp_path / "x.xyz", split="all")


def test_frames_held_out_to_calibrate_are_validation(turns, tmp_path):
    at = next(i for i, x in enumerate(turns) if x.commands and i > 1)
    (train,) = turns[at].commands
    held = replace(train, cheap=(), heldout=train.cheap)
    turns[at] = replace(turns[at], commands=(held,))
    steering = labels(told(turns), tmp_path / "x.xyz", level="both", split="validation")
    assert steering == [("seed", "cheap"), ("test", "expensive")]


def test_frames_that_the_trainer_held_out_are_validation(history, tmp_path):
    fraction = next(x / 100 for x in range(101) if held_out(IDS, x / 100))
    (aside,) = held_out(IDS, fraction)
    sets = {
        split: {
            x.info["frame"].removeprefix("frame/")
            for x in dataset(history, Choice(split=split, validation=fraction))
        }
        for split in ("train", "validation")
    }
    assert sets["train"] == {*IDS} - {aside}
    assert sets["validation"] == {aside, FRAMES["test"].id}


def test_excluded_labels_are_left_out(turns, tmp_path):
    turns.append(e.Turn(e.Excluded(FRAMES["seed"].id, "cheap", "odd")))
    turns.append(e.Turn(e.Excluded(FRAMES["test"].id, None, "odd")))
    assert labels(told(turns), tmp_path / "x.xyz", level="both", split="all") == [
        ("given", "expensive"),
        ("later", "cheap"),
        ("seed", "expensive"),
    ]


@pytest.mark.parametrize("name", ["out.xyz", "out.extxyz"])
def test_trainers_and_ase_find_energy_and_forces(history, tmp_path, name):
    ((file),) = write_export(history, tmp_path / name, ALL)
    out = file.path
    for image in ase.io.read(out, index=":"):
        level, of = EXPENSIVE, image.info["frame"].removeprefix("frame/")
        expected = history.label_index.labels[level, of]
        for energy in (image.info["REF_energy"], image.get_potential_energy()):
            assert energy == expected.energy
        for forces in (image.arrays["REF_forces"], image.get_forces()):
            np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-8)


def test_the_keys_tell_where_a_label_comes_from(history, tmp_path):
    files = write_export(history, tmp_path / "x.xyz", Choice("both", "all"))
    images = [x for file in files for x in ase.io.read(file.path, index=":")]
    seed = next(
        x for x in images if x.info["purpose"] == "seed" and x.info["level"] == "cheap"
    )
    assert {k: v for k, v in seed.info.items() if k != "REF_energy"} == {
        "charge": 1,
        "spin": 1,
        "total_charge": 1,
        "total_spin": 2,
        "config_type": "cheap",
        "split": "train",
        "level": "cheap",
        "fidelity": "cheap",
        "frame": f"frame/{FRAMES['seed'].id}",
        "level_id": f"level/{CHEAP}",
        "level_title": "HF/STO-3G",
        "purpose": "seed",
        "reason": "bias 0.1 eV/Å, said “x”",
        "round": 0,
        "generation": 0,
        "molecule": 0,
        "cpu_seconds": 1.5,
        "program": "pyscf 2.14",
        "gap": 0.4,
    }
    test = next(x for x in images if x.info["purpose"] == "test")
    assert (test.info["config_type"], test.info["split"]) == ("validation",) * 2
    later = next(x for x in images if x.info["purpose"] == "flagged")
    assert (later.info["round"], later.info["generation"]) == (1, 1)


def test_a_database_holds_labels_bit_for_bit(history, tmp_path):
    (file,) = write_export(history, tmp_path / "x.db", ALL)
    with ase.db.connect(file.path) as database:
        rows = list(database.select("split=train,fidelity=expensive"))
    assert len(rows) == 2
    for row in rows:
        expected = history.label_index.labels[
            row.data["level_id"], row.data["frame_id"]
        ]
        assert row.energy == row.REF_energy == expected.energy
        np.testing.assert_array_equal(row.forces, expected.forces)
        np.testing.assert_array_equal(row.data["REF_forces"], expected.forces)
        frame = history.label_index.frames[row.data["frame_id"]]
        np.testing.assert_array_equal(row.positions, frame.positions)
        assert row.total_charge == frame.charge
        assert row.data["details"] == expected.details
        assert row.data["journal"]["answered"] >= row.data["journal"]["asked"]


@pytest.mark.parametrize("name", ["x.xyz", "x.db"])
def test_a_cell_is_written_with_its_stress(turns, tmp_path, name):
    stress = 1e-2 * np.arange(1.0, 7.0)
    opened = turns[0].event
    cell = replace(FRAMES["given"], cell=np.diag([5.0, 6.0, 7.0]), pbc=(True,) * 3)
    own = replace(label(cell, EXPENSIVE), stress=stress)
    given = replace(opened.given[0], frame=cell, label=own)
    turns[0] = replace(turns[0], event=replace(opened, given=(given,)))
    (file,) = write_export(told(turns), tmp_path / name, ALL)
    again = [x for x in read_labels(file.path) if x.frame.id == cell.id]
    np.testing.assert_allclose(again[0].stress, stress, rtol=1e-7)
    others = [x for x in read_labels(file.path) if x.frame.id != cell.id]
    assert [x.stress for x in others] == [None, None]
    atoms = next(x for x in dataset(told(turns), ALL) if x.pbc.all())
    np.testing.assert_array_equal(atoms.get_stress(), stress)


@pytest.mark.parametrize("name", ["x.xyz", "x.db"])
def test_what_is_written_can_be_read_as_labels(history, tmp_path, name):
    (file,) = write_export(history, tmp_path / name, ALL)
    intake = read_labels(file.path)
    level = EXPENSIVE
    assert {frame.id for frame in intake.frames} == {
        FRAMES[x].id for x in ("given", "seed", "test")
    }
    for frame, energy, forces in zip(
        intake.frames, intake.energies, intake.forces, strict=True
    ):
        expected = history.label_index.labels[level, frame.id]
        assert energy == expected.energy
        np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["x.xyz", "x.db"])
def test_an_older_file_is_replaced_by_force_and_as_a_whole(history, tmp_path, name):
    out = tmp_path / name
    write_export(history, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"is there already.*--force"):
        write_export(history, out, ALL)
    assert out.read_bytes() == before
    write_export(history, out, ALL, force=True)
    assert len(ase.io.read(out, index=":")) == 3
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.fixture
def doubted(turns):
    """As the history, but the test label is rescued, doubtful and rechecked."""
    level, of = EXPENSIVE, FRAMES["test"]
    at = next(
        i
        for i, turn in enumerate(turns)
        if isinstance(turn.event, e.Labelled) and turn.event.label.frame == of.id
    )
    details = {"rung": "damping", "doubts": "instability", "t1": 0.01, "s2": 0.75}
    sure = label(of, level)
    made = replace(sure, details={**sure.details, **details})
    turns[at] = replace(turns[at], event=replace(turns[at].event, label=made))
    noise = Noise(of.id, level, energy=1e-5, force_rms=2e-4, force_max=1e-3)
    lost = Noise(FRAMES["seed"].id, level, failure=Failure.TIMEOUT)
    return told(
        [
            *turns,
            *(
                e.Turn(e.Rechecked(f"recheck/{x.level}/{x.frame}", x))
                for x in (noise, lost)
            ),
        ]
    )


def test_a_third_party_can_filter_by_what_labels_say_of_themselves(doubted, tmp_path):
    (file,) = write_export(doubted, tmp_path / "x.xyz", ALL)
    images = ase.io.read(file.path, index=":")
    keys = ("rung", "doubts", "t1", "s2", "noise_energy", "noise_forces")
    by_frame = {
        image.info["frame"].removeprefix("frame/"): [image.info.get(x) for x in keys]
        for image in images
    }
    expected = ["damping", "instability", 0.01, 0.75, 1e-5, 2e-4]
    assert by_frame[FRAMES["test"].id] == expected
    assert by_frame[FRAMES["seed"].id] == [None] * 6
    (file,) = write_export(doubted, tmp_path / "x.db", ALL)
    with ase.db.connect(file.path) as database:
        (row,) = database.select("doubts=instability,noise_forces<1e-3")
    assert [row.get(key) for key in keys] == expected


def test_doubtful_labels_can_be_left_out(doubted, tmp_path):
    out = tmp_path / "x.xyz"
    write_export(
        doubted, out, replace(ALL, without=parse_doubts("multireference, instability"))
    )
    images = ase.io.read(out, index=":")
    assert len(images) == 2
    assert not any("doubts" in image.info for image in images)
    more = replace(ALL, without=parse_doubts("multireference"))
    write_export(doubted, out, more, force=True)
    assert len(ase.io.read(out, index=":")) == 3


def test_a_doubt_that_there_is_not_is_one_sentence():
    assert parse_doubts("") == frozenset()
    with pytest.raises(InputError, match=r"instability, .*, got `unstable`"):
        parse_doubts("unstable")


@pytest.mark.parametrize("name", ["nowhere/x.xyz", "nowhere/x.db"])
def test_a_place_that_cannot_be_written_is_one_sentence(history, tmp_path, name):
    with pytest.raises(InputError, match=r"can be written at .*nowhere"):
        write_export(history, tmp_path / name)


def test_what_is_not_there_cannot_be_exported(history, turns, tmp_path):
    with pytest.raises(InputError, match="one of cheap, expensive, both, got dear"):
        write_export(history, tmp_path / "x.xyz", Choice("dear"))
    with pytest.raises(InputError, match=r"one of train, .*, got exam"):
        write_export(history, tmp_path / "x.xyz", Choice(split="exam"))
    with pytest.raises(InputError, match=r"\(there are: 1\), got 2"):
        write_export(history, tmp_path / "x.xyz", Choice(at=2))
    with pytest.raises(InputError, match="no such labels yet"):
        write_export(told(turns[:1]), tmp_path / "x.xyz", Choice("cheap", "all"))
    assert list(tmp_path.iterdir()) == []
