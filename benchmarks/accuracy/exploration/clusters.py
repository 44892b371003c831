"""Clusters of several molecules: packing, a soft wall around them, and distances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from ase.data import atomic_numbers
from ase.optimize import FIRE
from scipy.spatial.transform import Rotation

from alloop.core.arrays import segment_sums
from alloop.core.atoms import to_atoms
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.conformers import smiles_conformers
from alloop.potentials.ase_calculator import PotentialCalculator

Molecules: TypeAlias = tuple[tuple[str, int], ...]
CLUSTERS: dict[str, Molecules] = {  # SMILES and numbers of molecules
    "acid": (("OC(=O)C(=O)O", 1), ("O", 12)),
    "solvent": (("C[N+](C)(C)CCO", 1), ("[Cl-]", 1), ("NC(=O)N", 2), ("O", 7)),
}
PAIRS = (("O", "O"), ("O", "H"))  # whose distances are compared
_APART = 1.9  # Å, atoms of different molecules
_ROOM = 29.9  # Å³ of three atoms, as in water
_SKIN = 1.5  # Å from there to the wall
_STIFFNESS = 0.5  # eV/Å², of the wall
_BIN, _REACH = 0.1, 7.0  # Å


@dataclass(frozen=True, slots=True)
class Sphere:
    """A soft wall around the origin: k (r - radius)² / 2 for atoms beyond it.

    It keeps molecules from evaporating. MD holds the centre of mass at the origin.
    """

    radius: float

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return its energies (frames,) in eV and forces (atoms, 3) in eV/Å."""
        r = np.linalg.norm(batch.positions, axis=1)
        beyond = np.clip(r - self.radius, 0.0, None)
        energies = segment_sums(0.5 * _STIFFNESS * beyond**2, batch.offsets)
        inward = -_STIFFNESS * beyond / np.maximum(r, self.radius)
        return Predictions(energies, inward[:, None] * batch.positions)


def wall_of(cluster: str) -> Sphere:
    """Return the wall of a cluster, somewhat outside a drop of water's density."""
    atoms = sum(count * len(shape) for shape, count in _shapes(cluster))
    return Sphere(round((_ROOM * atoms / (4.0 * np.pi)) ** (1.0 / 3.0) + _SKIN, 1))


def packed_cluster(cluster: str, seed: int) -> Frame:
    """Return a cluster of turned molecules at random places, none of them close.

    The centre of mass lies at the origin.
    """
    rng = random_stream(seed, f"clusters/{cluster}")
    room = wall_of(cluster).radius - _SKIN
    numbers: list[int] = []
    positions = np.zeros((0, 3))
    charge = 0
    for shape, count in _shapes(cluster):
        for _ in range(count):
            centred = shape.positions - shape.positions.mean(axis=0)
            placed, room = _placed(centred, positions, room, rng)
            numbers += shape.numbers.tolist()
            positions = np.vstack([positions, placed])
            charge += shape.charge
    frame = Frame(np.array(numbers), positions, charge=charge)
    return replace(frame, positions=positions - to_atoms(frame).get_center_of_mass())


def relaxed_cluster(frame: Frame, potential: Potential, steps: int) -> Frame:
    """Return a cluster after these steps of FIRE, its centre of mass at the origin."""
    atoms = to_atoms(frame)
    atoms.calc = PotentialCalculator(potential)
    FIRE(atoms, logfile=None).run(fmax=0.1, steps=steps)
    return replace(frame, positions=atoms.positions - atoms.get_center_of_mass())


def pair_histogram(frames: Sequence[Frame]) -> Floats:
    """Return p(r) of each of `PAIRS` up to 7 Å, (pairs, bins), each of integral 1.

    frames: of one cluster. Bonds within molecules are in it.
    """
    edges = np.arange(0.0, _REACH + _BIN / 2, _BIN)
    rows = []
    for first, second in PAIRS:
        lengths = [_distances(frame, first, second) for frame in frames]
        counts, _ = np.histogram(np.concatenate(lengths), edges)
        rows.append(counts / (counts.sum() * _BIN))
    return np.array(rows)


def histogram_distance(first: Floats, second: Floats) -> float:
    """Return the mean over pairs of ∫|p - p'| dr, from 0 (equal) to 2."""
    return float(np.abs(first - second).sum(axis=1).mean() * _BIN)


def _shapes(cluster: str) -> list[tuple[Frame, int]]:
    return [(_shape(smiles), count) for smiles, count in CLUSTERS[cluster]]


def _shape(smiles: str) -> Frame:
    if smiles == "[Cl-]":  # RDKit embeds no single atoms
        return Frame(np.array([atomic_numbers["Cl"]]), np.zeros((1, 3)), charge=-1)
    return smiles_conformers(smiles, 1, seed=0)[0]


def _placed(
    centred: Floats, others: Floats, room: float, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Return a molecule at a free place, and the radius that this took, Å."""
    while True:
        direction = rng.standard_normal(3)
        length = room * rng.random() ** (1.0 / 3.0)
        turned = Rotation.random(rng=rng).apply(centred)
        placed = turned + length * direction / np.linalg.norm(direction)
        gaps = np.linalg.norm(placed[:, None] - others, axis=2)
        if gaps.min(initial=np.inf) > _APART:
            return placed, room
        room *= 1.002


def _distances(frame: Frame, first: str, second: str) -> Floats:
    one, two = (frame.numbers == atomic_numbers[name] for name in (first, second))
    lengths = np.linalg.norm(
        frame.positions[one][:, None] - frame.positions[two], axis=2
    )
    out: Floats = (
        lengths[np.triu_indices(len(lengths), 1)]
        if first == second
        else lengths.ravel()
    )
    return out
