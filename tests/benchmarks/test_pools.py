"""The making, the writing and the reading of frozen pools."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from alloop.labels.xtb import xtb_level
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.accuracy.labelled_pool import DATA, read_pool
from benchmarks.accuracy.selection.make_pools import (
    LabelledFrame,
    Piece,
    PoolFrame,
    g2_frame,
    md_frames,
    minimum,
    scan_frames,
    stored_frame,
    stretched,
    turned,
    write_pool,
)
from benchmarks.accuracy.selection.table_campaign import pool_setup


def ethanol_atoms(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions)


def test_scans_change_one_bond_or_the_torsion_alone() -> None:
    start = g2_frame("CH3CH2OH")
    for bond, (i, j) in {"o-h": (2, 3), "c-o": (1, 2), "c-c": (1, 0)}.items():
        longer = ethanol_atoms(stretched(start, bond, 1.7))
        assert longer.get_distance(i, j) == pytest.approx(1.7)
    moved = ethanol_atoms(turned(start, 75.0))
    assert moved.get_dihedral(0, 1, 2, 3) == pytest.approx(75.0)
    bonds = ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8))
    for a, b in bonds:
        length = ethanol_atoms(start).get_distance(a, b)
        assert moved.get_distance(a, b) == pytest.approx(length)
    names = [name for name, _ in scan_frames([start], 3)]
    assert names == ["torsion"] * 3 + ["o-h"] * 3 + ["c-o"] * 3 + ["c-c"] * 3


def test_frames_of_md_are_those_that_a_file_of_single_precision_holds() -> None:
    potential = LabellerPotential(DirectLabeller(toy_level()))
    minima = [minimum(g2_frame("H2O"), potential)]
    piece = Piece(300.0, walkers=2, frames=3, before=4, between=2)
    frames = md_frames(minima, potential, piece, "test")
    assert len({frame.id for frame in frames}) == 6
    for frame in frames:
        rounded = frame.positions.astype(np.float32).astype(np.float64)
        assert Frame(frame.numbers, rounded) == frame
    again = md_frames(minima, potential, piece, "test")
    assert [frame.id for frame in again] == [frame.id for frame in frames]


def test_a_pool_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    kinds = (("modes300", "pool"), ("md300", "pool"), ("md1500", "pool"))
    frames = []
    for number, name in enumerate(["H2O", "HCN", "NH3"]):
        for origin, part in (*kinds, ("md300", "thermal")):
            start = g2_frame(name)
            moved = start.positions + rng.normal(0.0, 0.05, start.positions.shape)
            frame = stored_frame(Frame(start.numbers, moved))
            labels = {
                fidelity: Label(
                    frame.id,
                    fidelity,
                    float(rng.normal()),
                    rng.normal(size=moved.shape).astype(np.float32).astype(float),
                    cost * (number + 1),
                )
                for fidelity, cost in (("cheap", 0.5), ("expensive", 8.0))
            }
            found = PoolFrame(frame, name, origin, part)
            frames.append(LabelledFrame(found, labels))
    write_pool(tmp_path / "three.npz", frames)
    pool = read_pool(tmp_path / "three.npz")
    assert pool.frames == tuple(x.source.frame for x in frames)
    assert [pool.names[i] for i in pool.molecules] == [
        x.source.molecule for x in frames
    ]
    for key, table in pool.tables.items():
        for index, each in enumerate(frames):
            assert table.energies[index] == each.labels[key].energy
            assert (table.forces[index] == each.labels[key].forces).all()
        expected = [each.labels[key].cpu_seconds for each in frames]
        assert pool.prices(None)[key] == pytest.approx(expected)
    assert pool.chosen.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert pool.first.tolist() == [0, 4, 8]
    assert pool.plain.tolist() == [1, 5, 9]
    assert pool.tests["thermal"].tolist() == [3, 7, 11]
    assert [len(frame) for frame in pool.start] == [3, 3, 4]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.npz")), ids=lambda path: path.stem)
def test_a_shipped_pool_holds_the_labels_of_its_geometries(path: Path) -> None:
    pytest.importorskip("tblite")
    pool = read_pool(path)
    for index in (int(pool.chosen[0]), *(int(x[-1]) for x in pool.tests.values())):
        label = DirectLabeller(xtb_level("gfn2-xtb")).label(pool.frames[index])
        table = pool.tables["cheap"]
        assert table.energies[index] == pytest.approx(label.energy, abs=1e-6)
        assert table.forces[index] == pytest.approx(label.forces, abs=1e-5)
    tested = np.concatenate(list(pool.tests.values()))
    assert len({frame.id for frame in pool.frames}) == len(pool.frames)
    assert not set(tested.tolist()) & set(pool.chosen.tolist())
    assert set(pool.molecules[pool.first].tolist()) == set(range(len(pool.names)))
    prices = pool.prices(None)
    assert prices["expensive"].mean() > 20.0 * prices["cheap"].mean()
    count = len(pool.names)  # one label of each molecule at least
    amounts = {"cheap": 8 * count, "expensive": 4 * count}
    first = {"cheap": 2 * count, "expensive": count}
    settings = {"budget": amounts, "seeds": first}
    assert len(pool_setup(pool, settings, {}).start) == count
    assert path.stat().st_size < 1_500_000
