"""Rigid scans: frames turned about bonds, or with bonds stretched.

Only bonds outside rings of molecules without a cell are displaced. Each such bond
splits the molecule into two parts, the smaller of which moves as it is.
"""

from dataclasses import dataclass, replace

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.units import Booleans, Integers
from alloop.md.contacts import all_pairs, relative_distances

_BONDED = 1.3  # summed covalent radii; hydrogen bonds lie above 1.6


@dataclass(frozen=True, slots=True, eq=False)
class OpenBond:
    """A bond outside rings, from atom `fixed` to atom `moved`.

    part (atoms,): True on the moved side, which is the one with fewer atoms.
    """

    fixed: int
    moved: int
    part: Booleans

    @property
    def turns(self) -> bool:
        """True if a rotation about the bond changes the molecule."""
        return 1 < int(self.part.sum()) < len(self.part) - 1


def open_bonds(frame: Frame) -> tuple[OpenBond, ...]:
    """Return the bonds outside rings; none of a frame with a cell."""
    if any(frame.pbc):
        return ()
    bonded = _bonded_pairs(frame)
    joined = np.zeros((len(frame), len(frame)), dtype=np.bool_)
    joined[bonded[:, 0], bonded[:, 1]] = joined[bonded[:, 1], bonded[:, 0]] = True
    found = []
    for first, second in bonded:
        cut = joined.copy()
        cut[first, second] = cut[second, first] = False
        part = _reached_from(int(second), cut)
        if part[first]:
            continue  # a ring
        whole = _reached_from(int(second), joined)
        ends = (int(first), int(second))
        if 2 * part.sum() > whole.sum():
            ends, part = ends[::-1], whole & ~part
        found.append(OpenBond(*ends, part))
    return tuple(found)


def turned_frame(frame: Frame, bond: OpenBond, angle: float) -> Frame:
    """Return the frame with the moved part turned about the bond by `angle` rad."""
    origin = frame.positions[bond.fixed]
    k = frame.positions[bond.moved] - origin
    k = k / np.linalg.norm(k)
    r = frame.positions - origin
    along = (r @ k)[:, None] * k  # Rodrigues' formula
    turned = along + np.cos(angle) * (r - along) + np.sin(angle) * np.cross(k, r)
    positions = np.where(bond.part[:, None], origin + turned, frame.positions)
    return replace(frame, positions=positions)


def stretched_frame(frame: Frame, bond: OpenBond, factor: float) -> Frame:
    """Return the frame with the bond `factor` times as long."""
    arm = frame.positions[bond.moved] - frame.positions[bond.fixed]
    return replace(
        frame,
        positions=frame.positions + bond.part[:, None] * (factor - 1.0) * arm,
    )


def _bonded_pairs(frame: Frame) -> Integers:
    pairs = all_pairs(pack_frames([frame]))
    near = relative_distances(pairs, frame.positions) < _BONDED
    return np.stack([pairs.first[near], pairs.second[near]], axis=1)


def _reached_from(atom: int, joined: Booleans) -> Booleans:
    """Return True for the atoms (atoms,) that a path of bonds joins to `atom`."""
    reached = np.zeros(len(joined), dtype=np.bool_)
    reached[atom] = True
    while True:
        more = reached | joined[reached].any(axis=0)
        if (more == reached).all():
            return reached
        reached = more
