"""Reaction paths that lead away from a round's walkers, as frames for labels.

Shapes of the walkers are relaxed on the model; a climbing band joins the lowest minimum
to each of the others. MD crosses a barrier of 1 eV in no affordable time, a band in a
hundred force calls.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.roles import Potential
from alloop.core.settings import COUNT, PARALLEL_COUNT, setting
from alloop.core.units import Floats
from alloop.md.conformers import same_shape, sorted_distances
from alloop.md.contacts import closest_contact, covalent_lengths
from alloop.md.shapes import CLASH, ShapeSettings, bonded_atoms, proposed_shapes
from alloop.md.thermal_frames import relax_frames

_RELAXED = 0.05  # eV/Å; the model's own error is rarely smaller where it is surprised
_CONVERGED = 0.1  # eV/Å across a band; its images are rattled anyway
_DIRECTIONS = 8  # in which a moved hydrogen is put, until one is free
_HALF_TURN = 180.0  # degrees: bonds are bent by any angle


@dataclass(frozen=True, slots=True)
class PathExplorerSettings:
    """Reaction paths between the minima that shapes of the walkers relax to."""

    share: float = setting(
        0.2, "share of a round's labels of flagged frames for these", gt=0, lt=1
    )
    proposals: int = setting(
        6, "shapes of each walker that are relaxed in a round", **PARALLEL_COUNT
    )
    minima: int = setting(
        4, "minima of a molecule that are joined to the lowest one", ge=1, le=100
    )
    images: int = setting(7, "structures between two minima", ge=1, le=100)
    copies: int = setting(3, "rattled copies of each structure", ge=0, le=100)
    rattle: float = setting(
        0.05, "standard deviation of their coordinates, Å", gt=0, le=0.5
    )
    effort: int = setting(
        100, "most steps of a relaxation, and of the search for a path", **COUNT
    )
    isomers: bool = setting(
        False,
        "whether paths may lead to bonds that no walker has, by bends of 180° and by "
        "moved hydrogens",
    )
    reach: float = setting(
        3.0, "largest distance of a hydrogen from the atom it is moved to, Å", gt=0
    )
    tolerance: float = setting(
        0.01,
        "largest error of the energy at a path's top at which the path is done, once "
        "none of its structures surprises, eV",
        gt=0,
    )
    energy: float = setting(
        5.0,
        "largest energy that the model gives a structure above the lowest minimum, eV",
        gt=0,
    )

    @property
    def steps(self) -> int:
        """The MD steps on each walker: none."""
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """The structures of a path from the lowest minimum to another one, ends included.

    Those above the settings' energy are left out, but for `top`, the highest.
    """

    images: tuple[Frame, ...]
    top: Frame
    minimum: Frame


def path_bands(
    frames: Sequence[Frame],
    potential: Potential,
    settings: PathExplorerSettings,
    rng: np.random.Generator,
    *,
    followed: Sequence[Frame] = (),
    done: Sequence[Frame] = (),
) -> list[Band]:
    """Return bands from the lowest minimum of a molecule to others.

    frames: of one molecule, without cells; the minima are those that shapes of them and
    the minima `followed` relax to, up to `settings.energy` above the lowest. Those that
    are also minima in `done` are passed over. Empty with one minimum.
    """
    seeds = [seed for frame in frames for seed in _seeds(frame, settings, rng)]
    minima = low_minima(frames, [*followed, *seeds], potential, settings)
    relaxed = relax_frames(done, potential, _RELAXED, settings.effort)
    marks = [_mark(frame) for frame in relaxed if frame is not None]
    others = [
        x for x in minima[1:] if not any(same_shape(_mark(x), mark) for mark in marks)
    ]
    bands = (
        _band(minima[0], last, potential, settings)
        for last in others[: settings.minima]
    )
    return [band for band in bands if band is not None]


def _mark(frame: Frame) -> Floats:
    return sorted_distances(frame.numbers, frame.positions)


def transferred_frames(
    frame: Frame, reach: float, rng: np.random.Generator
) -> Iterator[Frame]:
    """Yield the frame with a hydrogen moved to another atom beside hydrogen.

    For each pair within `reach` (Å) that is not bonded; the hydrogen is put at the
    length of a bond from its new partner, in the first of a few random directions in
    which it bonds to no other atom.
    """
    bonded = bonded_atoms(frame)
    lengths = covalent_lengths(frame.numbers)
    for hydrogen in np.flatnonzero(frame.numbers == 1):
        for atom in np.flatnonzero((frame.numbers > 1) & ~bonded[hydrogen]):
            origin = frame.positions[atom]
            if np.linalg.norm(frame.positions[hydrogen] - origin) > reach:
                continue
            for arm in rng.normal(size=(_DIRECTIONS, 3)):
                positions = np.array(frame.positions)
                length = lengths[hydrogen, atom] / np.linalg.norm(arm)
                positions[hydrogen] = origin + length * arm
                moved = replace(frame, positions=positions)
                if bonded_atoms(moved)[hydrogen].sum() == 1:
                    yield moved
                    break


def low_minima(
    walkers: Sequence[Frame],
    seeds: Sequence[Frame],
    potential: Potential,
    settings: PathExplorerSettings,
) -> list[Frame]:
    """Return the different minima that walkers and seeds relax to, the lowest first.

    Two are one if their distances are, up to equal atoms and mirrors; of these the one
    that lies nearest to the lowest minimum is taken, since a path to it turns fewest
    bonds.
    """
    frames = [*walkers, *seeds]
    from alloop.md.reaction_path import aligned_distance  # loads scipy

    relaxed = relax_frames(frames, potential, _RELAXED, settings.effort)
    sound = [x for x in relaxed if x is not None and closest_contact(x) >= CLASH]
    if not settings.isomers:
        kinds = {bonded_atoms(frame).tobytes() for frame in walkers}
        sound = [x for x in sound if bonded_atoms(x).tobytes() in kinds]
    if not sound:
        return []
    energies = potential.predict(pack_frames(sound)).energies
    order = np.argsort(energies, kind="stable")
    order = order[energies[order] <= energies[order[0]] + settings.energy]
    lowest = sound[order[0]]
    minima: list[Frame] = []
    marks: list[Floats] = []
    for frame in (sound[place] for place in order):
        mark = _mark(frame)
        twin = next((i for i, x in enumerate(marks) if same_shape(mark, x)), None)
        if twin is None:
            minima.append(frame)
            marks.append(mark)
        elif twin and aligned_distance(frame, lowest) < aligned_distance(
            minima[twin], lowest
        ):
            minima[twin] = frame
    return minima


def _seeds(
    frame: Frame, settings: PathExplorerSettings, rng: np.random.Generator
) -> list[Frame]:
    """Return shapes of a frame in which bonds are turned, bent or formed."""
    bend = _HALF_TURN if settings.isomers else 0.0
    shapes = ShapeSettings(proposals=settings.proposals, bend=bend)
    pool = proposed_shapes(frame, shapes, rng)
    if settings.isomers:
        pool += transferred_frames(frame, settings.reach, rng)
    chosen = rng.permutation(len(pool))[: settings.proposals]
    return [pool[place] for place in chosen]


def _band(
    first: Frame, last: Frame, potential: Potential, settings: PathExplorerSettings
) -> Band | None:
    """Return the band between two minima; None where there is none of low energy."""
    from alloop.md.reaction_path import PathSettings, find_path  # loads scipy

    search = PathSettings(
        images=settings.images,
        fmax=_CONVERGED,
        steps=settings.effort,
        relax=False,
        match=True,
    )
    try:
        path = find_path(first, last, potential, search)
    except InputError:  # the ends are one once their like atoms are numbered alike
        return None
    low = path.energies <= settings.energy
    frames = list(path.batch.frames())
    images = tuple(x for x, kept in zip(frames, low, strict=True) if kept)
    return Band(images, frames[path.top], frames[-1])
