"""The benchmark of protocols: what is learned, what is held out, and its sampling."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from alloop.core.atoms import hill_formula
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.potentials.analytic import Morse
from benchmarks.accuracy.exploration.clusters import (
    CLUSTERS,
    Sphere,
    histogram_distance,
    packed_cluster,
    pair_histogram,
)
from benchmarks.accuracy.exploration.periodic import (
    _by_quarter,
    energy_slope,
    table,
    twins,
)
from benchmarks.accuracy.exploration.protocol_systems import (
    Conditions,
    _pretraining_frames,
    fresh_walkers,
    move,
)
from benchmarks.accuracy.labelled_pool import DATA, read_pool

H2 = Frame([1, 1], [[0, 0, 0], [0, 0, 0.74]])


def test_the_universal_model_has_not_seen_the_molecule_nor_the_old_frames() -> None:
    pool = read_pool(DATA / "molecules.npz")
    own = pool.names.index("CH3OH")
    known, old = _pretraining_frames(pool, own, Namespace(known=200, test=50), 0)
    assert (len(known), len(old)) == (200, 50)
    learned, held = (x.batch.frames() for x in (known, old))
    assert not {f.id for f in learned} & {f.id for f in held}
    assert "CH4O" not in {hill_formula(f) for f in (*learned, *held)}


def test_frames_are_spread_over_the_later_part_of_a_run() -> None:
    begin = fresh_walkers(H2, 2, 0, "test")
    seen, moved = move(begin, Morse(4.7, 1.9, 0.74), 100, 0, "test")
    assert all(walker.step == 100 for walker in moved)
    assert sorted(seen.steps) == seen.steps
    some = seen.spread(4, after=50)
    assert len(some.frames) == 4
    assert min(some.steps) > 50
    assert len(seen.spread(1000).frames) == len(seen.frames)
    again, _ = move(begin, Morse(4.7, 1.9, 0.74), 100, 0, "test")
    assert [x.id for x in again.frames] == [x.id for x in seen.frames]


def test_quarters_of_a_run_that_ends_early_stay_empty() -> None:
    found = _by_quarter(np.array([1.0, 3.0, 5.0]), [10, 20, 40], 99)
    assert found == [2.0, 5.0, None, None]


def test_an_empty_folder_gives_no_table() -> None:
    sizes = dict.fromkeys(
        ("molecule", "truth", "channels", "known", "pretrain", "generations"), 1
    )
    sizes |= dict.fromkeys(("labels", "walkers", "steps", "tune", "lr", "share"), 1)
    sizes |= dict.fromkeys(("own", "own_steps", "true_steps", "long_steps", "test"), 1)
    given = Namespace(arms=["naive"], seed=[0], cluster=None, **sizes)
    assert table(given, {}, [0]) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(CLUSTERS))
def test_a_packed_cluster_has_all_its_molecules_apart(name: str) -> None:
    pytest.importorskip("rdkit")
    cluster = packed_cluster(name, 0)
    assert cluster.charge == 0
    formula = {"acid": "C2H26O16", "solvent": "C7H36ClN5O10"}[name]
    assert hill_formula(cluster) == formula
    gaps = np.linalg.norm(cluster.positions[:, None] - cluster.positions, axis=2)
    assert gaps[np.triu_indices(len(cluster), 1)].min() > 0.9
    assert abs(np.linalg.norm(cluster.positions, axis=1).max()) < 9.0
    assert packed_cluster(name, 0).id == cluster.id
    assert packed_cluster(name, 1).id != cluster.id


def test_the_wall_pushes_inwards_with_the_slope_of_its_energy() -> None:
    wall, step = Sphere(2.0), 1e-5
    inside, outside = [0.1, 0.2, 0.3], [1.0, 2.0, 2.0]
    said = wall.predict(pack_frames([Frame(H2.numbers, np.array([inside, outside]))]))
    assert said.energies[0] == pytest.approx(0.25)
    assert np.allclose(said.forces[0], 0.0)
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            moved = np.array([inside, outside])
            moved[1, axis] += sign * step
            batch = replace(pack_frames([H2]), positions=moved)
            energies.append(float(wall.predict(batch).energies[0]))
        slope = (energies[0] - energies[1]) / (2 * step)
        assert said.forces[1, axis] == pytest.approx(-slope, abs=1e-6)


def test_walkers_stay_within_the_wall() -> None:
    helium = Frame(np.array([2, 2]), np.array([[0, 0, -1.5], [0, 0, 1.5]]))
    farthest = []
    for wall in (Sphere(2.0), None):
        at = Conditions(kelvin=2000.0, timestep=1.0, wall=wall)
        begin = fresh_walkers(helium, 2, 0, "test", at)
        seen, _ = move(begin, Morse(0.01, 1.9, 0.74), 300, 0, "test", at)
        far = [np.linalg.norm(x.positions, axis=1).max() for x in seen.frames]
        farthest.append(max(far))
    assert farthest[0] < 3.5 < farthest[1]


def test_distances_of_a_cluster_are_compared_pair_by_pair() -> None:
    pytest.importorskip("rdkit")
    first, second = (pair_histogram([packed_cluster("acid", x)]) for x in (0, 1))
    assert first.shape == (2, 70)
    assert np.allclose(first.sum(axis=1) * 0.1, 1.0)
    assert histogram_distance(first, first) == 0.0
    assert 0.0 < histogram_distance(first, second) < 2.0


def test_arms_of_clusters_share_what_is_the_same() -> None:
    alike = Namespace(cluster="acid")
    assert twins("naive", 0, alike)[0] == "periodic"
    assert twins("naive", 1, alike) == ["periodic", "naive", "non-periodic"]
    assert twins("periodic, replay", 1, alike) == ["periodic, replay"]
    assert twins("naive", 2, alike) == ["naive"]
    assert twins("naive", 0, Namespace(cluster=None)) == ["naive"]


def test_the_slope_is_that_of_a_line_through_the_residuals() -> None:
    energies = np.array([0.0, 2.0, 6.0])
    truth = LabelSet.of([H2] * 3, energies, [np.zeros((2, 3))] * 3)
    residuals = 0.7 - 0.25 * energies / 2
    assert energy_slope(residuals, truth) == pytest.approx(-0.25)
