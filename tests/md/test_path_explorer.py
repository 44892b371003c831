"""Paths found from one molecule alone, at a level that knows the others."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.config.load import parse_level
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.seeds import random_stream
from alloop.labels.direct import DirectLabeller
from alloop.md.path_explorer import (
    PathExplorerSettings,
    low_minima,
    path_bands,
    transferred_frames,
)
from alloop.md.reaction_path import (
    PathSettings,
    find_path,
    stationary_point,
    with_saddle,
)
from alloop.md.shapes import bonded_atoms
from alloop.md.thermal_frames import relax_frame
from alloop.potentials.labeller_potential import LabellerPotential
from tests.conftest import skip_without
from tests.md.test_reaction_path import DoubleWell, pair

CYANIDE = from_atoms(Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]]))
ISOCYANIDE = from_atoms(Atoms("HCN", [[0, 0, 2.15], [0, 0, 0], [0, 0, 1.15]]))


@pytest.fixture(scope="module")
def surface() -> LabellerPotential:
    skip_without("tblite")
    return LabellerPotential(DirectLabeller(parse_level("gfn2-xtb")))


def test_the_barrier_of_hydrogen_cyanide_is_found_from_one_side(
    surface: LabellerPotential,
) -> None:
    settings = PathExplorerSettings(images=5, proposals=8, isomers=True)
    band, *_ = path_bands([CYANIDE], surface, settings, random_stream(0, "paths"))
    frames = band.images
    energies = surface.predict(pack_frames(frames)).energies
    first, last = (relax_frame(x, surface) for x in (CYANIDE, ISOCYANIDE))
    path = find_path(first, last, surface, PathSettings(images=5, relax=False))
    height = energies.max() - energies[0]
    assert height == pytest.approx(path.energies.max(), abs=0.02)
    assert frames[int(energies.argmax())].id == band.top.id
    assert frames[-1].id == band.minimum.id
    bonds = [bonded_atoms(x)[0] for x in frames]
    assert any(x[2] and not x[1] for x in bonds)  # the hydrogen at the nitrogen


def test_the_top_of_a_path_is_put_on_the_saddle_point(
    surface: LabellerPotential,
) -> None:
    rough = PathSettings(images=5, fmax=0.3)
    path = find_path(CYANIDE, ISOCYANIDE, surface, rough)
    saddle, modes = stationary_point(path.batch.frame(path.top), surface)
    assert np.sum(modes.wavenumbers < 0.0) == 1
    forces = surface.predict(pack_frames([saddle])).forces
    assert np.abs(forces).max() < 1e-3
    fine = find_path(CYANIDE, ISOCYANIDE, surface, PathSettings(images=9, fmax=0.01))
    refined = with_saddle(path, saddle, surface)
    assert refined.energies.max() == pytest.approx(fine.energies.max(), abs=2e-3)
    with pytest.raises(InputError, match="stationary point"):
        stationary_point(saddle, surface, fmax=0.0)


def test_a_path_that_is_done_is_passed_over_and_one_that_is_not_is_followed(
    surface: LabellerPotential,
) -> None:
    settings = PathExplorerSettings(images=3, proposals=8, isomers=True, effort=40)
    band, *_ = path_bands([CYANIDE], surface, settings, random_stream(0, "paths"))
    stream = random_stream(0, "paths")
    assert not path_bands([CYANIDE], surface, settings, stream, done=[band.minimum])
    few = replace(settings, proposals=1, isomers=True)
    for number in range(4):  # streams that do not find it alone
        stream = random_stream(number, "few")
        if not path_bands([CYANIDE], surface, few, stream):
            break
    else:
        pytest.fail("one proposal always finds the isomer")
    again = path_bands(
        [CYANIDE],
        surface,
        few,
        random_stream(number, "few"),
        followed=[band.minimum],
    )
    assert len(again) == 1


def test_the_same_stream_gives_the_same_frames(surface: LabellerPotential) -> None:
    settings = PathExplorerSettings(images=3, proposals=4, effort=20, isomers=True)
    first, second = (
        path_bands([CYANIDE], surface, settings, random_stream(0, "paths"))
        for _ in range(2)
    )
    assert [x.top.id for x in first] == [x.top.id for x in second] != []


def test_bonds_stay_as_they_are_unless_isomers_are_wanted(
    surface: LabellerPotential,
) -> None:
    ethanol = relax_frame(from_atoms(molecule("CH3CH2OH")), surface)
    settings = PathExplorerSettings(images=3, proposals=4, effort=40)
    bands = path_bands([ethanol], surface, settings, random_stream(0, "paths"))
    bonds = bonded_atoms(ethanol)
    frames = [frame for band in bands for frame in band.images]
    assert frames  # to the other rotamer
    assert all(np.array_equal(bonded_atoms(x), bonds) for x in frames)


def test_a_hydrogen_is_moved_to_the_other_oxygen_of_an_acid() -> None:
    acid = from_atoms(molecule("HCOOH"))
    bonded = bonded_atoms(acid)
    oxygens = np.flatnonzero(acid.numbers == 8)
    carbonyl = next(x for x in oxygens if bonded[x].sum() == 1)
    moved = list(transferred_frames(acid, 3.0, random_stream(0, "moves")))
    partners = [bonded_atoms(x)[carbonyl] & (x.numbers == 1) for x in moved]
    assert sum(x.any() for x in partners) == 2  # from the oxygen, and from carbon
    assert not list(transferred_frames(acid, 0.5, random_stream(0, "moves")))


def test_minima_that_are_one_are_counted_once() -> None:
    settings = PathExplorerSettings()
    frames = [pair(x) for x in (2.0, 2.2, 4.0)]
    turned = replace(pair(4.1), positions=np.array([[5, 0, 0], [5, 4.1, 0]]))
    minima = low_minima(frames, [turned], DoubleWell(), settings)
    lengths = [float(np.ptp(x.positions, axis=0).max()) for x in minima]
    assert sorted(lengths) == pytest.approx([2.1, 3.9], abs=1e-2)
    assert path_bands([pair(2.1)], DoubleWell(), settings, random_stream(0, "")) == []
