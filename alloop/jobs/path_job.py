"""A reaction path on a model: energies, limits of errors, and a check at a level."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.core.atoms import to_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.md.reaction_path import (
    PathSettings,
    ReactionPath,
    find_path,
    stationary_point,
    with_saddle,
)

PICTURES = (".svg", ".png", ".pdf")
# In extxyz, where `energy` is the total energy.
_KEYS = {"number": "image", "length": "path_length", "energy": "path_energy"}


@dataclass(frozen=True, slots=True)
class PathImage:
    """An image of a path.

    length: the paths of all atoms up to here, summed, Å; energy in eV above the first
    image; surprise; error_limit: the upper limit of the largest force error on an atom,
    eV/Å; energy_limit: what force errors within these limits can add up to between the
    first image and here, eV; NaN where the model has no limits, inf where one is
    infinite. reference: the energy at the level of the check above that of the first
    image, NaN without.
    """

    number: int
    length: float
    energy: float
    surprise: float
    error_limit: float
    energy_limit: float
    reference: float

    def facts(self) -> dict[str, Any]:
        """Return all numbers, fit for `json.dumps`: None where there is none."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {k: v if np.isfinite(v) else None for k, v in values.items()}


@dataclass(frozen=True, slots=True, eq=False)
class PathCheck:
    """A level that gives the energies of the ends and of the highest image."""

    title: str
    potential: Potential


@dataclass(frozen=True, slots=True, eq=False)
class PathProfile:
    """A path with the model's opinion of each image, and the check of its top.

    threshold: the surprise above which the model should not be trusted, None without.
    wavenumbers: of a refined saddle in cm⁻¹, negative for imaginary ones. level: the
    title of the level of the check, "" without.
    """

    path: ReactionPath
    images: tuple[PathImage, ...]
    threshold: float | None
    level: str = ""
    wavenumbers: tuple[float, ...] = ()

    @property
    def top(self) -> PathImage:
        """The image with the highest energy."""
        return self.images[self.path.top]

    @property
    def has_barrier(self) -> bool:
        """True if the highest image is none of the ends."""
        return 0 < self.path.top < len(self.images) - 1

    @property
    def surprising(self) -> int:
        """The number of images whose surprise lies above the threshold."""
        if self.threshold is None:
            return 0
        return sum(image.surprise > self.threshold for image in self.images)

    def facts(self) -> dict[str, Any]:
        """Return the whole profile, fit for `json.dumps`."""
        last = self.images[-1]
        return {
            "converged": self.path.converged,
            "force": self.path.force,
            "steps": self.path.steps,
            "barrier": self.top.energy if self.has_barrier else None,
            "reverse_barrier": (
                self.top.energy - last.energy if self.has_barrier else None
            ),
            "reaction_energy": last.energy,
            "surprising": self.surprising,
            "wavenumbers": list(self.wavenumbers) or None,
            "level": self.level or None,
            "images": [image.facts() for image in self.images],
        }

    def stationary_atoms(self) -> Iterator[Atoms]:
        """Yield both minima and, between them, the saddle, as `atoms` does."""
        names = {0: "minimum", len(self.images) - 1: "minimum"}
        if self.has_barrier:
            names[self.path.top] = "saddle"
        for number, atoms in enumerate(self.atoms()):
            if number in names:
                atoms.info["point"] = names[number]
                yield atoms

    def atoms(self) -> Iterator[Atoms]:
        """Yield the images with their numbers in `info`, for extxyz."""
        for image, frame in zip(self.images, self.path.batch.frames(), strict=True):
            atoms = to_atoms(frame)
            facts = {_KEYS.get(k, k): v for k, v in image.facts().items()}
            atoms.info |= {k: v for k, v in facts.items() if v is not None}
            yield atoms


def path_profile(
    model: Generation,
    ends: tuple[Frame, Frame],
    settings: PathSettings,
    check: PathCheck | None = None,
    observe: Callable[[int, float], None] | None = None,
    *,
    refine: bool = False,
) -> PathProfile:
    """Return the path of least energy between two structures on a model.

    observe: called with step and largest force, eV/Å. refine: put the highest image,
    where it is no end, on the saddle point next to it. Raises InputError where the
    structures do not fit together, see `alloop.md.reaction_path.find_path`.
    """
    path = find_path(*ends, model, settings, observe)
    wavenumbers: tuple[float, ...] = ()
    if refine and 0 < path.top < len(path.batch) - 1:
        saddle, modes = stationary_point(path.batch.frame(path.top), model)
        path = with_saddle(path, saddle, model)
        wavenumbers = tuple(modes.wavenumbers.tolist())
    surprise, limits = _trust(model, path)
    columns = (
        path.lengths.tolist(),
        path.energies.tolist(),
        surprise.tolist(),
        limits.tolist(),
        energy_limits(path.lengths, limits).tolist(),
        _references(path, check),
    )
    rows = enumerate(zip(*columns, strict=True))
    images = tuple(PathImage(number, *values) for number, values in rows)
    title = "" if check is None else check.title
    return PathProfile(path, images, model.threshold, title, wavenumbers)


def energy_limits(lengths: Floats, limits: Floats) -> Floats:
    """Return what force errors can add up to from the first image on (images,), eV.

    lengths (images,): the paths of all atoms, summed, Å; limits (images,): of the
    largest force error on an atom, eV/Å. The error of an energy difference is the
    force error's work, which is at most the limit times what all atoms move
    (trapezoidal rule).
    """
    parts = 0.5 * (limits[1:] + limits[:-1]) * np.diff(lengths)
    return np.concatenate([np.zeros(1), np.cumsum(parts)])


def _trust(model: Generation, path: ReactionPath) -> tuple[Floats, Floats]:
    none = np.full(len(path.batch), nan)
    if model.scorer is None:
        return none, none
    predictions: Predictions = model.predict(path.batch, descriptors=True)
    surprise = model.scorer.score(path.batch, predictions)
    if model.error_limits is None:
        return surprise, none
    return surprise, model.error_limits.limits(surprise, path.batch)


def _references(path: ReactionPath, check: PathCheck | None) -> list[float]:
    """Return the energies at the level of the check; NaN but for ends and top."""
    energies = np.full(len(path.batch), nan)
    if check is not None:
        places = sorted({0, path.top, len(path.batch) - 1})
        frames = pack_frames([path.batch.frame(place) for place in places])
        energies[places] = check.potential.predict(frames).energies
        energies -= energies[0]
    return [float(x) for x in energies]


def draw_profile(profile: PathProfile, out: Path, kind: str) -> None:
    """Draw energy against the atoms' paths, with the band that the limits allow.

    kind: the format of the file: svg, png or pdf.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = profile.images
    lengths, energies, limits = (
        np.array([getattr(x, name) for x in rows])
        for name in ("length", "energy", "energy_limit")
    )
    if np.isfinite(limits).any():
        band = (lengths, energies - limits, energies + limits)
        label = "what the limits of force errors allow"
        axes.fill_between(*band, alpha=0.2, linewidth=0, label=label)
    axes.plot(lengths, energies, "o-", markersize=4, label="model")
    flagged = [
        profile.threshold is not None and x.surprise > profile.threshold for x in rows
    ]
    if any(flagged):
        places = (lengths[flagged], energies[flagged])
        axes.plot(*places, "o", color="tab:red", markersize=5, label="surprising")
    references = [(x.length, x.reference) for x in rows if not isnan(x.reference)]
    if references:
        axes.plot(*zip(*references, strict=True), "kx", label=profile.level)
    axes.set_xlabel("paths of all atoms, summed, Å")
    axes.set_ylabel("energy above the first image, eV")
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(out, format=kind)
