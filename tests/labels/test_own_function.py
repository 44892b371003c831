"""A user's function as a level: its folder, its faults in its own words, its units."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from alloop.cli import main
from alloop.config import load_campaign
from alloop.config.load import parse_level
from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels import slope_check
from alloop.labels.direct import DirectLabeller, level_program
from alloop.labels.named_code import path_problems
from tests.conftest import write_toy

MINE = """
import numpy as np
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level
import nearby

def _toy(frame):
    return label_with_toy(frame, toy_level().settings)

def good(frame, settings):
    assert set(settings) <= {"quality"}
    return _toy(frame)

def lists(frame, settings):
    found = _toy(frame)
    return Result(np.array([found.energy]), found.forces.tolist(), {"n": np.int64(3)})

def pair(frame, settings):
    return _toy(frame).energy, _toy(frame).forces

def nothing(frame, settings):
    return None

def no_forces(frame, settings):
    return Result(0.0, None)

def short(frame, settings):
    return Result(0.0, np.zeros((1, 3)))

def words(frame, settings):
    return Result("low", np.zeros((3, 3)))

def detail(frame, settings):
    return Result(0.0, np.zeros((3, 3)), {"program": object()})

def raising(frame, settings):
    raise ValueError("no license left")

def beside(frame, settings):
    return nearby.fail()

def leaving(frame, settings):
    raise SystemExit(3)

def scaled(frame, settings):
    found = _toy(frame)
    energy, forces = settings["energy"], settings["forces"]
    return Result(energy * found.energy, forces * found.forces)

def some(frame, settings):
    if abs(frame.positions[0, 2] - 0.117) > 1e-9:
        raise KeyError("not in the table")
    return scaled(frame, {"energy": 0.037, "forces": 1.0})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is not on Python's path, with the modules `ownmod` and `nearby`."""
    found = tmp_path_factory.mktemp("code")
    (found / "ownmod.py").write_text(MINE)
    (found / "nearby.py").write_text("def fail():\n    return {}['quality']\n")
    (found / "broken.py").write_text("from nearby import fail\nlabel = fail()\n")
    (found / "lacking.py").write_text("import no_such_package\n")
    (found / "unread.py").write_text("def label(:\n")
    return found


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the import path and the trials of this process as they were."""
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr(slope_check, "_trials", {})


def level_at(folder: Path, name: str, **settings: object) -> Level:
    return make_level(f"ownmod:{name}", {**settings, "code_folder": str(folder)})


def bent_water() -> Frame:
    places = [[0.0, 0.0, 0.117], [0.0, 0.80, -0.50], [0.0, -0.757, -0.469]]
    return Frame(np.array([8, 1, 1]), np.array(places))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pair", "ownmod:pair: expected `Result(energy, forces)`"),
        ("nothing", "got None"),
        ("no_forces", "ownmod:no_forces: expected forces (3, 3) in eV/Å, got None"),
        ("short", "got an array of shape (1, 3)"),
        ("words", "expected an energy in eV, got 'low'"),
        ("detail", "as the detail `program`, got object"),
        ("raising", "in raising: ValueError: no license left"),
        ("beside", "nearby.py, line 2, in fail: KeyError: 'quality'"),
        ("leaving", "in leaving: SystemExit: 3"),
    ],
)
def test_faults_of_a_function_are_told_in_its_own_words(
    folder: Path, name: str, message: str
) -> None:
    found = DirectLabeller(level_at(folder, name)).label(bent_water())
    assert isinstance(found, Unlabelled)
    assert found.failure is Failure.CRASHED  # tried again by `--retry` once mended
    assert message in found.message
    assert "alloop/labels" not in found.message


def test_the_line_is_that_of_the_user_s_file(folder: Path) -> None:
    found = DirectLabeller(level_at(folder, "raising")).label(bent_water())
    line = MINE.splitlines().index('    raise ValueError("no license left")') + 1
    assert isinstance(found, Unlabelled)
    assert found.message.startswith(f"ownmod.py, line {line}, in raising")


def test_lists_and_numpy_s_numbers_are_read(folder: Path) -> None:
    labels = [
        DirectLabeller(level_at(folder, x)).label(bent_water())
        for x in ("good", "lists")
    ]
    good, lists = labels
    assert isinstance(good, Label)
    assert isinstance(lists, Label)
    assert lists.energy == good.energy
    assert np.array_equal(lists.forces, good.forces)
    assert lists.details["n"] == 3


@pytest.mark.parametrize(
    ("energy", "forces", "fits"),
    [
        (1.0, 1.0, True),
        (1 / 27.2114, 1.0, False),  # hartree
        (23.06, 1.0, False),  # kcal/mol
        (1.0, 0.529177, False),  # eV/bohr
        (1.0, 1 / 51.42, False),  # hartree/bohr
        (1.0, -1.0, False),  # the gradient
    ],
)
def test_energies_must_be_the_work_of_the_forces(
    folder: Path, energy: float, forces: float, fits: bool
) -> None:
    level = level_at(folder, "scaled", energy=energy, forces=forces)
    labeller = DirectLabeller(level)
    for _ in range(2):  # a level that has failed is tested again
        found = labeller.label(bent_water())
        assert isinstance(found, Label) is fits
    if isinstance(found, Unlabelled):
        assert found.failure is Failure.GATE
        assert "energies must be in eV and forces in eV/Å" in found.message


def test_a_trial_ends_with_the_first_label_that_passes(folder: Path) -> None:
    level = level_at(folder, "scaled", energy=1.0, forces=1.0)
    DirectLabeller(level).label(bent_water())
    assert slope_check._trials == {level.id: 0}
    table = level_at(folder, "some")  # no label a step away: nothing to test with
    assert isinstance(DirectLabeller(table).label(bent_water()), Label)
    assert slope_check._trials[table.id] == slope_check._TRIALS - 1
    off = level_at(folder, "scaled", energy=1.0, forces=0.5, gate={"slope": 0.0})
    assert isinstance(DirectLabeller(off).label(bent_water()), Label)


def test_the_folder_is_no_part_of_a_level(folder: Path, tmp_path: Path) -> None:
    moved, bare = level_at(tmp_path, "good"), make_level("ownmod:good", {})
    assert level_at(folder, "good").id == moved.id == bare.id


def test_a_module_lies_beside_the_file_that_names_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "level.yaml").write_text("kind: ownmod:good\n")
    monkeypatch.chdir(tmp_path)
    assert parse_level(str(folder / "level.yaml")).settings["code_folder"] == str(
        folder
    )
    assert "code_folder" not in parse_level("{kind: 'ownmod:good'}").settings
    levels = {"cheap": {"kind": "ownmod:good"}, "expensive": {"kind": "toy"}}
    setup = load_campaign(write_toy(folder, levels=levels))
    assert setup.levels["cheap"].settings["code_folder"] == str(folder)
    assert "levels.cheap: ownmod:good" in setup.named_code  # needs --trust in a store


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("broken:label", "nearby.py, line 2, in fail: KeyError: 'quality'"),
        ("lacking:label", "No module named 'no_such_package'"),
        ("unread:label", "unread.py, line 1: SyntaxError"),
        ("nowhere:label", "got 'nowhere:label': No module named"),
        ("ownmod:other", "has no attribute 'other'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(
    folder: Path, kind: str, message: str
) -> None:
    level = make_level(kind, {"code_folder": str(folder)})
    with pytest.raises(InputError) as caught:
        level_program(level)
    assert message in str(caught.value)


def test_paths_are_looked_up_beside_the_file_without_an_import(folder: Path) -> None:
    assert path_problems("broken:fail", str(folder)) == []
    assert "no module ownmod, beside the file" in path_problems("ownmod:good")[0]
    assert "has no other" in path_problems("ownmod:other", str(folder))[0]


def test_label_runs_a_function_of_a_module_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write("water.xyz", to_atoms(bent_water()))
    wanted = ["label", "water.xyz", "--level", "{kind: 'ownmod:good'}"]
    assert main([*wanted, "--out", "out.xyz", "--workers", "1", "--quiet"]) == 0
