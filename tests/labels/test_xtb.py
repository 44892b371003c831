"""GFN-xTB: true gradients, honest refusals, the same bits every time."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels import xtb
from alloop.labels.child.labeller import LabelChild
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import xtb_level
from alloop.labels.result import Refused
from alloop.testing import check_labeller

pytest.importorskip("tblite", reason="tblite is not installed: pip install alloop[xtb]")


def salt() -> Frame:
    """A distorted cell of rock salt."""
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(1.03 * atoms.cell.array + 0.05, scale_atoms=True)
    return from_atoms(atoms)


def distorted(name: str, **state: int) -> Frame:
    atoms = molecule(name)
    atoms.rattle(0.05, seed=2)
    return from_atoms(atoms, **state)


def labelled(frame: Frame, **settings: object) -> Label:
    record = DirectLabeller(xtb_level(**settings)).label(frame)
    assert isinstance(record, Label), record
    return record


def refused(frame: Frame, **settings: object) -> Unlabelled:
    record = DirectLabeller(xtb_level(**settings)).label(frame)
    assert isinstance(record, Unlabelled), record
    return record


CASES = [
    (distorted("CH3OH"), {}),
    (distorted("CH3OH"), {"method": "gfn1-xtb"}),
    (distorted("OH", spin=1), {}),
    (distorted("H2O", charge=1, spin=1), {"spin_polarized": True}),
    (distorted("C6H6"), {"temperature": 5000.0}),
    (salt(), {}),
    (salt(), {"method": "gfn1-xtb"}),
]


@pytest.mark.parametrize(("frame", "settings"), CASES)
def test_forces_are_minus_the_slope_of_the_energy(
    frame: Frame, settings: dict[str, object]
) -> None:
    label, h = labelled(frame, **settings), 5e-4
    along = np.random.default_rng(0).normal(0, 1, frame.positions.shape)
    down, up = (
        labelled(moved(frame, frame.positions + x * along), **settings).energy
        for x in (-h, h)
    )
    work = float((label.forces * along).sum())
    assert work == pytest.approx((down - up) / (2 * h), abs=5e-4)


@pytest.mark.parametrize("method", ["gfn1-xtb", "gfn2-xtb"])
def test_stress_is_the_slope_of_the_energy_under_strain(method: str) -> None:
    cell, h = salt(), 1e-4
    half = np.random.default_rng(0).normal(0, 0.5, (3, 3))
    strain = half + half.T
    down, up = (
        labelled(strained(cell, x * strain), method=method).energy for x in (-h, h)
    )
    xx, yy, zz, yz, xz, xy = labelled(cell, method=method).stress
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    slope = (up - down) / (2 * h * abs(np.linalg.det(cell.cell)))
    assert float((stress * strain).sum()) == pytest.approx(slope, abs=1e-5)


def test_a_molecule_keeps_the_laws_and_a_cell_may_be_shifted() -> None:
    check_labeller(DirectLabeller(xtb_level()), [distorted("CH3OH")])
    cell = salt()
    shifted = moved(cell, cell.positions + np.array([0.3, -0.2, 0.7]))
    assert labelled(shifted).energy == pytest.approx(labelled(cell).energy, abs=2e-5)


def test_a_child_gives_the_bits_that_this_process_gives(child: LabelChild) -> None:
    frame, other = distorted("C6H6"), distorted("CH3OH")
    labeller = child.labeller(xtb_level())
    first, _, again = (labeller.label(x) for x in (frame, other, frame))
    for record in (first, again):
        assert record.energy == labelled(frame).energy
        np.testing.assert_array_equal(record.forces, labelled(frame).forces)


def test_bits_repeat_whatever_the_environment_says_of_threads() -> None:
    script = (
        "from alloop.labels.levels import xtb_level\n"
        "from alloop.labels.xtb import label_with_xtb\n"
        "from alloop.core.atoms import from_atoms\n"
        "from ase.build import molecule\n"
        "import sys\n"
        "frame, settings = from_atoms(molecule('C6H6')), xtb_level().settings\n"
        "labels = [label_with_xtb(frame, settings) for _ in range(8)]\n"
        "assert len({label.forces.tobytes() for label in labels}) == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_spin_polarisation_makes_oxygen_a_triplet() -> None:
    triplet, singlet = (distorted("O2", spin=spin) for spin in (2, 0))
    gap = labelled(triplet).energy - labelled(singlet).energy
    true = (
        labelled(triplet, spin_polarized=True).energy
        - labelled(singlet, spin_polarized=True).energy
    )
    assert gap > 0 > true


def test_a_label_tells_gap_functions_and_program() -> None:
    details = labelled(distorted("H2O")).details
    assert details["functions"] == 6
    assert 10 < details["gap"] < 20
    assert details["program"] == xtb_level().settings["program"]
    assert "gap" not in labelled(distorted("OH", spin=1)).details


@pytest.mark.parametrize(
    ("frame", "settings", "failure", "word"),
    [
        (distorted("H2O"), {"max_cycle": 1}, Failure.NOT_CONVERGED, "1 cycles"),
        (distorted("OH", spin=0), {}, Failure.ELECTRONS, "cannot have spin 0"),
        (distorted("H2O", spin=1), {}, Failure.ELECTRONS, "not compatible"),
        (distorted("H2O", spin=6), {}, Failure.ELECTRONS, "cannot have spin 6"),
        (distorted("H2O", spin=10), {}, Failure.ELECTRONS, "cannot have spin 10"),
        (distorted("H2O", charge=8), {}, Failure.ELECTRONS, "0 valence electrons"),
    ],
)
def test_what_tblite_cannot_do_is_refused_with_its_reason(
    frame: Frame, settings: dict[str, object], failure: Failure, word: str
) -> None:
    record = refused(frame, **settings)
    assert record.failure is failure
    assert word in record.message


def test_a_cell_that_repeats_in_some_directions_only_is_refused() -> None:
    cell = salt()
    slab = Frame(cell.numbers, cell.positions, cell=cell.cell, pbc=(True, True, False))
    assert "all three directions" in refused(slab).message


def test_f_electrons_of_lanthanoids_do_not_count() -> None:
    trifluoride = [[0, 0, 0.1], [2.1, 0, 0], [-1.05, 1.8, 0], [-1.05, -1.8, 0]]
    labels = [
        labelled(Frame(np.array([metal, 9, 9, 9]), np.array(trifluoride)))
        for metal in (57, 58)  # lanthanum, and cerium with one electron more
    ]
    assert labels[0].details["functions"] == labels[1].details["functions"]


def test_an_element_beyond_radon_is_refused() -> None:
    frame = Frame(np.array([92, 1]), np.array([[0, 0, 0], [0, 0, 2.0]]))
    assert refused(frame).failure is Failure.UNSUPPORTED
    assert "radon" in xtb.problems(xtb_level().settings, ["U", "H"])[0]


def test_another_version_of_tblite_makes_no_labels() -> None:
    old = xtb_level().settings | {"program": "tblite 0.1"}
    with pytest.raises(Refused, match=r"belongs to tblite 0\.1"):
        xtb.label_with_xtb(distorted("H2O"), old)


def test_without_tblite_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        xtb, "_installed_tblite", lambda: "tblite"
    )  # it has no version then
    told = "pip install alloop[xtb]"
    assert xtb.problems(xtb_level().settings, ["H"]) == [xtb.MISSING]
    assert told in refused(distorted("H2O")).message


def moved(frame: Frame, positions: np.ndarray) -> Frame:
    state = {"charge": frame.charge, "spin": frame.spin}
    return Frame(frame.numbers, positions, **state, cell=frame.cell, pbc=frame.pbc)


def strained(frame: Frame, strain: np.ndarray) -> Frame:
    by = np.eye(3) + strain
    cell, positions = frame.cell @ by, frame.positions @ by
    return Frame(frame.numbers, positions, cell=cell, pbc=frame.pbc)
