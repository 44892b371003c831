"""The connectivity of frames: spectra of their neighbour graphs, and a scorer by them.

Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415 (arXiv 2503.08674): a frame's
graph joins atoms closer than a radius; its spectrum is that of the symmetric normalised
Laplacian L = I - D^(-1/2) A D^(-1/2), A the number of edges between two atoms and D
their sums. There spectra are padded with zeros to one length, which makes distances
depend on the number of atoms. Here a spectrum is a quantile function, and the distance
of two is √∫ (λ(q) - λ'(q))² dq: the Wasserstein distance of the two distributions of
eigenvalues. For frames of n atoms each its square is 1/n of the paper's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alloop.core.batch import Batch, evenly_thinned
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Arrays, Potential, ReadPotential, Retrain
from alloop.core.settings import setting
from alloop.core.units import Floats
from alloop.models.neighbours import neighbour_pairs

RADIUS = 3.0  # Å: bonds and angles of most molecules
_MOST = 2000  # spectra that are kept
_DECIMALS = 9  # of eigenvalues: equal graphs have equal spectra
_SAME = 1e-8  # distances below are rounding errors


@dataclass(frozen=True, slots=True, eq=False)
class Connectivity:
    """The spectra of the frames of a training; a scorer by the distance from them.

    radius: Å, of the graphs. mean (points,): the mean spectrum; spectra (spectra,
    points): the distinct ones, as quantile functions at evenly spaced points.
    """

    radius: float
    mean: Floats
    spectra: Floats

    def score(
        self,
        batch: Batch,
        predictions: Predictions,  # noqa: ARG002
    ) -> Floats:
        """Return the distances (frames,) from the nearest training spectrum."""
        return self.nearest(self.quantiles(batch))

    def quantiles(self, batch: Batch, radius: float | None = None) -> Floats:
        """Return the spectra of frames (frames, points), by default at our radius."""
        chosen = self.radius if radius is None else radius
        return spectrum_quantiles(batch, chosen, len(self.mean))

    def nearest(self, quantiles: Floats) -> Floats:
        """Return the distances (frames,) from the nearest training spectrum."""
        from scipy.spatial.distance import cdist  # slow to import

        apart = cdist(quantiles, self.spectra) if len(quantiles) else np.zeros((0, 1))
        out: Floats = apart.min(axis=1) / np.sqrt(len(self.mean))
        return np.where(out < _SAME, 0.0, out)

    def from_mean(self, quantiles: Floats) -> Floats:
        """Return the distances (frames,) from the mean training spectrum."""
        out: Floats = np.sqrt(((quantiles - self.mean) ** 2).mean(axis=1))
        return out

    def arrays(self) -> Arrays:
        """Return the named arrays that `ConnectivityScorer.restore` reads."""
        radius = np.array([self.radius])
        return {"radius": radius, "mean": self.mean, "spectra": self.spectra}


@dataclass(frozen=True, slots=True)
class ConnectivityScorer:
    """The Scorer whose surprise is the distance from the nearest training spectrum.

    It needs no descriptors and no energies.
    """

    radius: float = setting(
        RADIUS, "distance below which two atoms are neighbours, Å", gt=0, le=20
    )

    def fit(
        self,
        potential: Potential,  # noqa: ARG002
        learned: Batch,
        heldout: Batch,  # noqa: ARG002
        retrain: Retrain,  # noqa: ARG002
    ) -> Connectivity:
        """Return the spectra of the frames that were learned from."""
        return fit_connectivity(learned, self.radius)

    def restore(
        self,
        arrays: Arrays,
        read_potential: ReadPotential,  # noqa: ARG002
    ) -> Connectivity:
        """Return the scorer that gave these arrays; ValueError if they do not fit."""
        radius, mean = arrays["radius"], arrays["mean"]
        spectra = arrays["spectra"]
        fits = radius.shape == (1,) and mean.ndim == 1 and len(mean) > 0
        if not fits or spectra.ndim != 2 or spectra.shape[1:] != mean.shape:
            raise ValueError("the scorer's arrays do not fit")
        if not len(spectra) or not (0.0 < radius[0] < np.inf):
            raise ValueError("the scorer has no spectra or no radius")
        return Connectivity(float(radius[0]), mean, spectra)


def fit_connectivity(
    learned: Batch, radius: float, points: int | None = None
) -> Connectivity:
    """Return the spectra of frames at a radius (Å).

    points: of the quantile functions, by default the atoms of the largest frame, so
    that frames of one size are compared eigenvalue by eigenvalue. Raises InputError
    without frames.
    """
    if not len(learned):
        raise InputError("expected training frames to fit a scorer, got none")
    count = points or int(learned.sizes.max())
    spectra = spectrum_quantiles(learned, radius, count)
    distinct = np.unique(spectra.round(_DECIMALS), axis=0)
    rows = distinct[evenly_thinned(len(distinct), _MOST)].copy()
    return Connectivity(float(radius), spectra.mean(axis=0), rows)


def spectrum_quantiles(batch: Batch, radius: float, points: int) -> Floats:
    """Return the spectra as quantile functions at the middles of `points` intervals.

    The k-th of n eigenvalues stands at (k - 1/2)/n; between two the function is a line.
    """
    levels = (np.arange(points) + 0.5) / points
    out = np.zeros((len(batch), points))
    for row, spectrum in enumerate(laplacian_spectra(batch, radius)):
        ranks = (np.arange(len(spectrum)) + 0.5) / len(spectrum)
        out[row] = np.interp(levels, ranks, spectrum)
    return out


def laplacian_spectra(batch: Batch, radius: float) -> Iterator[Floats]:
    """Yield the eigenvalues (atoms,) of each frame's Laplacian, in ascending order.

    There are as many zeros as separate parts, an atom without neighbours is one (Chung,
    Spectral Graph Theory, 1997, section 1.2). I - 0 would give it a 1, and O-H...H the
    spectrum of H-O-H.
    """
    pairs = neighbour_pairs(batch, radius)
    there = batch.positions[pairs.neighbours] + pairs.shifts
    near = np.linalg.norm(there - batch.positions[pairs.centres], axis=1) < radius
    centres, neighbours = pairs.centres[near], pairs.neighbours[near]
    cuts = np.searchsorted(centres, batch.offsets)
    for atoms, start, stop in zip(
        batch.atom_slices(), cuts[:-1], cuts[1:], strict=True
    ):
        size, first = atoms.stop - atoms.start, atoms.start
        edges = np.zeros((size, size))
        inside = (centres[start:stop] - first, neighbours[start:stop] - first)
        np.add.at(edges, inside, 1.0)
        degrees = edges.sum(axis=1)
        scale = 1.0 / np.sqrt(np.maximum(degrees, 1.0))
        ones = np.diag((degrees > 0.0).astype(np.float64))
        yield np.linalg.eigvalsh(ones - scale[:, None] * edges * scale)
