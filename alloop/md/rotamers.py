"""Rotamers of molecules, and moves between them that keep thermal equilibrium.

Between pieces of MD a bond is turned by a random angle, rigidly, and the turn is
accepted by its energy (Metropolis et al., J. Chem. Phys. 21, 1087 (1953)): walkers get
over barriers that MD would not cross, and visit each rotamer as often as its free
energy says. That is exact: the angle and its opposite are equally likely, a rigid turn
keeps volumes in the space of positions, and velocities, which do not depend on these,
stay. The bonds are those of one frame of the molecule, so that no turn changes what
may be turned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.batch import evenly_thinned, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.units import BOLTZMANN, Booleans, Floats
from alloop.md.collective_variables import Torsion
from alloop.md.contacts import closest_contact
from alloop.md.path_explorer import PathExplorerSettings, low_minima
from alloop.md.shapes import OpenBond, bonded_atoms, open_bonds, turned_frame

_BENT = 0.2  # the least sine of an angle that a torsion may go through
_FLAT = 0.2  # Å, the largest height of a planar atom above its three neighbours
_OF_A_ROTAMER, _OF_ALL = 3, 40  # frames that are relaxed to find conformers


@dataclass(frozen=True, slots=True)
class RotamerTorsion:
    """A torsion whose states are different rotamers.

    atoms: along the chain. states: 2 for cis and trans (about a planar atom), 3 for
    trans and gauche±, 1 for gauche± alone, as of peroxides.
    """

    atoms: tuple[int, int, int, int]
    states: int

    def state(self, positions: Floats) -> str:
        """Return `c`, `t`, `+` or `-`."""
        angles, _ = Torsion(self.atoms).evaluate(positions[None, list(self.atoms)])
        degrees = float(np.degrees(angles[0]))
        if self.states == 2:
            return "c" if abs(degrees) < 90.0 else "t"
        if self.states == 3 and abs(degrees) > 120.0:
            return "t"
        return "+" if degrees > 0.0 else "-"


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """The bonds of a molecule that turn, and the torsions that tell its rotamers."""

    bonds: tuple[OpenBond, ...]
    torsions: tuple[RotamerTorsion, ...]

    @classmethod
    def of(cls, frame: Frame) -> "Turns":
        """Return those of the molecule in this frame; none of a frame with a cell."""
        bonds = tuple(bond for bond in open_bonds(frame) if bond.turns)
        joined = bonded_atoms(frame) if bonds else np.zeros((0, 0), dtype=np.bool_)
        torsions = (_torsion(frame, bond, joined) for bond in bonds)
        return cls(bonds, tuple(x for x in torsions if x is not None))

    def rotamer(self, frame: Frame) -> str:
        """Return the states of all torsions; empty of a molecule with one rotamer."""
        return "".join(x.state(frame.positions) for x in self.torsions)


def turn_walkers(
    walkers: Sequence[Walker],
    turns: Mapping[int, Turns],
    potential: Potential,
    attempts: int,
    rngs: Sequence[np.random.Generator],
    contact: float = 0.0,
) -> tuple[Walker, ...]:
    """Return the walkers after `attempts` turns of each bond.

    Each is a turn of a random bond by a random angle, at the walker's temperature;
    turns: by molecule. contact: turns that bring atoms closer, in summed covalent
    radii, are refused, as MD does not go there either.
    """
    places = [i for i, x in enumerate(walkers) if turns[x.molecule].bonds]
    out = list(walkers)
    if not places:
        return tuple(out)
    energies = potential.predict(pack_frames([out[i].frame for i in places])).energies
    energies = np.array(energies)
    for _ in range(attempts * max(len(turns[out[i].molecule].bonds) for i in places)):
        trials = [_turned(out[i], turns[out[i].molecule], rngs[i]) for i in places]
        after = potential.predict(pack_frames(trials)).energies
        for row, (i, trial) in enumerate(zip(places, trials, strict=True)):
            kelvin = out[i].temperature
            rise = (after[row] - energies[row]) / (BOLTZMANN * (kelvin or 300.0))
            # A number that is not finite is refused: it is below no exponential.
            accepted = rngs[i].exponential() > rise and np.isfinite(rise)
            if accepted and closest_contact(trial) >= contact:
                out[i] = replace(out[i], frame=trial)
                energies[row] = after[row]
    return tuple(out)


def _turned(walker: Walker, turns: Turns, rng: np.random.Generator) -> Frame:
    bond = turns.bonds[rng.integers(len(turns.bonds))]
    return turned_frame(walker.frame, bond, rng.uniform(-np.pi, np.pi))


def known_conformers(
    frames: Sequence[Frame], potential: Potential, turns: Turns
) -> tuple[list[Frame], Floats]:
    """Return the different minima that frames of a molecule relax to, with energies.

    The first frame tells the bonds, which all minima have. Of many frames, a few of
    each rotamer are relaxed, the lowest on the potential, and some of all. The lowest
    minimum comes first; energies (minima,) in eV.
    """
    chosen = [frames[i] for i in _relaxed_places(frames, potential, turns)]
    settings = PathExplorerSettings()
    minima = low_minima(frames[:1], chosen, potential, settings)
    if not minima:
        return [], np.zeros(0)
    return minima, potential.predict(pack_frames(minima)).energies


def _relaxed_places(
    frames: Sequence[Frame], potential: Potential, turns: Turns
) -> list[int]:
    energies = potential.predict(pack_frames(list(frames))).energies
    places = set(range(len(frames))[evenly_thinned(len(frames), _OF_ALL)])
    counts: dict[str, int] = {}
    for place in np.argsort(energies, kind="stable"):
        name = turns.rotamer(frames[place])
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= _OF_A_ROTAMER and np.isfinite(energies[place]):
            places.add(place)
    return sorted(int(x) for x in places)


def drawn_conformer(
    minima: Sequence[Frame],
    energies: Floats,
    kelvin: float,
    rng: np.random.Generator,
) -> Frame:
    """Return one of the minima, drawn by the Boltzmann weights of their energies."""
    weights = np.exp((energies.min() - energies) / (BOLTZMANN * kelvin))
    return minima[int(rng.choice(len(minima), p=weights / weights.sum()))]


def _torsion(frame: Frame, bond: OpenBond, joined: Booleans) -> RotamerTorsion | None:
    """Return the torsion about a bond; None where its turn makes no other rotamer."""
    ends = ((bond.fixed, bond.moved), (bond.moved, bond.fixed))
    around = [
        [int(x) for x in np.flatnonzero(joined[atom]) if x != other]
        for atom, other in ends
    ]
    if not all(around):
        return None
    tips = [max(x, key=lambda atom: (frame.numbers[atom], -atom)) for x in around]
    chain = (tips[0], bond.fixed, bond.moved, tips[1])
    if not _is_bent(frame.positions[list(chain)]):
        return None
    flat = [
        len(x) == 2 and _is_flat(frame.positions[[atom, other, *x]])
        for x, (atom, other) in zip(around, ends, strict=True)
    ]
    for x, planar in zip(around, flat, strict=True):
        alike = len({int(frame.numbers[atom]) for atom in x}) == 1
        terminal = all(joined[atom].sum() == 1 for atom in x)
        if alike and terminal and (len(x) > 2 or planar):
            return None  # such as CH3, NO2
    single = all(len(x) == 1 for x in around)
    return RotamerTorsion(chain, 2 if any(flat) else 1 if single else 3)


def _is_flat(positions: Floats) -> bool:
    """Return True if the first atom lies in the plane of the other three."""
    atom, *corners = positions
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    height = (atom - corners[0]) @ normal / np.linalg.norm(normal)
    return bool(abs(height) < _FLAT)


def _is_bent(positions: Floats) -> bool:
    """Return True if neither angle of a chain of four atoms (4, 3) is straight."""
    steps = np.diff(positions, axis=0)
    steps /= np.linalg.norm(steps, axis=1)[:, None]
    sines = np.linalg.norm(np.cross(steps[:-1], steps[1:]), axis=1)
    return bool(sines.min() > _BENT)
