"""Labelled frames that a configuration brings."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write

from alloop.config import (
    parse_campaign,
)
from alloop.core.records import Label
from alloop.history.reader import CODEC
from alloop.labels.levels import toy_level
from alloop.loop import events as e
from alloop.store.archive import Archive
from tests.config.toy_campaign import TOY, problems


def labelled(frames: list[Atoms], path: Path) -> Path:
    """An extxyz file with the toy level's own labels."""
    from alloop.core.atoms import from_atoms
    from alloop.labels.toy import label_with_toy

    for atoms in frames:
        result = label_with_toy(from_atoms(atoms), toy_level().settings)
        atoms.info["REF_energy"] = result.energy
        atoms.arrays["REF_forces"] = result.forces
    write(path, frames, format="extxyz")
    return path


def rattled(count: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = [molecule("H2O") for _ in range(count)]
    for atoms in frames:
        atoms.positions += 0.05 * rng.standard_normal((3, 3))
    return frames


UNITS = "energy_unit: eV, length_unit: angstrom"


def test_labels_come_along_and_bring_their_molecule(tmp_path: Path) -> None:
    labelled(rattled(6, 1), tmp_path / "old.extxyz")
    labelled(rattled(5, 2), tmp_path / "test.extxyz")
    text = TOY.replace("{molecule: H2O}", "{labels: old.extxyz, level: expensive, %s}")
    text = text % UNITS + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    setup = parse_campaign(text, tmp_path)
    train = [item for item in setup.given if not item.test]
    assert (len(train), len(setup.given)) == (6, 11)
    assert {item.label.level for item in setup.given} == {setup.levels["expensive"].id}
    lowest = min(train, key=lambda item: item.label.energy)
    assert setup.start == (lowest.frame,)
    assert setup.rules.seeding.validation == 0


def test_a_test_frame_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    frames = rattled(4, 1)
    labelled(frames, tmp_path / "old.extxyz")
    turned = frames[2].copy()
    turned.rotate(40, "x")
    labelled([*rattled(2, 5), turned], tmp_path / "test.extxyz")
    text = TOY.replace("{molecule: H2O}", "{labels: old.extxyz, level: cheap, %s}")
    text = text % UNITS + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    assert "2 (= 2 of training)" in problems(text, tmp_path)["validation"]


def test_a_unit_that_cannot_be_right_is_warned_about(tmp_path: Path) -> None:
    labelled(rattled(8, 1), tmp_path / "old.extxyz")
    item = "{labels: old.extxyz, level: cheap, energy_unit: eV, length_unit: bohr}"
    setup = parse_campaign(TOY.replace("{molecule: H2O}", item), tmp_path)
    assert any("lengths" in warning for warning in setup.warnings)


def test_one_frame_with_two_energies_is_refused(tmp_path: Path) -> None:
    frames = rattled(2, 1)
    labelled(frames, tmp_path / "a.extxyz")
    frames[0].info["REF_energy"] += 1.0
    write(tmp_path / "b.extxyz", frames, format="extxyz")
    item = f"{{labels: a.extxyz, level: cheap, {UNITS}}}"
    both = f"{item}, {item.replace('a.ext', 'b.ext')}"
    assert (
        "two cheap energies"
        in problems(TOY.replace("{molecule: H2O}", both), tmp_path)["start.1"]
    )


def test_a_test_set_of_another_molecule_is_refused(tmp_path: Path) -> None:
    labelled([molecule("CO")], tmp_path / "test.extxyz")
    text = TOY + f"validation: {{file: test.extxyz, {UNITS}}}\n"
    assert "CO is in the validation set" in problems(text, tmp_path)["validation"]


def test_another_store_lends_labels_only_of_the_same_levels(tmp_path: Path) -> None:
    setup = parse_campaign(TOY, tmp_path)
    frame, level = setup.start[0], setup.levels["cheap"]
    label = Label(frame.id, level.id, -9.0, np.zeros((3, 3)))
    supplied = e.Given(frame, 0, "cheap", label)
    levels = {name: level.id for name, level in setup.levels.items()}
    opened = e.Opened(0, levels, setup.start, (supplied,))
    attrs = {"config": setup.text, "name": "old"}
    with Archive.create(tmp_path / "old.zarr", attrs=attrs, codec=CODEC) as archive:
        archive.append(e.Turn(opened))
    text = TOY.replace("{molecule: H2O}", "{store: old.zarr}")
    other = text.replace("0.9", "0.8").replace("kind: toy}}", "kind: toy, offset: 1}}")
    assert "a level of this campaign" in problems(other, tmp_path)["start.0"]


def test_labelled_frames_that_begin_a_campaign_are_looked_at_too(
    tmp_path: Path,
) -> None:
    clash = Atoms("OHH", [[0, 0, 0], [0, 0, 0.2], [1, 0, 0]])
    labelled([clash], tmp_path / "old.extxyz")
    item = f"{{labels: old.extxyz, level: expensive, {UNITS}}}"
    found = problems(TOY.replace("{molecule: H2O}", item), tmp_path)
    assert "covalent radii" in found["start.0"]
