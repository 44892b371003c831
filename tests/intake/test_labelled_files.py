"""Every format that users have, and every mistake in one sentence."""

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.core.units import BOHR, HARTREE, KCAL_PER_MOL
from alloop.history.reader import CODEC
from alloop.intake import FileUnits, read_labels
from alloop.loop import events as e
from alloop.store.archive import Archive


def check(intake, water):
    assert len(intake) == len(water.positions)
    for i, frame in enumerate(intake.frames):
        np.testing.assert_array_equal(frame.numbers, water.numbers)
        np.testing.assert_allclose(frame.positions, water.positions[i], atol=1e-7)
        np.testing.assert_allclose(intake.forces[i], water.forces[i], atol=1e-7)
    np.testing.assert_allclose(intake.energies, water.energies, atol=1e-7)


def images(water, energy="energy", forces="forces"):
    """The frames as ase.Atoms, with labels under these keys or from a calculator."""
    out = []
    for i, positions in enumerate(water.positions):
        atoms = Atoms(water.numbers, positions)
        if energy == "energy":
            atoms.calc = SinglePointCalculator(
                atoms, energy=water.energies[i], forces=water.forces[i]
            )
        else:
            atoms.info[energy] = water.energies[i]
            atoms.arrays[forces] = water.forces[i]
        out.append(atoms)
    return out


@pytest.mark.parametrize(
    "names",
    [
        ("z", "R", "E", "F"),
        ("Z", "R", "E", "F"),
        ("nuclear_charges", "coords", "energies", "forces"),
        ("numbers", "positions", "energy", "forces"),
    ],
)
def test_npz_files_are_read_under_their_usual_names(water, tmp_path, names):
    arrays = (water.numbers, water.positions, water.energies, water.forces)
    np.savez(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True)))
    check(read_labels(tmp_path / "x.npz"), water)


def test_energies_may_be_a_column(water, saved):
    check(read_labels(saved(E=water.energies[:, None])), water)


def test_the_prefix_of_the_energy_names_the_other_arrays(water, saved):
    path = saved(
        cc_E=water.energies + 1, cc_F=2 * water.forces, cc_R=water.positions + 1
    )
    intake = read_labels(path, energy_key="cc_E")
    np.testing.assert_allclose(intake.energies, water.energies + 1)
    np.testing.assert_allclose(intake.forces[3], 2 * water.forces[3])
    np.testing.assert_allclose(
        intake.frames[3].positions, water.positions[3] + 1, atol=1e-8
    )
    mixed = read_labels(path, energy_key="cc_E", forces_key="F")
    np.testing.assert_allclose(mixed.forces[3], water.forces[3])


def test_smaller_molecules_are_padded_with_zeros(water, tmp_path):
    numbers = np.array([[8, 1, 1], [1, 1, 0]])
    np.savez(
        tmp_path / "x.npz",
        **{"Z": numbers, "R": water.positions[:2], "E": [-1.0, -2.0]},
        **{"F": water.forces[:2], "Q": [0.0, 1.0], "N": [3, 2]},
    )
    intake = read_labels(tmp_path / "x.npz", spin=0)
    assert [len(frame) for frame in intake.frames] == [3, 2]
    assert [frame.charge for frame in intake.frames] == [0, 1]
    np.testing.assert_array_equal(intake.forces[1], water.forces[1, :2])


@pytest.mark.parametrize("name", ["x.extxyz", "x.xyz", "x.traj", "x.db"])
def test_ase_formats_are_read(water, tmp_path, name):
    path = tmp_path / name
    if name.endswith(".db"):
        with ase.db.connect(path) as database:
            for atoms in images(water):
                database.write(atoms)
    else:
        write(path, images(water))
    check(read_labels(path), water)


def test_extxyz_is_read_under_the_keys_of_trainers_first(water, tmp_path):
    found = images(water, "REF_energy", "REF_forces")
    for atoms in found:
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.ones((3, 3)))
    write(tmp_path / "x.xyz", found)
    check(read_labels(tmp_path / "x.xyz"), water)


def test_extxyz_is_read_under_the_keys_that_are_given(water, tmp_path):
    write(tmp_path / "x.xyz", images(water, "dft_energy", "dft_forces"))
    keys = {"energy_key": "dft_energy", "forces_key": "dft_forces"}
    check(read_labels(tmp_path / "x.xyz", **keys), water)


def test_units_are_converted(water, saved):
    path = saved(energy=1 / HARTREE, length=1 / BOHR, force=BOHR / HARTREE)
    units = {"energy_unit": "hartree", "length_unit": "bohr"}
    check(read_labels(path, **units), water)
    mixed = saved(energy=1 / HARTREE, force=1 / KCAL_PER_MOL)
    check(
        read_labels(mixed, energy_unit="hartree", force_unit="kcal/mol/angstrom"), water
    )


def test_forces_default_to_energy_over_length():
    assert FileUnits("hartree", "bohr").force == "hartree/bohr"
    assert FileUnits("hartree", "bohr").to_ev_per_angstrom == pytest.approx(
        51.422, abs=1e-3
    )


def test_charge_and_spin_come_from_the_file_or_from_the_user(water, tmp_path):
    (atoms,) = images(water)[:1]
    atoms.info |= {"charge": -1, "spin": 1}
    write(tmp_path / "x.xyz", atoms)
    (frame,) = read_labels(tmp_path / "x.xyz").frames
    assert (frame.charge, frame.spin) == (-1, 1)
    (frame,) = read_labels(tmp_path / "x.xyz", charge=1, spin=3).frames
    assert (frame.charge, frame.spin) == (1, 3)


def test_a_user_who_knows_settles_what_the_file_leaves_open(water, tmp_path):
    (atoms,) = images(water)[:1]
    atoms.info |= {"charge": 0, "total_charge": 1, "formal_spin": 2}
    write(tmp_path / "x.xyz", atoms)
    with pytest.raises(InputError, match="`charge` 0, `total_charge` 1; give `charge`"):
        read_labels(tmp_path / "x.xyz", spin=1)
    with pytest.raises(InputError, match="`formal_spin` 2; give `multiplicity`"):
        read_labels(tmp_path / "x.xyz", charge=1)
    (frame,) = read_labels(tmp_path / "x.xyz", charge=1, spin=1).frames
    assert (frame.charge, frame.spin) == (1, 1)
    (same,) = read_labels(tmp_path / "x.xyz", charge=1, multiplicity=2).frames
    assert same == frame
    with pytest.raises(InputError, match="got both; leave one out"):
        read_labels(tmp_path / "x.xyz", spin=1, multiplicity=2)


def test_charges_of_atoms_in_an_npz_are_summed(saved):
    partial = np.tile([0.5, 0.26, 0.25], (200, 1))
    multiplicity = np.full(200, 2.0)
    intake = read_labels(saved(charge=partial, multiplicity=multiplicity))
    assert {(frame.charge, frame.spin) for frame in intake.frames} == {(1, 1)}


def test_total_spin_is_a_multiplicity(water, tmp_path):
    (atoms,) = images(water)[:1]
    atoms.info |= {"total_charge": 1, "total_spin": 2}
    write(tmp_path / "x.xyz", atoms)
    (frame,) = read_labels(tmp_path / "x.xyz").frames
    assert (frame.charge, frame.spin) == (1, 1)


def test_electrons_that_do_not_fit_are_a_warning(saved):
    intake = read_labels(saved(), charge=1)
    assert "charge 1 and spin 0" in intake.warnings[0]
    assert "frames 0, 1, 2 and 197 more" in intake.warnings[0]
    assert read_labels(saved(), charge=1, spin=1).warnings == ()


def test_cells_are_kept_and_converted(water, tmp_path):
    (atoms,) = images(water)[:1]
    atoms.set_cell([5.0, 6.0, 7.0])
    atoms.pbc = (True, True, False)
    write(tmp_path / "x.xyz", atoms)
    (frame,) = read_labels(tmp_path / "x.xyz", length_unit="nm").frames
    np.testing.assert_allclose(np.diag(frame.cell), [50.0, 60.0, 70.0])
    assert frame.pbc == (True, True, False)


def test_the_stress_of_cells_is_read_and_converted(water, tmp_path):
    first, second, third = images(water)[:3]
    stress = np.arange(1.0, 7.0)
    first.set_cell([5.0, 6.0, 7.0])
    first.pbc = True
    first.info["REF_stress"] = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]], float)
    second.info["REF_stress"] = stress  # a molecule: it means nothing
    third.set_cell(first.cell)
    third.pbc = True
    write(tmp_path / "x.xyz", [first, second, third])
    found = read_labels(tmp_path / "x.xyz", energy_unit="meV", length_unit="nm")
    one, *others = found.stress
    np.testing.assert_allclose(one, stress * 1e-3 / 1e3)
    assert others == [None, None]
    np.testing.assert_array_equal(next(iter(found)).label("a" * 16).stress, one)
    first.info["REF_stress"] = np.ones(4)
    write(tmp_path / "x.xyz", first)
    with pytest.raises(InputError, match=r"expected a stress of 6 or 3 x 3 numbers"):
        read_labels(tmp_path / "x.xyz")


def test_labels_carry_the_level_they_are_declared_to_be_of(water, saved):
    labels = [x.label("a" * 16) for x in read_labels(saved())]
    assert len(labels) == 200
    assert all(isinstance(x, Label) and x.level == "a" * 16 for x in labels)
    assert labels[7].energy == pytest.approx(water.energies[7])


@pytest.fixture
def store(water, tmp_path):
    """A store with a seed at both levels, another cheap one, and a test frame."""
    frames = [Frame(water.numbers, x) for x in water.positions[:3]]
    asked = [(0, "cheap"), (1, "cheap"), (0, "expensive"), (2, "expensive")]
    levels = {"cheap": "c" * 16, "expensive": "e" * 16}
    given = tuple(
        e.Given(
            frames[i],
            0,
            fidelity,
            Label(frames[i].id, levels[fidelity], water.energies[i], water.forces[i]),
            test=i == 2,
        )
        for i, fidelity in asked
    )
    path = tmp_path / "old.zarr"
    with Archive.create(path, attrs={"config": ""}, codec=CODEC) as archive:
        archive.append(e.Turn(e.Opened(7, levels, (frames[0],), given)))
        archive.append(e.Turn(e.Excluded(frames[1].id, "cheap", "odd")))
    return path, frames


@pytest.mark.parametrize(
    ("fidelity", "which"), [("cheap", 0), ("expensive", 0), ("test", 2)]
)
def test_another_store_gives_what_it_trains_or_tests_on(water, store, fidelity, which):
    path, frames = store
    intake = read_labels(path, fidelity=fidelity)
    assert intake.frames == (frames[which],)
    assert intake.energies[0] == water.energies[which]
    np.testing.assert_array_equal(intake.forces[0], water.forces[which])


def test_a_store_is_asked_for_a_fidelity_and_has_its_own_units(store):
    path, _ = store
    with pytest.raises(InputError, match="one of cheap, expensive, test"):
        read_labels(path)
    with pytest.raises(InputError, match="leave the units out"):
        read_labels(path, fidelity="cheap", energy_unit="hartree")


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"energy_unit": "ev"}, "got `ev`, did you mean `eV`"),
        ({"energy_unit": "kcal"}, "did you mean `kcal/mol`"),
        ({"length_unit": "Bohr"}, "expected length_unit .* did you mean `bohr`"),
        ({"force_unit": "ev/A"}, "expected force_unit .* got `ev/A`"),
    ],
)
def test_an_unknown_unit_is_met_with_the_nearest_one(saved, units, message):
    with pytest.raises(InputError, match=message):
        read_labels(saved(), **units)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"labelled frames at .*no\.xyz, found nothing"
    ):
        read_labels(tmp_path / "no.xyz")


@pytest.mark.parametrize("name", ["x.npz", "x.xyz", "x.db", "x.what"])
def test_a_file_that_is_none_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_text("not a file of frames")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / name)


def test_an_empty_file_is_one_sentence(tmp_path):
    (tmp_path / "x.xyz").write_text("")
    with pytest.raises(InputError, match=r"cannot be read|found none"):
        read_labels(tmp_path / "x.xyz")


def test_missing_arrays_are_named_with_what_there_is(saved):
    with pytest.raises(
        InputError, match=r"one of f, force, forces in .* holds z, R, E;"
    ):
        read_labels(saved(F=None))
    with pytest.raises(InputError, match="array `G` in"):
        read_labels(saved(), forces_key="G")
    with pytest.raises(InputError, match="did you mean `energies`"):
        read_labels(saved(E=None, energies=np.zeros(200)), energy_key="energie")


def test_missing_forces_are_named_with_what_there_is(water, tmp_path):
    (atoms,) = images(water)[:1]
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    write(tmp_path / "x.xyz", atoms)
    with pytest.raises(InputError, match=r"`REF_forces` or `forces` in frame 0"):
        read_labels(tmp_path / "x.xyz")
    with pytest.raises(InputError, match="did you mean `energy`"):
        read_labels(tmp_path / "x.xyz", energy_key="enrgy")


def test_energies_alone_are_read_where_they_are_enough(water, saved, tmp_path):
    for atoms in (some := images(water)[:2]):
        atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    write(tmp_path / "x.xyz", some)
    for path in (tmp_path / "x.xyz", saved(F=None)):
        found = read_labels(path, energies_alone=True)
        assert all(np.isnan(forces).all() for forces in found.forces)
        assert np.isfinite(found.energies).all()
        assert not any("force is" in text for text in found.warnings)
    whole = read_labels(saved(), energies_alone=True)
    assert np.isfinite(whole.forces).all()
    with pytest.raises(InputError, match="array `G` in"):
        read_labels(saved(F=None), forces_key="G", energies_alone=True)
    bad = water.forces.copy()
    bad[3, 0, 0] = np.nan
    with pytest.raises(InputError, match="frames 3 have others"):
        read_labels(saved(F=bad), energies_alone=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"E": np.zeros(3)}, "energies of 200 frames .* got 3"),
        ({"F": np.zeros((200, 2, 3))}, r"forces of shape \(3, 3\) in frame 0"),
        ({"z": np.array([8, 1])}, r"positions of shape \(2, 3\) in frame 0"),
        ({"z": np.ones((4, 3), dtype=int)}, "atomic numbers of 200 frames .* got 4"),
        ({"q": np.zeros(7)}, r"each frame as `q` of .* shape \(7,\); mend it"),
        ({"charge": np.full(200, 0.4)}, "whole numbers as `charge` in .*, got 0.4"),
        ({"charge": np.full(200, np.nan)}, "whole numbers as `charge` in .*, got nan"),
        ({"spin": np.ones(200), "multiplicity": np.ones(200)}, "to agree, they differ"),
    ],
)
def test_shapes_that_do_not_fit_are_one_sentence(saved, arrays, message):
    with pytest.raises(InputError, match=message):
        read_labels(saved(**arrays))


def test_numbers_that_are_none_are_refused(water, saved):
    forces = water.forces.copy()
    forces[[4, 9], 0, 0] = np.nan
    with pytest.raises(InputError, match=r"frames 4, 9 have others"):
        read_labels(saved(F=forces))


def test_pickled_arrays_are_not_opened(tmp_path):
    np.savez(tmp_path / "x.npz", z=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="npz of plain arrays"):
        read_labels(tmp_path / "x.npz")
