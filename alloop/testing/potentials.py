"""The checks of a Potential, with the comparisons that all checks share.

A failed comparison raises AssertionError with a sentence, even under `python -O`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import AtomwisePotential, Potential
from alloop.core.seeds import random_stream
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import Floats, Integers
from alloop.models.checkpoint import (
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.potentials.restore import restore_potential


def require(holds: bool | np.bool_, sentence: str) -> None:
    """Raise AssertionError with the sentence unless it holds."""
    if not holds:
        raise AssertionError(sentence)


def joined_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions of single frames as those of their batch."""
    return Predictions(
        energies=np.concatenate([part.energies for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
    )


def force_scale(forces: Floats) -> float:
    """Return the factor of tolerances: the largest force component, at least 1."""
    return max(1.0, float(np.abs(forces).max(initial=0.0)))


def require_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Require an array of this shape, in float64 and finite."""
    require(array.shape == shape, f"expected {name} {shape}, got {array.shape}")
    double = array.dtype == np.float64
    require(double, f"expected {name} in float64, got {array.dtype}")
    require(np.isfinite(array).all(), f"{name} are not all finite")


def require_same(
    law: str, got: Predictions, want: Predictions, tolerance: float
) -> None:
    """Require energies and forces that are equal within the tolerance."""
    limit = tolerance * force_scale(want.forces)
    require_close(f"the energy changes with {law}", got.energies, want.energies, limit)
    require_close(f"forces do not follow {law}", got.forces, want.forces, limit)


def require_close(sentence: str, got: Floats, want: Floats, limit: float) -> None:
    """Require that no element is off by more than the limit; nan fails."""
    worst = float(np.abs(got - want).max(initial=0.0))
    require(worst <= limit, f"{sentence}: off by {worst:.3g}, {limit:.3g} allowed")


def require_equal_bits(what: str, got: Predictions, want: Predictions) -> None:
    """Require equal bits of energies, forces and descriptors."""
    equal = np.array_equal(got.energies, want.energies)
    equal = equal and np.array_equal(got.forces, want.forces)
    if got.descriptors is not None and want.descriptors is not None:
        equal = equal and np.array_equal(got.descriptors, want.descriptors)
    require(equal, f"{what} does not give the same bits")


def fixed_rotation() -> Floats:
    """Return a proper rotation (3, 3) that is far from any axis."""
    Q, _ = np.linalg.qr(random_stream(0, "testing/rotation").normal(size=(3, 3)))
    out: Floats = Q * np.sign(np.linalg.det(Q))
    return out


def shuffled_atoms(frames: Sequence[Frame]) -> tuple[Batch, Batch, Integers]:
    """Return the batch, the batch with atoms shuffled in each frame, and the order."""
    batch = pack_frames(frames)
    rng = random_stream(0, "testing/permutation")
    order = np.concatenate(
        [
            span.start + rng.permutation(span.stop - span.start)
            for span in batch.atom_slices()
        ]
    )
    numbers, positions = batch.numbers[order], batch.positions[order]
    return batch, replace(batch, numbers=numbers, positions=positions), order


def closed_shell_molecules(frames: Sequence[Frame]) -> list[Frame]:
    """Return the neutral singlets without a cell."""
    return [f for f in frames if f.charge == 0 and f.spin == 0 and not any(f.pbc)]


def molecule_pair(frame: Frame, distance: float) -> Frame:
    """Return the molecule and its copy, their nearest atoms `distance` Å apart."""
    u = fixed_rotation()[0]
    along = frame.positions @ u
    last, first = frame.positions[along.argmax()], frame.positions[along.argmin()]
    copied = frame.positions + last - first + distance * u
    return Frame(
        numbers=np.tile(frame.numbers, 2),
        positions=np.concatenate([frame.positions, copied]),
    )


FAR = 60.0  # Å between molecules that should not interact
_GRAIN = 1e-8  # Å: a frame's positions are rounded to it


def check_potential(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    tolerance: float = 1e-6,
    descriptors: bool = True,
) -> None:
    """Run all checks of a potential; descriptors=False where it has none.

    The check of the cutoff needs an attribute `cutoff` (Å) and is left out without it;
    that of storage needs a `Storable`.
    """
    check_predictions(potential, frames, descriptors=descriptors)
    for law in (
        check_forces,
        check_stress,
        check_translation,
        check_rotation,
        check_reflection,
        check_permutation,
        check_batching,
        check_far_molecules,
    ):
        law(potential, frames, tolerance=tolerance)
    if isinstance(potential, AtomwisePotential):
        check_atom_energies(potential, frames, tolerance=tolerance)
    cutoff = getattr(potential, "cutoff", None)
    if cutoff is not None:
        check_cutoff(potential, frames, cutoff=cutoff, tolerance=tolerance)
    if isinstance(potential, Storable):
        check_stored(potential, frames)


def check_predictions(
    potential: Potential, frames: Sequence[Frame], *, descriptors: bool = True
) -> None:
    """Check shapes and types of predictions.

    The input must be left unchanged, and a repeat must have equal bits.
    """
    batch = pack_frames(frames)
    before = batch.positions.copy()
    said = potential.predict(batch, descriptors=descriptors)
    again = potential.predict(batch, descriptors=descriptors)
    unchanged = np.array_equal(batch.positions, before)
    require(unchanged, "predict changed the positions")
    atoms = len(batch.numbers)
    require_shape("energies", said.energies, (len(batch),))
    require_shape("forces", said.forces, (atoms, 3))
    require_equal_bits("a repeated prediction", said, again)
    if descriptors:
        described = np.zeros(0) if said.descriptors is None else said.descriptors
        require_shape("descriptors", described, (atoms, described.shape[-1]))


def check_atom_energies(
    potential: AtomwisePotential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that the energies of a frame's atoms sum to its energy.

    The tolerance is relative to the sum of their magnitudes.
    """
    batch = pack_frames(frames)
    atoms = potential.atom_energies(batch)
    require_shape("energies of atoms", atoms, (len(batch.numbers),))
    energies = potential.predict(batch).energies
    for index, (first, last) in enumerate(pairwise(batch.offsets)):
        parts = atoms[first:last]
        off = abs(parts.sum() - energies[index])
        require(
            off <= tolerance * max(1.0, float(np.abs(parts).sum())),
            f"energies of atoms sum to {parts.sum():.8g} eV, the frame has "
            f"{energies[index]:.8g} eV",
        )


def check_forces(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    tolerance: float = 1e-6,
    directions: int = 4,
) -> None:
    """Check that forces are minus the gradient of the energy.

    Along random directions u, -F·u is compared with the five-point difference of the
    energy E(x + t u).
    """
    step = round(0.05 * tolerance**0.25 / _GRAIN) * _GRAIN  # Å: truncation = noise
    rng = random_stream(0, "testing/forces")
    for frame in frames:
        forces = potential.predict(pack_frames([frame])).forces
        u = rng.normal(size=(directions, len(frame), 3))
        u /= np.abs(u).max(axis=(1, 2), keepdims=True)
        u = np.round(u * step / _GRAIN) * _GRAIN  # frames round positions too
        steps = np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None, None] * u
        copies = pack_frames([frame] * (4 * directions))
        moved = copies.with_positions((frame.positions + steps).reshape(-1, 3))
        E = potential.predict(moved).energies.reshape(4, directions)
        slope = np.array([1.0, -8.0, 8.0, -1.0]) @ E / 12.0  # dE/dt, t in steps
        expected = -np.einsum("kad,ad->k", u, forces)
        require_close(
            "forces are not minus the energy's gradient",
            slope / step,
            expected / step,
            tolerance * force_scale(forces) * np.sqrt(3 * len(frame)),
        )


def check_stress(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    tolerance: float = 1e-6,
    directions: int = 3,
) -> None:
    """Check that the stress of cells is the energy's slope under strain over volume.

    Along random symmetric strains u, V σ·u is compared with the five-point difference
    of the energy of the cell times 1 + t u. Frames without a stress are left out.
    """
    step = 0.02 * tolerance**0.25
    rng = random_stream(0, "testing/stress")
    for frame in frames:
        stress = potential.predict(pack_frames([frame])).stress
        if stress is None or not np.isfinite(stress).all():
            continue
        u = rng.normal(size=(directions, 3, 3))
        u = (u + u.transpose(0, 2, 1)) / (
            2.0 * np.abs(u).max(axis=(1, 2))[:, None, None]
        )
        strains = np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None, None] * step * u
        E = potential.predict(
            strained_copies(frame, strains.reshape(-1, 3, 3))
        ).energies
        slope = np.array([1.0, -8.0, 8.0, -1.0]) @ E.reshape(4, directions) / 12.0
        volume = abs(np.linalg.det(frame.cell))
        expected = volume * np.einsum("kab,ab->k", u, tensor_of_voigt(stress[0]))
        require_close(
            "the stress is not the energy's slope under strain",
            slope / step,
            expected,
            tolerance * max(1.0, volume * float(np.abs(stress).max())),
        )


def check_translation(
    potential: Potential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that a molecule moved as a whole has the same energy and forces."""
    batch = pack_frames(frames)
    shift = random_stream(0, "testing/translation").normal(size=3) * 3.0  # Å
    moved = potential.predict(batch.with_positions(batch.positions + shift))
    require_same("translation", moved, potential.predict(batch), tolerance)


def check_rotation(
    potential: Potential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that a rotated molecule has the same energy, and rotated forces."""
    Q = fixed_rotation()
    _check_turned("rotation", potential, pack_frames(frames), Q, tolerance)


def check_reflection(
    potential: Potential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that a mirrored molecule has the same energy, and mirrored forces."""
    Q = fixed_rotation() * np.array([-1.0, 1.0, 1.0])
    _check_turned("reflection", potential, pack_frames(frames), Q, tolerance)


def check_permutation(
    potential: Potential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that the order of atoms changes neither their forces nor the energy."""
    batch, other, order = shuffled_atoms(frames)
    said, again = potential.predict(batch), potential.predict(other)
    forces = said.forces[order]
    require_same("permutation", again, Predictions(said.energies, forces), tolerance)


def check_batching(
    potential: Potential, frames: Sequence[Frame], *, tolerance: float = 1e-6
) -> None:
    """Check that a frame has the same predictions alone and at any place in a batch."""
    single = [potential.predict(pack_frames([frame])) for frame in frames]
    alone = joined_predictions(single)
    require_same("batching", potential.predict(pack_frames(frames)), alone, tolerance)
    backwards = potential.predict(pack_frames(frames[::-1]))
    require_same(
        "the order of frames", backwards, joined_predictions(single[::-1]), tolerance
    )


def check_far_molecules(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    tolerance: float = 1e-6,
    apart: float = FAR,
) -> None:
    """Check that two molecules `apart` Å from each other have the sum of the energies.

    Frames with a charge, a spin or a cell are left out: there the sum need not hold.
    """
    for frame in closed_shell_molecules(frames):
        single = potential.predict(pack_frames([frame]))
        pair = potential.predict(pack_frames([molecule_pair(frame, apart)]))
        expected = Predictions(2 * single.energies, np.tile(single.forces, (2, 1)))
        require_same("the distance between far molecules", pair, expected, tolerance)


def check_cutoff(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    cutoff: float,
    tolerance: float = 1e-6,
) -> None:
    """Check that energy and forces do not jump when an atom crosses the cutoff (Å)."""
    gap = 1e-6  # Å
    for frame in closed_shell_molecules(frames):
        inside = potential.predict(pack_frames([molecule_pair(frame, cutoff - gap)]))
        outside = potential.predict(pack_frames([molecule_pair(frame, cutoff + gap)]))
        slack = tolerance + 10 * gap * force_scale(inside.forces)
        require_same("crossing the cutoff", inside, outside, slack)


def check_stored(potential: Storable, frames: Sequence[Frame]) -> None:
    """Check that a potential that was stored and restored predicts the same bits."""
    batch = pack_frames(frames)
    blob = checkpoint_to_bytes(potential.checkpoint())
    again = checkpoint_to_bytes(potential.checkpoint())
    require(blob == again, "two checkpoints of a potential differ")
    restored = restore_potential(checkpoint_from_bytes(blob)).predict(
        batch, descriptors=True
    )
    original = potential.predict(batch, descriptors=True)
    require_equal_bits("the stored and restored potential", restored, original)


def strained_copies(frame: Frame, strains: Floats) -> Batch:
    """Return a frame with its positions and cell times 1 + each strain (copies, 3, 3).

    Nothing is rounded, as it would be in frames.
    """
    copies = pack_frames([frame] * len(strains))
    turned = np.eye(3) + strains
    positions = np.einsum("ai,kij->kaj", frame.positions, turned).reshape(-1, 3)
    return replace(copies, positions=positions, cells=frame.cell @ turned)


def _check_turned(
    law: str, potential: Potential, batch: Batch, Q: Floats, tolerance: float
) -> None:
    said = potential.predict(batch)
    turned = replace(batch, positions=batch.positions @ Q.T, cells=batch.cells @ Q.T)
    expected = Predictions(said.energies, said.forces @ Q.T)
    require_same(law, potential.predict(turned), expected, tolerance)
