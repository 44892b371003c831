"""Universal potentials as levels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alloop.config import parse_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name, universal_level
from alloop.labels.universal import problems
from tests.conftest import skip_without

TOY = (
    "name: u\nstart: [{{molecule: {0}}}]\n"
    "levels: {{cheap: {1}, expensive: {{kind: toy}}}}\n"
)


def frame(name: str = "H2O", charge: int = 0, spin: int = 0) -> Frame:
    atoms = molecule(name)
    atoms.rattle(0.05, seed=1)
    return from_atoms(atoms, charge, spin)


@pytest.mark.parametrize(
    ("name", "package"), [("so3lr", "so3krates_torch"), ("ANI-1x", "torchani")]
)
def test_labels_are_energies_and_their_gradients(name: str, package: str) -> None:
    skip_without(package)
    level, h = level_from_name(name), 1e-4  # Å
    labeller = DirectLabeller(level)
    water = frame()
    label = labeller.label(water)
    assert isinstance(label, Label)
    u = np.random.default_rng(0).normal(size=water.positions.shape)
    ends = []
    for t in (-h, h):
        moved = Frame(water.numbers, water.positions + t * u)
        end = labeller.label(moved)
        assert isinstance(end, Label)
        ends.append(end.energy)
    slope = (ends[1] - ends[0]) / (2 * h)
    assert slope == pytest.approx(-(label.forces * u).sum(), rel=1e-3)


@pytest.mark.slow
def test_the_child_process_gives_the_same_numbers_and_refuses_other_elements() -> None:
    skip_without("so3krates_torch")
    level = level_from_name("so3lr")
    with IsolatedLabeller(level) as child:
        anion = child.label(frame("CH3O", -1))
        silane = child.label(frame("SiH4"))
    direct = DirectLabeller(level).label(frame("CH3O", -1))
    assert isinstance(anion, Label)
    assert isinstance(direct, Label)
    assert anion.energy == direct.energy
    assert np.array_equal(anion.forces, direct.forces)
    assert isinstance(silane, Unlabelled)
    assert silane.failure is Failure.UNSUPPORTED
    assert "so3lr knows (H, C, N, O, F, P, S, Cl), got Si" in str(silane.message)


def test_a_level_is_named_by_its_weights_and_settings_not_by_those_of_training() -> (
    None
):
    one = universal_level("so3lr", freeze="body")
    assert one.id == universal_level("so3lr").id == level_from_name("SO3LR").id
    assert one.id != universal_level("so3lr", long_range=12.0).id
    assert one.title == "SO3LR"
    with pytest.raises(InputError, match="expected a universal potential"):
        universal_level("painn")


@pytest.mark.parametrize(
    ("start", "level", "sentence"),
    [
        ("H2O", "{kind: universal, potential: painn}", "painn"),
        ("H2O", "{kind: universal, potential: {kind: so3lr, range: 3}}", "range"),
        ("H2O, charge: 1, spin: 1", "ani-1x", "charge 0 and spin 0 of H2O"),
        ("SiH4", "so3lr", "so3lr knows"),
    ],
)
def test_what_cannot_work_is_a_sentence(
    start: str, level: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_campaign(TOY.format(start, level), tmp_path)


def test_a_missing_package_is_named_with_its_line_for_pip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    level = universal_level("ani")
    (text,) = problems(level.settings, ["H", "O"])
    assert "pip install 'alloop[ani]'" in text
    refused = DirectLabeller(level).label(frame())
    assert isinstance(refused, Unlabelled)
    assert "pip install 'alloop[ani]'" in str(refused.message)


def test_a_cell_needs_a_shorter_range(tmp_path: Path) -> None:
    """Which its file says before anything runs, and each label too."""
    skip_without("so3krates_torch")
    atoms = molecule("H2O", cell=[9.0, 9.0, 9.0], pbc=True)
    cell = from_atoms(atoms)
    refused = DirectLabeller(universal_level("so3lr")).label(cell)
    assert isinstance(refused, Unlabelled)
    assert "at most 60 Å in a cell" in str(refused.message)
    label = DirectLabeller(universal_level("so3lr", long_range=12.0)).label(cell)
    assert isinstance(label, Label)
    assert label.stress is not None
    assert len(pack_frames([cell])) == 1
    atoms.write(tmp_path / "cell.xyz")
    text = TOY.replace("{{molecule: {0}}}", "{{file: cell.xyz}}").format("", "so3lr")
    with pytest.raises(InputError, match="is periodic, SO3LR treats molecules"):
        parse_campaign(text, tmp_path)
