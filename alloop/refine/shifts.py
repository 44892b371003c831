"""Shifts of frames from a training set: features, force norms and connectivity.

The three shifts of Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (arXiv
2503.08674, section 3). There a frame is out of distribution more than one standard
deviation from the mean of the training frames; here, where it exceeds a quantile of
them, and the deviation says how far. What training frames measure themselves is
cross-fitted: each half is measured by what the other half holds.

Frames are described by a potential: their descriptors, and the norms of its forces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch, frame_means, take_atoms
from alloop.core.errors import InputError
from alloop.core.roles import Potential
from alloop.core.units import Booleans, Floats, Integers
from alloop.scores.calibrate import LEAST, conformal_quantile
from alloop.scores.connectivity import Connectivity, fit_connectivity
from alloop.scores.leverage import fit_leverage
from alloop.scores.qresidual import UNSEEN, QResidual

SHIFTS = ("features", "forces", "connectivity")
_NARROW = 0.01  # least spread of a shift: below it, differences mean nothing

_CHUNK = 2000  # atoms, about, that a potential gets at once


@dataclass(frozen=True, slots=True, eq=False)
class DescribedFrames:
    """Frames with their descriptors and force norms.

    descriptors: (atoms, features), None where the potential has none; rows of atoms
    that were not described are NaN. norms (frames,): mean length of the force on an
    atom, eV/Å; NaN where it is not known.
    """

    batch: Batch
    descriptors: Floats | None
    norms: Floats

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, indices: Integers) -> "DescribedFrames":
        """Return the frames at `indices`, in that order."""
        atoms = take_atoms(self.batch.offsets, indices)
        descriptors = None if self.descriptors is None else self.descriptors[atoms]
        return DescribedFrames(
            self.batch.select(indices), descriptors, self.norms[indices]
        )


@dataclass(frozen=True, slots=True, eq=False)
class ShiftValues:
    """The raw shifts of frames.

    features (frames,): the largest leverage of an atom, in multiples of its element's
    mean in training (`alloop.scores.leverage`); NaN without descriptors. forces
    (frames,): mean length of the force on an atom, eV/Å. connectivity (frames,):
    distance from the nearest training spectrum; from_mean (frames,): from their mean.
    atoms: the leverage of each atom (atoms,).
    """

    features: Floats
    forces: Floats
    connectivity: Floats
    from_mean: Floats
    atoms: Floats

    def of(self, shift: str) -> Floats:
        """Return the values (frames,) of one of `SHIFTS`."""
        values: Floats = getattr(self, shift)
        return values


@dataclass(frozen=True, slots=True)
class Usual:
    """Mean, spread and upper quantile of a shift among training frames."""

    mean: float
    spread: float
    limit: float

    def deviations(self, values: Floats) -> Floats:
        """Return (values - mean) / spread."""
        out: Floats = (values - self.mean) / self.spread
        return out

    def exceeded(self, values: Floats) -> Booleans:
        """Return True where the limit is exceeded, False for NaN."""
        out: Booleans = values > self.limit
        return out


@dataclass(frozen=True, slots=True, eq=False)
class ElementShift:
    """The shift of the atoms of one element.

    atoms, trained: their numbers in the frames and in training. leverage: the median
    in the frames, as a multiple of the training's mean; out: the share of atoms above
    the quantile of training atoms. Both are NaN without descriptors.
    """

    number: int
    atoms: int
    trained: int
    leverage: float
    out: float


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """The shifts of frames from a training set.

    values: the raw ones; deviations and out: by shift, in standard deviations of
    training frames and whether their quantile is exceeded, (frames,) each. elements:
    one entry for each element in the frames, by atomic number.
    """

    values: ShiftValues
    deviations: Mapping[str, Floats]
    out: Mapping[str, Booleans]
    elements: tuple[ElementShift, ...]

    def out_by(self, frame: int) -> tuple[str, ...]:
        """Return the shifts by which a frame is out."""
        return tuple(shift for shift in SHIFTS if self.out[shift][frame])

    @property
    def outside(self) -> Booleans:
        """True for frames that are out by any shift, (frames,)."""
        outside: Booleans = np.any([self.out[shift] for shift in SHIFTS], axis=0)
        return outside


@dataclass(frozen=True, slots=True, eq=False)
class TrainingShifts:
    """A training set, as a potential describes it, to compare frames with.

    trained: the number of its frames; counts: of its atoms by atomic number. usual: by
    shift what the training frames measure; atoms: the quantile of their atoms' leverage
    by atomic number. complete: True where all their graphs join all atoms, so that
    connectivity tells nothing but sizes.
    """

    features: QResidual | None
    connectivity: Connectivity
    usual: Mapping[str, Usual]
    values: ShiftValues
    trained: int
    counts: Mapping[int, int]
    atoms: Mapping[int, float]
    complete: bool

    def measure(self, frames: DescribedFrames) -> Shifts:
        """Return the shifts of frames."""
        values = _measured(self.features, self.connectivity, frames)
        return Shifts(
            values=values,
            deviations={
                shift: self.usual[shift].deviations(values.of(shift))
                for shift in SHIFTS
            },
            out={
                shift: self.usual[shift].exceeded(values.of(shift)) for shift in SHIFTS
            },
            elements=self._elements(frames.batch.numbers, values.atoms),
        )

    def _elements(
        self, numbers: Integers, leverages: Floats
    ) -> tuple[ElementShift, ...]:
        shifts = []
        for number in np.unique(numbers).tolist():
            of_element = leverages[numbers == number]
            limit = self.atoms.get(number, 0.0)
            finite = not np.isnan(of_element).any()
            out = float((of_element > limit).mean()) if finite else np.nan
            trained = self.counts.get(number, 0)
            middle = float(np.median(of_element))
            shifts.append(ElementShift(number, len(of_element), trained, middle, out))
        return tuple(shifts)


def fit_shifts(
    training: DescribedFrames, radius: float, quantile: float = 0.99
) -> TrainingShifts:
    """Return what frames are compared with.

    radius: Å, of the graphs; quantile: of training frames, beyond which a frame is out.
    Raises InputError for fewer than ten frames and for a radius that is not positive.
    """
    if len(training) < LEAST:
        raise InputError(
            f"expected {LEAST} training frames or more to compare with, got "
            f"{len(training)}; give a larger set"
        )
    if not 0.0 < radius < np.inf:
        raise InputError(f"expected a radius above 0 Å, got {radius}")
    features, connectivity = _fitted(training, radius)
    values = _cross_fitted(training, radius)
    numbers = training.batch.numbers
    elements = np.unique(numbers).tolist()
    return TrainingShifts(
        features=features,
        connectivity=connectivity,
        usual={shift: _usual(values.of(shift), quantile) for shift in SHIFTS},
        values=values,
        trained=len(training),
        counts={z: int((numbers == z).sum()) for z in elements},
        atoms={z: _limit(values.atoms[numbers == z], quantile) for z in elements},
        complete=_complete(training.batch, connectivity),
    )


def _fitted(
    training: DescribedFrames, radius: float, points: int | None = None
) -> tuple[QResidual | None, Connectivity]:
    connectivity = fit_connectivity(training.batch, radius, points)
    if training.descriptors is None:
        return None, connectivity
    described = (training.batch, training.descriptors)
    return fit_leverage(described, described), connectivity


def _measured(
    features: QResidual | None, connectivity: Connectivity, frames: DescribedFrames
) -> ShiftValues:
    batch = frames.batch
    quantiles = connectivity.quantiles(batch)
    leverages = np.full(len(batch.numbers), np.nan)
    if features is not None:
        leverages[:] = UNSEEN  # of frames that were not described
        if frames.descriptors is not None:
            seen = ~np.isnan(frames.descriptors).any(axis=1)
            measured = features.per_atom(batch, np.nan_to_num(frames.descriptors))
            leverages[seen] = measured[seen]
            trained = np.isin(batch.numbers, features.elements)
            leverages[~seen & trained] = np.nan  # its frame has an unknown element
    maxima = leverages[:0]
    if len(batch):
        maxima = np.fmax.reduceat(leverages, batch.offsets[:-1])
    return ShiftValues(
        features=maxima,
        forces=frames.norms,
        connectivity=connectivity.nearest(quantiles),
        from_mean=connectivity.from_mean(quantiles),
        atoms=leverages,
    )


def _cross_fitted(training: DescribedFrames, radius: float) -> ShiftValues:
    """Return the values of training frames, each half measured by the other."""
    points = int(training.batch.sizes.max())
    index = np.arange(len(training))
    features, connectivity, from_mean = (np.zeros(len(index)) for _ in range(3))
    atoms = np.zeros(len(training.batch.numbers))
    owner = training.batch.frame_index % 2
    for half in (0, 1):
        mine, other = index[index % 2 == half], index[index % 2 != half]
        fitted = _fitted(training.select(other), radius, points)
        values = _measured(*fitted, training.select(mine))
        features[mine], atoms[owner == half] = values.features, values.atoms
        connectivity[mine], from_mean[mine] = values.connectivity, values.from_mean
    return ShiftValues(features, training.norms, connectivity, from_mean, atoms)


def _usual(values: Floats, quantile: float) -> Usual:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Usual(np.nan, np.nan, np.nan)
    middle = finite[finite < UNSEEN] if (finite < UNSEEN).any() else finite
    spread = max(float(middle.std()), _NARROW)
    return Usual(float(middle.mean()), spread, _limit(finite, quantile))


def _limit(values: Floats, quantile: float) -> float:
    """Return the conformal quantile, or the largest value where there are too few."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.nan
    limit = conformal_quantile(finite, quantile)
    return limit if np.isfinite(limit) else float(finite.max())


def _complete(batch: Batch, connectivity: Connectivity) -> bool:
    """Return True if every atom of each frame is a neighbour of all others.

    Then all eigenvalues but one are n/(n - 1).
    """
    n = batch.sizes.astype(np.float64)
    middle = (connectivity.quantiles(batch)[:, -1] - n / np.maximum(n - 1.0, 1.0)) ** 2
    return bool((middle < _NARROW**2 / 100).all()) and not batch.pbc.any()


def describe_frames(
    potential: Potential,
    batch: Batch,
    forces: Floats | None = None,
    elements: Sequence[int] | None = None,
) -> DescribedFrames:
    """Return frames with a potential's descriptors and their force norms.

    forces (atoms, 3) in eV/Å: of labels, by default the potential's. elements: the
    atomic numbers that the potential was trained on; frames with others are not
    predicted.
    """
    covered = np.zeros(len(batch.numbers), dtype=np.bool_)
    covered[:] = True if elements is None else np.isin(batch.numbers, list(elements))
    slices = batch.atom_slices()
    complete = np.array([covered[atoms].all() for atoms in slices], dtype=np.bool_)
    predicted = np.full((len(batch.numbers), 3), np.nan)
    descriptors: Floats | None = None
    for part in _parts(batch, np.flatnonzero(complete)):
        said = potential.predict(batch.select(part), descriptors=True)
        atoms = np.isin(batch.frame_index, part)
        predicted[atoms] = said.forces
        if said.descriptors is not None:
            if descriptors is None:
                shape = (len(atoms), said.descriptors.shape[1])
                descriptors = np.full(shape, np.nan)
            descriptors[atoms] = said.descriptors
    return DescribedFrames(
        batch, descriptors, force_norms(batch, predicted if forces is None else forces)
    )


def force_norms(batch: Batch, forces: Floats) -> Floats:
    """Return the mean over each frame's atoms of the force's length, (frames,) eV/Å."""
    return frame_means(batch, np.linalg.norm(forces, axis=1))


def _parts(batch: Batch, indices: Integers) -> list[Integers]:
    """Cut frames into parts of about `_CHUNK` atoms."""
    if not len(indices):
        return []
    ends = np.cumsum(batch.sizes[indices]) // _CHUNK
    cuts = np.flatnonzero(np.diff(ends)) + 1
    parts: list[Integers] = np.split(indices, cuts)
    return parts
