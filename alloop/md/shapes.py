"""Shapes that MD rarely reaches: bonds turned, stretched and bent. Pure numpy.

Frames are made from thermal ones, so that what is learned of a barrier or a long bond
holds for a molecule in motion, and not for its minimum alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.settings import PARALLEL_COUNT, setting
from alloop.core.species import BONDED
from alloop.core.units import Booleans, Floats
from alloop.md.contacts import all_pairs, closest_contact, relative_distances

CLASH = 0.7  # summed covalent radii; the shortest bonds lie at 0.85


@dataclass(frozen=True, slots=True)
class ShapeSettings:
    """The shapes that are proposed: bonds outside rings turned, stretched and bent."""

    share: float = setting(
        0.3, "share of a round's labels of flagged frames for these", gt=0, lt=1
    )
    proposals: int = setting(
        25, "frames proposed from each walker in a round", **PARALLEL_COUNT
    )
    shortest: float = setting(
        0.85,
        "shortest length of a bond, as a multiple of that in the frame",
        gt=0,
        le=1,
    )
    longest: float = setting(
        1.5, "longest length of a bond, as a multiple of that in the frame", ge=1, le=3
    )
    bend: float = setting(
        0.0,
        "largest angle by which a bond is bent, degrees; 0: none is, and no atom moves "
        "through the plane of its three neighbours",
        ge=0,
        le=180,
    )
    energy: float = setting(
        5.0,
        "largest energy that the model gives a shape above the frame it is made of, eV",
        gt=0,
    )

    @property
    def steps(self) -> int:
        """The MD steps on each walker: none."""
        return 0

    def __post_init__(self) -> None:
        if self.shortest >= self.longest:
            raise InputError(
                "expected `shortest` below `longest`, got "
                f"{self.shortest:g} and {self.longest:g}"
            )


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
    """Return the bonds outside rings; none of a frame with a cell.

    Each splits the molecule into two parts, of which the smaller is moved.
    """
    if any(frame.pbc):
        return ()
    joined = bonded_atoms(frame)
    bonds = []
    for first, second in np.argwhere(np.triu(joined)):
        cut = joined.copy()
        cut[first, second] = cut[second, first] = False
        part = _reached_from(int(second), cut)
        if part[first]:
            continue  # a ring
        fragment = _reached_from(int(second), joined)
        ends = (int(first), int(second))
        if 2 * part.sum() > fragment.sum():
            ends, part = ends[::-1], fragment & ~part
        bonds.append(OpenBond(*ends, part))
    return tuple(bonds)


def has_torsions(frame: Frame) -> bool:
    """Return True if four atoms of a molecule are bonded in a chain.

    Others, such as water, have one conformer. False of a frame with a cell.
    """
    if any(frame.pbc):
        return False
    joined = bonded_atoms(frame)
    inner = joined.sum(axis=1) > 1
    return bool((joined & inner[:, None] & inner).any())


def turned_frame(frame: Frame, bond: OpenBond, angle: float) -> Frame:
    """Return the frame with the moved part turned about the bond by `angle` rad."""
    arm = frame.positions[bond.moved] - frame.positions[bond.fixed]
    return _with_part_turned(frame, bond, arm, angle)


def stretched_frame(frame: Frame, bond: OpenBond, factor: float) -> Frame:
    """Return the frame with the bond `factor` times as long."""
    arm = frame.positions[bond.moved] - frame.positions[bond.fixed]
    return replace(
        frame,
        positions=frame.positions + bond.part[:, None] * (factor - 1.0) * arm,
    )


def bent_frame(frame: Frame, bond: OpenBond, angle: float, axis: Floats) -> Frame:
    """Return the frame with the moved part turned about the bond's fixed atom.

    angle in rad; axis (3,): any direction, of which the part across the bond counts.
    """
    arm = frame.positions[bond.moved] - frame.positions[bond.fixed]
    return _with_part_turned(frame, bond, np.cross(arm, axis), angle)


def _with_part_turned(
    frame: Frame, bond: OpenBond, axis: Floats, angle: float
) -> Frame:
    """Return the frame with the moved part turned about an axis of the fixed atom."""
    k = axis / np.linalg.norm(axis)
    origin = frame.positions[bond.fixed]
    r = frame.positions - origin
    along = (r @ k)[:, None] * k  # Rodrigues' formula
    turned = along + np.cos(angle) * (r - along) + np.sin(angle) * np.cross(k, r)
    positions = np.where(bond.part[:, None], origin + turned, frame.positions)
    return replace(frame, positions=positions)


def pyramids(frame: Frame) -> tuple[int, ...]:
    """Return the atoms with three bonds, such as the nitrogen of an amine."""
    return tuple(map(int, np.flatnonzero(bonded_atoms(frame).sum(axis=1) == 3)))


def flattened_frame(frame: Frame, atom: int, height: float) -> Frame:
    """Return the frame with an atom moved across the plane of its three neighbours.

    height: as a multiple of its height above them; -1 inverts the pyramid.
    """
    corners = frame.positions[np.flatnonzero(bonded_atoms(frame)[atom])]
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal = normal / np.linalg.norm(normal)
    above = (frame.positions[atom] - corners[0]) @ normal
    positions = np.array(frame.positions)
    positions[atom] += (height - 1.0) * above * normal
    return replace(frame, positions=positions)


def proposed_shapes(
    frame: Frame, settings: ShapeSettings, rng: np.random.Generator
) -> list[Frame]:
    """Return shapes of a molecule, those in which atoms clash left out.

    Every second one has a bond stretched, and in one of four of these a bond turned as
    well; in the others each bond that turns does so with a chance of one half, so that
    several turn at once. A frame without bonds outside rings gives none.
    """
    bonds = open_bonds(frame)
    if not bonds:
        return []
    shapes = list(_turned_shapes(frame, bonds, settings, rng))
    if settings.bend:
        shapes += _bent_shapes(frame, bonds, settings, rng)
    return [shape for shape in shapes if closest_contact(shape) >= CLASH]


def _turned_shapes(
    frame: Frame,
    bonds: tuple[OpenBond, ...],
    settings: ShapeSettings,
    rng: np.random.Generator,
) -> Iterator[Frame]:
    """Yield shapes with bonds turned, every second one with a bond stretched."""
    turning = [bond for bond in bonds if bond.turns]
    for number in range(settings.proposals):
        shape = frame
        stretched = number % 2 == 0 or not turning
        angles = rng.uniform(0.0, 2.0 * np.pi, len(turning))
        chosen = rng.random(len(turning)) < (0.25 if stretched else 0.5)
        if not stretched and not chosen.any():
            chosen[rng.integers(len(turning))] = True
        for bond, angle, turns in zip(turning, angles, chosen, strict=True):
            shape = turned_frame(shape, bond, angle) if turns else shape
        if stretched:
            factor = rng.uniform(settings.shortest, settings.longest)
            shape = stretched_frame(shape, bonds[rng.integers(len(bonds))], factor)
        yield shape


def _bent_shapes(
    frame: Frame,
    bonds: tuple[OpenBond, ...],
    settings: ShapeSettings,
    rng: np.random.Generator,
) -> Iterator[Frame]:
    """Yield as many shapes again: flattened, or bent and a little stretched."""
    peaks = pyramids(frame)
    for number in range(settings.proposals):
        if peaks and number % 2:
            peak = peaks[rng.integers(len(peaks))]
            yield flattened_frame(frame, peak, rng.uniform(-1.0, 1.0))
        else:
            bond = bonds[rng.integers(len(bonds))]
            angle = np.radians(rng.uniform(0.0, settings.bend))
            shape = bent_frame(frame, bond, angle, rng.normal(size=3))
            factor = rng.uniform(1.0, 1.0 + 0.5 * (settings.longest - 1.0))
            yield stretched_frame(shape, bond, factor)


def bonded_atoms(frame: Frame) -> Booleans:
    """Return True for pairs of atoms that are bonded (atoms, atoms)."""
    pairs = all_pairs(pack_frames([frame]))
    near = relative_distances(pairs, frame.positions) < BONDED
    joined = np.zeros((len(frame), len(frame)), dtype=np.bool_)
    joined[pairs.first[near], pairs.second[near]] = True
    return joined | joined.T


def _reached_from(atom: int, joined: Booleans) -> Booleans:
    """Return True for the atoms (atoms,) that a path of bonds joins to `atom`."""
    reached = np.zeros(len(joined), dtype=np.bool_)
    reached[atom] = True
    while True:
        more = reached | joined[reached].any(axis=0)
        if (more == reached).all():
            return reached
        reached = more
