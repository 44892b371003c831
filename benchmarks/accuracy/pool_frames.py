"""Frames of the frozen pools: MD at a level or on a model, normal modes and scans.

Positions are rounded to float32 before anything is labelled, so that a small file holds
the labelled geometries themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.build import molecule

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.thermal_frames import (
    NormalModes,
    harmonic_frames,
    normal_modes,
    numerical_hessian,
    relax_frame,
    thermal_walkers,
)

_SEED = 20_150  # of all frames
# ethanol's atoms in ASE: C(H3), C(H2), O, H(O), two H of CH2, three H of CH3
_TORSION = (0, 1, 2, 3)
SCANS = {  # the two atoms, those that move along, shortest and longest bond in Å
    "o-h": ((2, 3), (3,), 0.75, 1.50),
    "c-o": ((1, 2), (2, 3), 1.15, 2.00),
    "c-c": ((1, 0), (0, 6, 7, 8), 1.20, 2.10),
}


@dataclass(frozen=True, slots=True)
class PoolFrame:
    """A frame, its molecule's name, where it comes from and the set it belongs to.

    part: `pool`, from which a campaign chooses, or the name of a test set.
    """

    frame: Frame
    molecule: str
    origin: str
    part: str


@dataclass(frozen=True, slots=True)
class Piece:
    """MD at a temperature in K: walkers, frames of each, and fs before and between."""

    temperature: float
    walkers: int
    frames: int
    before: int = 200
    between: int = 40


def stored_frame(frame: Frame) -> Frame:
    """Return the frame with its centre at the origin and positions of float32."""
    moved = frame.positions - frame.positions.mean(axis=0)
    return replace(frame, positions=moved.astype(np.float32).astype(np.float64))


def md_frames(
    minima: Sequence[tuple[Frame, NormalModes]],
    potential: Potential,
    piece: Piece,
    name: str,
) -> list[Frame]:
    """Return frames of Langevin MD, time step 1 fs, started in turn from the minima."""
    walkers: list[Walker] = []
    for index in range(piece.walkers):
        frame, modes = minima[index % len(minima)]
        rng = random_stream(_SEED, f"{name}/start/{index}")
        walkers += thermal_walkers(frame, modes, piece.temperature, 1, rng)
    walkers = [replace(walker, index=i) for i, walker in enumerate(walkers)]
    settings = DynamicsSettings(temperature=piece.temperature, timestep=1.0)
    rngs = [random_stream(_SEED, f"{name}/{i}") for i in range(piece.walkers)]
    found: list[Frame] = []
    for number in range(piece.frames):
        steps = piece.between if number else piece.before
        moved = run_dynamics(walkers, potential, settings, steps, rngs)
        walkers = list(moved.walkers)
        found += [stored_frame(x.frame) for x in walkers if x.stopped is None]
    return found


def mode_frames(
    minima: Sequence[tuple[Frame, NormalModes]],
    temperature: float,
    count: int,
    name: str,
) -> list[Frame]:
    """Return harmonic frames, equally many around each minimum."""
    out: list[Frame] = []
    for index, (frame, modes) in enumerate(minima):
        rng = random_stream(_SEED, f"{name}/modes/{temperature:g}/{index}")
        out += harmonic_frames(frame, modes, temperature, count // len(minima), rng)
    return [stored_frame(frame) for frame in out]


def g2_frame(name: str) -> Frame:
    """Return a molecule of ASE's G2 set."""
    atoms = molecule(name)
    return Frame(atoms.numbers, atoms.positions)


def minimum(frame: Frame, potential: Potential) -> tuple[Frame, NormalModes]:
    """Return the nearest minimum of the potential, and its normal modes."""
    relaxed = relax_frame(frame, potential)
    return relaxed, normal_modes(relaxed, numerical_hessian(relaxed, potential))


def turned(frame: Frame, degrees: float) -> Frame:
    """Return ethanol with this dihedral C-C-O-H."""
    atoms = molecule("CH3CH2OH", positions=frame.positions)
    atoms.set_dihedral(*_TORSION, degrees, indices=[3])
    return replace(frame, positions=atoms.positions)


def stretched(frame: Frame, bond: str, length: float) -> Frame:
    """Return ethanol with one bond of this length in Å, the groups kept rigid."""
    (first, second), moving, *_ = SCANS[bond]
    axis = frame.positions[second] - frame.positions[first]
    old = float(np.linalg.norm(axis))
    positions = frame.positions.copy()
    positions[list(moving)] += axis * (length / old - 1.0)
    return replace(frame, positions=positions)


def scan_frames(minima: Sequence[Frame], points: int) -> Iterator[tuple[str, Frame]]:
    """Yield rigid scans of the torsion and three bonds, `points` of each."""
    for frame in minima:
        for degrees in np.arange(points) * 360.0 / points:
            yield "torsion", stored_frame(turned(frame, float(degrees)))
        for bond, (_, _, low, high) in SCANS.items():
            for length in np.linspace(low, high, points):
                yield bond, stored_frame(stretched(frame, bond, float(length)))


def noisy_scan_frames(
    minima: Sequence[tuple[Frame, NormalModes]], temperature: float, count: int
) -> Iterator[tuple[str, Frame]]:
    """Yield random points of the scans, `count` each, from frames of normal modes."""
    rng = random_stream(_SEED, "scan points")
    for scan in ("torsion", *SCANS):
        bases = mode_frames(minima, temperature, count, f"scan {scan}")
        for base, share in zip(bases, rng.random(len(bases)), strict=True):
            if scan == "torsion":
                yield scan, stored_frame(turned(base, 360.0 * float(share)))
            else:
                _, _, low, high = SCANS[scan]
                length = low + (high - low) * float(share)
                yield scan, stored_frame(stretched(base, scan, length))


def ethanol_minima(potential: Potential) -> list[tuple[Frame, NormalModes]]:
    """Return the trans and the two gauche minima."""
    start = g2_frame("CH3CH2OH")
    return [minimum(turned(start, angle), potential) for angle in (180.0, 60.0, 300.0)]
