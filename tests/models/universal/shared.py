"""What the tests of all universal potentials share."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ase import Atoms

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.testing.potentials import (
    check_batching,
    check_cutoff,
    check_far_molecules,
    check_permutation,
    check_predictions,
    check_reflection,
    check_rotation,
    check_stored,
    check_translation,
)

LAWS = (
    check_translation,
    check_rotation,
    check_reflection,
    check_permutation,
    check_batching,
)


NOTHING = LabelSet(pack_frames(()), np.zeros(0), np.zeros((0, 3)))


def scaled_labels(
    potential: LearnedPotential,
    kinds: Sequence[Atoms],
    *,
    count: int,
    seed: int,
    shift: float,
) -> LabelSet:
    """Moved frames with the potential's labels, 1.2 times what they are."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        atoms = kinds[number % len(kinds)].copy()
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        made.append(from_atoms(atoms))
    batch = pack_frames(made)
    said = potential.predict(batch)
    return LabelSet(batch, 1.2 * said.energies + shift, 1.2 * said.forces)


def shaken_atoms(atoms: Atoms, seed: int = 3) -> Atoms:
    """A copy with its atoms moved by some 0.05 Å, to digits that can be printed."""
    atoms = atoms.copy()
    noise = np.random.default_rng(seed).normal(0.0, 0.05, atoms.positions.shape)
    atoms.positions = np.round(atoms.positions + noise, 8)
    return atoms


def check_laws(
    kind: str,
    references: Mapping[int, float],
    frames: Sequence[Frame],
    *,
    cutoffs: Sequence[float],
    tolerances: Sequence[float],
    far: float | None = None,
    laws: Sequence[Callable[..., None]] = LAWS,
) -> None:
    """Laws in float64 and in float32, each with its tolerance.

    far: the tolerance for molecules far apart, where that is another one.
    """
    for dtype, tolerance in zip(
        (torch.float64, torch.float32), tolerances, strict=True
    ):
        potential = LearnedPotential(build_network(kind, dtype=dtype), references)
        check_predictions(potential, frames)
        check_stored(potential, frames)
        for cutoff in cutoffs:
            check_cutoff(potential, frames, cutoff=cutoff, tolerance=tolerance)
        for law in laws:
            law(potential, frames, tolerance=tolerance)
        check_far_molecules(potential, frames, tolerance=far or tolerance)
