"""Principal subspaces of one element's descriptors."""

from dataclasses import dataclass, replace

import numpy as np

from alloop.core.arrays import Place, library
from alloop.core.units import Floats

_TINY = 1e-12  # of the total variance: below it, a direction is rounding error


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The directions in which training atoms differ.

    mean (features,); axes (components, features), orthonormal; variances (components,)
    along them; rest: mean variance of a direction outside; total: Σ of all variances.
    """

    mean: Floats
    axes: Floats
    variances: Floats
    rest: float
    total: float

    def residual(self, descriptors: Floats) -> Floats:
        """Return Q_i = ||x_i - x̂_i||² (atoms,) of descriptors (atoms, features)."""
        x, scores = self._projected(descriptors)
        left = x - scores @ self.axes
        out: Floats = library(left).einsum("af,af->a", left, left)
        return out

    def distance(self, descriptors: Floats) -> Floats:
        """Return T² + Q/σ² (atoms,), the Mahalanobis distance of probabilistic PCA.

        Tipping & Bishop, J. R. Stat. Soc. B 1999, 61, 611, section 3; σ² is `rest`.
        """
        x, scores = self._projected(descriptors)
        einsum = library(x).einsum
        inside = einsum("ak,ak->a", scores, scores / self.variances)
        left = x - scores @ self.axes
        out: Floats = inside + einsum("af,af->a", left, left) / self.rest
        return out

    def placed(self, place: Place) -> "Subspace":
        """Return the subspace for descriptors that are kept elsewhere."""
        mean, axes, variances = map(place, (self.mean, self.axes, self.variances))
        return replace(self, mean=mean, axes=axes, variances=variances)

    def _projected(self, descriptors: Floats) -> tuple[Floats, Floats]:
        x = descriptors - self.mean
        return x, x @ self.axes.T


def principal_subspace(
    descriptors: Floats, components: float, typical: float = 1.0
) -> Subspace:
    """Return the PCA of descriptors (atoms, features), mean-centred and unscaled.

    components: an int counts axes, a float below 1 is the share of the variance that
    they must hold. At least one direction stays outside, or there would be no residual.
    typical: the total variance to assume where the atoms have none, as with a single
    atom.
    """
    atoms, features = descriptors.shape
    mean = descriptors.mean(axis=0)
    _, singular, axes = np.linalg.svd(descriptors - mean, full_matrices=False)
    variances = singular**2 / max(atoms - 1, 1)
    total = float(variances.sum()) or typical
    rank = min(_component_count(variances, components), features - 1)
    outside = max(
        float(variances[rank:].sum()), _unseen_variance(total, atoms, features)
    )
    rest = outside / (features - rank)
    return Subspace(mean, axes[:rank], variances[:rank], rest, total)


def ridge_space(descriptors: Floats, ridge: float, typical: float = 1.0) -> Subspace:
    """Return the space in which `distance` is the regularised leverage.

    That of an atom with descriptor h is (h - h̄)ᵀ (C + λ)⁻¹ (h - h̄), C the covariance of
    descriptors (atoms, features) and λ the share `ridge` of their total variance: the
    variance of a linear model's prediction under ridge regression. typical: as in
    `principal_subspace`.
    """
    mean = descriptors.mean(axis=0)
    centred = descriptors - mean
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(descriptors)
    total = float(variances.sum()) or typical
    rank = int((variances > _TINY * total).sum())
    # Added to each direction, seen or not: outside, where C is 0, T² + Q/σ² has σ² =
    # λ.
    floor = ridge * total
    return Subspace(mean, axes[:rank], variances[:rank] + floor, floor, total)


def _unseen_variance(total: float, atoms: int, features: int) -> float:
    """Return the least variance outside the subspace.

    With no more atoms than features some directions are unseen; they are given about
    one atom's share of the variance.
    """
    share = 1.0 / atoms if atoms <= features else _TINY
    return max(share * total, float(np.finfo(np.float64).tiny))


def _component_count(variances: Floats, components: float) -> int:
    """Return the number of axes to keep, of those larger than rounding errors."""
    total = variances.sum()
    real = int((variances > _TINY * total).sum())
    if components >= 1 or real == 0:
        return min(int(components), real)
    held = np.cumsum(variances) / total
    return min(int(np.searchsorted(held, components)) + 1, real)
