"""Surprise and selection in cells: strain is as strange as displacement."""

import numpy as np
import pytest
from ase.build import bulk

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Candidate
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import QResidualScorer
from alloop.selection import LargestCluster

BASIS = PairBasis((18,), radial=8, cutoff=6.0)
MODEL = PairwisePotential(BASIS, np.zeros(BASIS.size))


def argon(strain: float, rattle: float, seed: int, repeat: int = 1) -> Frame:
    atoms = bulk("Ar", "fcc", a=5.3 * (1.0 + strain), cubic=True)
    atoms.rattle(rattle, seed=seed)
    return from_atoms(atoms * (repeat, 1, 1))


def known(count: int, first: int = 0) -> list[Frame]:
    rng = np.random.default_rng(first)
    strains = rng.normal(0.0, 0.005, count)
    return [argon(float(x), 0.05, first + i) for i, x in enumerate(strains)]


def fitted(scorer):
    batches = pack_frames(known(20)), pack_frames(known(20, 100))
    return scorer.fit(MODEL, *batches, None)


def surprise(scorer, frames: list[Frame]) -> np.ndarray:
    batch = pack_frames(frames)
    return scorer.score(batch, MODEL.predict(batch, descriptors=True))


@pytest.mark.parametrize("scorer", [LeverageScorer(), QResidualScorer(0.9)])
def test_surprise_rises_with_strain_and_sees_the_same_crystal_alike(scorer) -> None:
    own = fitted(scorer)
    usual = surprise(own, known(20, 200)).max()
    strained = surprise(own, [argon(x, 0.05, 7) for x in (0.02, 0.05, 0.1)])
    assert (np.diff(strained) > 0.0).all()
    assert strained[1] > 2.0 * usual
    one = argon(0.03, 0.05, 7)
    moved = Frame(
        one.numbers, one.positions + 0.6 * one.cell[1], 0, 0, one.cell, one.pbc
    )
    wrapped = moved.positions @ np.linalg.inv(one.cell) % 1.0 @ one.cell
    inside = Frame(one.numbers, wrapped, 0, 0, one.cell, one.pbc)
    same = surprise(own, [one, moved, inside])
    np.testing.assert_allclose(same, same[0], rtol=1e-5)


def test_clusters_of_cells_are_their_strains() -> None:
    """Of three kinds of cells with many copies each, three choices are all kinds."""
    frames = [argon(x, 0.01, i) for x in (0.0, 0.04, 0.08) for i in range(8)]
    batch = pack_frames(frames)
    described = MODEL.predict(batch, descriptors=True).descriptors
    assert described is not None
    candidates = [
        Candidate(
            x, 0, 0, i, 1.0, 0.0, np.zeros((4, 3)), described[4 * i : 4 * i + 4].mean(0)
        )
        for i, x in enumerate(frames)
    ]
    rng = np.random.default_rng(0)
    far = np.zeros((0, BASIS.radial))
    chosen = LargestCluster().select(candidates, far, 3, rng, 0.5)
    assert {i // 8 for i in chosen} == {0, 1, 2}
