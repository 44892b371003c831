"""A reaction path between two structures: a climbing nudged elastic band.

The band is ASE's (Henkelman, Uberuaga & Jónsson, J. Chem. Phys. 113, 9901 (2000)),
begun with the image-dependent pair potential (Smidstrup et al., J. Chem. Phys. 140,
214106 (2014)), which keeps atoms apart. All images are predicted in one batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB, idpp_interpolate, interpolate
from ase.optimize import FIRE

from alloop.core.atoms import to_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.settings import COUNT, setting
from alloop.core.units import Floats, Integers
from alloop.md.shapes import bonded_atoms
from alloop.md.thermal_frames import (
    NormalModes,
    normal_modes,
    numerical_hessian,
    relax_frame,
)

_ENDS = 0.01  # eV/Å, the largest force of relaxed ends
_ROUGH = 5.0  # times the limit of forces, where the highest image begins to climb
_SPRING = 1.0  # eV/Å²; stiff, so that images also stand on slopes
_INERTIA = 0.1  # weight of an image's own orientation beside that of the one before
_ROUNDS = 4  # of numbering like atoms
_MOST_LIKE = 4  # atoms whose orders are all tried
_TORN = 1e4  # eV/Å; atoms on top of each other, or a model that knows nothing there
_KINK = 0.05  # Å, the standard deviation by which the first images are displaced
_STRIDE = 0.05  # Å, the longest move of an atom in a step of Newton's method
_NEWTON_STEPS, _HESSIAN_LIFE = 24, 8  # steps, and those between two Hessians
_SAME = 0.05  # Å, the root mean square distance of atoms below which ends are one


@dataclass(frozen=True, slots=True)
class PathSettings:
    """The settings of a search for a reaction path."""

    images: int = setting(9, "structures between the two ends", ge=1, le=500)
    fmax: float = setting(
        0.05,
        "largest force across the path at which it has converged, eV/Å",
        gt=0,
    )
    steps: int = setting(500, "most steps of the search", **COUNT)
    relax: bool = setting(True, "whether the two ends are relaxed first")
    match: bool = setting(
        False,
        "whether like atoms, such as the hydrogens of CH2, are numbered in the last "
        "structure as in the first, so that no path turns an atom inside out",
    )


@dataclass(frozen=True, slots=True, eq=False)
class ReactionPath:
    """The images of a band from the first to the last structure.

    batch: the images; predictions: of the potential;
    force: the largest force across the band in eV/Å; steps: those that were taken.
    """

    batch: Batch
    predictions: Predictions
    force: float
    steps: int
    converged: bool

    @property
    def energies(self) -> Floats:
        """The energies of the images above the first (images,), eV."""
        energies: Floats = self.predictions.energies - self.predictions.energies[0]
        return energies

    @property
    def top(self) -> int:
        """The image with the highest energy."""
        return int(np.argmax(self.energies))

    @property
    def lengths(self) -> Floats:
        """The paths of all atoms up to each image, summed (images,), Å."""
        positions = self.batch.positions.reshape(len(self.batch), -1, 3)
        moves = np.linalg.norm(np.diff(positions, axis=0), axis=2).sum(axis=1)
        return np.concatenate([[0.0], np.cumsum(moves)])


def find_path(
    first: Frame,
    last: Frame,
    potential: Potential,
    settings: PathSettings,
    observe: Callable[[int, float], None] | None = None,
) -> ReactionPath:
    """Return the path of least energy from one structure to another.

    The highest image climbs to the saddle point once the band is roughly there. observe
    is called with step and largest force (eV/Å).
    Raises InputError where the structures are not of the same atoms in the same order,
    or are one and the same.
    """
    _require_same_atoms(first, last)
    if settings.relax:
        first, last = (relax_frame(x, potential, _ENDS) for x in (first, last))
    if settings.match:
        last = with_matched_atoms(first, last)
    band = _Band(first, last, potential, settings.images)
    steps, converged = 0, False
    for climb in (False, True):
        band.climb = climb
        limit = settings.fmax * (1.0 if climb else _ROUGH)
        optimiser = FIRE(band, logfile=None)
        for _ in optimiser.irun(fmax=limit, steps=settings.steps - steps):
            if observe is not None:
                observe(steps + optimiser.nsteps, band.get_residual())
        steps += optimiser.nsteps
        converged = band.get_residual() < limit
    batch = band.batch()
    return ReactionPath(
        batch=batch,
        predictions=potential.predict(batch),
        force=float(band.get_residual()),
        steps=steps,
        converged=bool(converged),
    )


def stationary_point(
    frame: Frame, potential: Potential, fmax: float = 1e-3
) -> tuple[Frame, NormalModes]:
    """Return the stationary point next to a frame with its modes, by Newton's method.

    fmax: the largest force there, eV/Å. Directions without curvature, in which a
    molecule moves as a whole, are left out. A saddle stays one, since a step goes
    uphill where the curvature is negative. Raises InputError where no point is reached.
    """
    inverse: Floats = np.zeros((3 * len(frame), 3 * len(frame)))
    for step in range(_NEWTON_STEPS):
        forces = potential.predict(pack_frames([frame])).forces
        if np.abs(forces).max() < fmax:
            modes = normal_modes(frame, numerical_hessian(frame, potential))
            return frame, modes
        if step % _HESSIAN_LIFE == 0:
            hessian = numerical_hessian(frame, potential)
            inverse = np.asarray(np.linalg.pinv(hessian, rcond=1e-3, hermitian=True))
        move = (inverse @ forces.ravel()).reshape(-1, 3)
        move *= min(1.0, _STRIDE / np.linalg.norm(move, axis=1).max())
        frame = replace(frame, positions=frame.positions + move)
    raise InputError(
        f"expected a stationary point near the structure, a force of "
        f"{np.abs(forces).max():.3g} eV/Å is left after {_NEWTON_STEPS} steps; give "
        "more `--images`, or a smaller `--fmax`"
    )


def with_saddle(
    path: ReactionPath, saddle: Frame, potential: Potential
) -> ReactionPath:
    """Return the path with another structure in place of its highest image."""
    positions = path.batch.positions.reshape(len(path.batch), -1, 3).copy()
    positions[path.top] = _aligned(
        saddle.positions, positions[path.top], np.arange(len(saddle))
    )
    batch = path.batch.with_positions(positions.reshape(-1, 3))
    return replace(path, batch=batch, predictions=potential.predict(batch))


def with_matched_atoms(first: Frame, last: Frame) -> Frame:
    """Return the last structure with like atoms numbered as in the first.

    Like ones are ends of bonds at one and the same atom, such as the hydrogens of CH2.
    They are numbered so that the handedness at that atom is kept, which no path could
    change without breaking a bond, then so that they move little: a methyl group may
    stay a third of a turn away from the shortest way.
    """
    groups = list(_like_atoms(first, last))
    numbering = np.arange(len(first))
    single = np.setdiff1d(numbering, [atom for _, group in groups for atom in group])
    atoms = single if len(single) > 2 else numbering
    for _ in range(_ROUNDS):  # the better the order, the better they lie on each other
        positions = _aligned(last.positions[numbering], first.positions, atoms)
        atoms = np.arange(len(first))
        order = np.arange(len(first))
        for places, group in groups:
            order[group] = _best_order(first.positions, positions, places, group)
        numbering = numbering[order]
    return replace(last, positions=last.positions[numbering])


def _like_atoms(first: Frame, last: Frame) -> Iterator[tuple[list[int], list[int]]]:
    """Yield groups of like ends of bonds, each after the atoms that it is among."""
    bonds = [bonded_atoms(frame) for frame in (first, last)]
    for parent in range(len(first)):
        around = bonds[0][parent] & bonds[1][parent]
        for element in np.unique(first.numbers[around]):
            group = [
                int(atom)
                for atom in np.flatnonzero(around & (first.numbers == element))
                if all(x[atom].sum() == 1 for x in bonds)
            ]
            if 1 < len(group) <= _MOST_LIKE:
                yield [parent, *map(int, np.flatnonzero(around))], group


def _best_order(
    reference: Floats, positions: Floats, places: list[int], group: list[int]
) -> list[int]:
    """Return the order of a group of atoms that fits the reference best.

    places: the atoms around, whose shape tells the handedness.
    """

    def misfit(candidate: Sequence[int]) -> tuple[float, float]:
        order = np.arange(len(positions))
        order[group] = candidate
        group_shape, goal = positions[order][places], reference[places]
        off = np.abs(_aligned(group_shape, goal) - goal).sum()
        return round(float(off), 1), float(np.abs(positions[order] - reference).sum())

    return min((list(x) for x in permutations(group)), key=misfit)


class _Band(NEB):  # type: ignore[misc]
    """ASE's band, with the forces of all images from one call of a potential."""

    def __init__(
        self, first: Frame, last: Frame, potential: Potential, images: int
    ) -> None:
        self.potential = potential
        self.predicted = np.zeros((0, 3))  # positions of the last prediction
        self.frame = first  # whose atoms, charge and cell all images have
        ends = [to_atoms(first), to_atoms(last)]
        free = not any(first.pbc)
        if free:
            from ase.build import minimize_rotation_and_translation  # scipy, slow

            minimize_rotation_and_translation(*ends)
        _require_distance(ends[0].positions - ends[1].positions)
        band = [ends[0], *(ends[0].copy() for _ in range(images)), ends[1]]
        self.free = free
        interpolate(band, mic=not free)
        # The straight line between linear molecules leads an atom through others, and
        # by symmetry no force leads away from it.
        kink = np.random.default_rng(0).normal(0.0, _KINK, band[0].positions.shape)
        for number, image in enumerate(band[1:-1], 1):
            image.positions += np.sin(np.pi * number / (images + 1)) * kink
        start = NEB(band, method="improvedtangent")
        idpp_interpolate(start, traj=None, log=None, mic=not free)
        super().__init__(band, k=_SPRING, method="improvedtangent")
        self._align()

    def batch(self) -> Batch:
        """Return the images as they are."""
        return pack_frames(
            [replace(self.frame, positions=image.positions) for image in self.images]
        )

    def set_positions(self, positions: Floats, **facts: Any) -> None:
        """Move the images, and turn each to the one before.

        Else the distances between images would count turns of the whole molecule.
        """
        super().set_positions(positions, **facts)
        self._align()

    def _align(self) -> None:
        if self.free:
            for before, image in pairwise(self.images):
                image.positions = _aligned(image.positions, before.positions)

    def get_forces(self) -> Any:
        """Return the forces of the band (images - 2, atoms, 3), eV/Å."""
        positions = np.concatenate([image.positions for image in self.images])
        if not np.array_equal(positions, self.predicted):  # ASE asks more than once
            self._predict()
            self.predicted = positions
        return super().get_forces()

    def _predict(self) -> None:
        predictions = self.potential.predict(self.batch())
        forces = predictions.forces.reshape(len(self.images), -1, 3)
        if np.abs(forces).max(initial=0.0) < _TORN:
            self._set_results(predictions.energies, forces)
            return
        raise InputError(
            "expected a path on which atoms stay apart, forces along it have grown "
            f"beyond {_TORN:g} eV/Å; begin with structures that are more alike"
        )

    def _set_results(self, energies: Floats, forces: Floats) -> None:
        for image, energy, force in zip(self.images, energies, forces, strict=True):
            image.calc = SinglePointCalculator(image, energy=energy, forces=force)


def _aligned(
    positions: Floats, reference: Floats, atoms: Integers | None = None
) -> Floats:
    """Return positions (atoms, 3) shifted and turned onto a reference.

    atoms: the indices of those that are to lie on each other, by default all.

    By Kabsch's algorithm (Acta Cryst. A 32, 922 (1976)), with a small weight for the
    orientation that there is: a linear reference leaves the turn about its axis open,
    and a molecule that turned at random would spoil the optimiser's velocities.
    """
    chosen = np.arange(len(positions)) if atoms is None else atoms
    centre = reference[chosen].mean(axis=0)
    arms = positions - positions[chosen].mean(axis=0)
    goal = reference - centre + _INERTIA * arms
    covariance = arms[chosen].T @ goal[chosen]
    left, _, right = np.linalg.svd(covariance)
    handedness = np.sign(np.linalg.det(left @ right))
    rotation = left @ np.diag([1.0, 1.0, handedness]) @ right
    out: Floats = arms @ rotation + centre
    return out


def aligned_distance(frame: Frame, other: Frame) -> float:
    """Return the root mean square distance of atoms once a frame lies on another, Å."""
    positions = _aligned(frame.positions, other.positions)
    moves: Floats = positions - other.positions
    return float(np.sqrt((moves**2).sum(axis=1).mean()))


def _require_same_atoms(first: Frame, last: Frame) -> None:
    kinds = ((first.charge, first.spin), (last.charge, last.spin))
    if kinds[0] != kinds[1]:
        raise InputError(
            "expected two structures of one charge and multiplicity, got "
            f"charges {first.charge} and {last.charge}, 2S {first.spin} and {last.spin}"
        )
    if not np.array_equal(first.numbers, last.numbers):
        raise InputError(
            "expected the same atoms in the same order in both structures; number "
            "them alike"
        )
    if first.pbc != last.pbc or not np.allclose(first.cell, last.cell):
        raise InputError("expected two structures in the same cell")


def _require_distance(moves: Floats) -> None:
    if np.sqrt((moves**2).sum(axis=1).mean()) < _SAME:
        raise InputError(
            "expected two structures, they are one and the same"
            " once relaxed; `--no-relax` leaves them as they are"
        )
