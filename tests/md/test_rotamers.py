"""Rotamers: their names, turns that keep thermal equilibrium, conformers known."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN, Floats
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import Langevin, maxwell_boltzmann
from alloop.md.rotamers import (
    Turns,
    drawn_conformer,
    known_conformers,
    turn_walkers,
)
from alloop.md.shapes import has_torsions, turned_frame

KELVIN = 500.0
GAP, BARRIER = 0.05, 1.0  # eV, between trans and cis, and to get from one to the other


class DoubleWell:
    """H2O2 with springs, and a torsion with minima at cis and, lower, at trans."""

    def predict(self, batch: Batch, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        q = batch.positions.reshape(-1, 1, 12)
        shifts = 1e-4 * np.concatenate([np.zeros((1, 12)), np.eye(12), -np.eye(12)])
        energies = well_energies((q + shifts).reshape(*q.shape[:1], 25, 4, 3))
        forces = (energies[:, 13:] - energies[:, 1:13]) / 2e-4
        return Predictions(energies[:, 0], forces.reshape(-1, 3))


def well_energies(q: Floats) -> Floats:
    """Energies (..., ) of positions (..., 4, 3)."""
    arms = np.diff(q, axis=-2)
    lengths = np.linalg.norm(arms, axis=-1)
    normals = np.cross(arms[..., :2, :], arms[..., 1:, :])
    sizes = np.linalg.norm(normals, axis=-1)
    cosine = (normals[..., 0, :] * normals[..., 1, :]).sum(-1) / sizes.prod(-1)
    straight = (arms[..., :2, :] * arms[..., 1:, :]).sum(-1)
    straight = straight / (lengths[..., :2] * lengths[..., 1:])
    springs = 10.0 * (lengths - [0.97, 1.45, 0.97]) ** 2
    bends = 2.0 * (straight - 0.17) ** 2
    torsion = 0.5 * BARRIER * (1.0 - cosine**2) + 0.5 * GAP * cosine
    out: Floats = torsion + springs.sum(-1) + bends.sum(-1)
    return out


def peroxide(degrees: float) -> Frame:
    """H2O2 at a torsion angle: atoms H, O, O, H."""
    atoms = molecule("H2O2")[[2, 0, 1, 3]]
    atoms.set_dihedral(0, 1, 2, 3, degrees, indices=[3])
    return from_atoms(atoms)


def is_cis(frame: Frame) -> bool:
    degrees = to_atoms(frame).get_dihedral(0, 1, 2, 3)
    return bool(np.cos(np.radians(degrees)) > 0.0)


def exact_share() -> float:
    """The share of cis: bonds and angles have no part in the torsion's distribution."""
    cosine = np.cos(np.linspace(0.0, np.pi, 20_001))
    energies = 0.5 * BARRIER * (1.0 - cosine**2) + 0.5 * GAP * cosine
    weights = np.exp(-energies / (BOLTZMANN * KELVIN))
    return float(weights[cosine > 0.0].sum() / weights.sum())


def populations(attempts: int, pieces: int, count: int = 32) -> list[float]:
    """The share of cis after each piece; all walkers begin there."""
    frame, potential = peroxide(0.0), DoubleWell()
    rngs = [random_stream(3, f"walker/{i}") for i in range(count)]
    walkers = tuple(
        Walker(i, 0, frame, maxwell_boltzmann(frame, KELVIN, rng), temperature=KELVIN)
        for i, rng in enumerate(rngs)
    )
    dynamics = DynamicsSettings(
        integrator=Langevin(0.05), temperature=KELVIN, timestep=1.0
    )
    shares = []
    for _ in range(pieces):
        turns = {0: Turns.of(frame)}
        walkers = turn_walkers(walkers, turns, potential, attempts, rngs, 0.6)
        walkers = run_dynamics(walkers, potential, dynamics, 20, rngs).walkers
        assert not any(x.stopped for x in walkers)
        shares.append(float(np.mean([is_cis(x.frame) for x in walkers])))
    return shares


def test_turns_reach_the_exact_populations_of_a_double_well() -> None:
    assert populations(attempts=0, pieces=2) == [1.0, 1.0]
    shares = populations(attempts=20, pieces=12)[2:]
    exact = exact_share()
    assert 0.2 < exact < 0.3
    error = np.sqrt(exact * (1.0 - exact) / (32 * len(shares)))
    assert np.mean(shares) == pytest.approx(exact, abs=3.0 * error)


def test_minima_are_drawn_by_their_weights() -> None:
    minima, energies = known_conformers(
        [peroxide(10.0), peroxide(170.0), peroxide(175.0), peroxide(350.0)],
        DoubleWell(),
        Turns.of(peroxide(90.0)),
    )
    assert [is_cis(x) for x in minima] == [False, True]
    assert energies[1] - energies[0] == pytest.approx(GAP, abs=1e-3)
    rng = np.random.default_rng(0)
    drawn = [is_cis(drawn_conformer(minima, energies, KELVIN, rng)) for _ in range(999)]
    weight = np.exp(-GAP / (BOLTZMANN * KELVIN))
    assert np.mean(drawn) == pytest.approx(weight / (1.0 + weight), abs=0.05)


def rotamers(name: str, degrees: list[int]) -> list[str]:
    """Names of a molecule's rotamers, its torsion turned from where it is."""
    frame = from_atoms(molecule(name))
    turns = Turns.of(frame)
    (torsion,) = turns.torsions
    middle = set(torsion.atoms[1:3])
    bond = next(x for x in turns.bonds if {x.fixed, x.moved} == middle)
    turned = (turned_frame(frame, bond, np.radians(angle)) for angle in degrees)
    return [turns.rotamer(x) for x in turned]


def test_rotamers_are_named_by_torsions_that_make_a_difference() -> None:
    assert rotamers("trans-butane", [0, 50, -50]) == ["t", "t", "t"]
    assert set(rotamers("trans-butane", [115, -115])) == {"+", "-"}
    assert set(rotamers("CH3CH2OH", [0, 120, 240])) == {"t", "+", "-"}
    assert set(rotamers("HCOOH", [0, 180])) == {"c", "t"}
    assert rotamers("H2O2", [0]) != rotamers("H2O2", [130])
    for rigid in ("CH3OH", "C2H6", "CH3NO2"):  # tops: a third of a turn is none
        turns = Turns.of(from_atoms(molecule(rigid)))
        assert turns.bonds
        assert not turns.torsions


def test_molecules_with_torsions_are_told_from_others() -> None:
    for name, flexible in (
        ("H2O", False),
        ("NH3", False),
        ("H2CO", False),
        ("H2O2", True),
        ("C6H6", True),
    ):
        frame = from_atoms(molecule(name))
        assert has_torsions(frame) is flexible
        cell = replace(frame, cell=10.0 * np.eye(3), pbc=(True, True, True))
        assert not has_torsions(cell)
