"""Functions of a distance and an angle: spherical Bessel and Legendre.

DimeNet (Gasteiger, Groß, Günnemann, ICLR 2020, Eq. 6) takes j_l(z_ln r/c) P_l(cos α).
Closed forms of j_l cancel at short distances, so each function is written as a sum of
cosines (l even) or sines (l odd), fitted once in float64: two kernels and a matrix
product then give them all, exactly smooth in every type and bounded beyond the cutoff.
"""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from alloop.core.units import Floats

_SPARE = 8  # waves beyond those that resolve the fastest function
_PERIOD = 4.0  # of the slowest wave, in cutoffs: the range and its mirror, twice


class SphericalBessel(nn.Module):
    """The functions N_ln j_l(z_ln r/c), l < spherical, n = 1...radial.

    z_ln is the n-th root of j_l; N_ln makes ∫ r² f² dr over the cutoff c (Å) equal 1.
    """

    waves: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, spherical: int, radial: int, cutoff: float) -> None:
        super().__init__()
        self.shape = (spherical, radial)
        roots = bessel_roots(spherical, radial)
        waves = _wave_numbers(float(roots.max()))
        even, odd = _fitted_waves(roots, waves)
        self._constant("waves", waves / cutoff)  # 1/Å
        self._constant("cosines", even * cutoff**-1.5)
        self._constant("sines", odd * cutoff**-1.5)

    def forward(self, r: Tensor) -> Tensor:
        """Return the functions at r (edges,) in Å: (edges, spherical, radial)."""
        phase = r.unsqueeze(-1) * self.waves
        found = torch.cos(phase) @ self.cosines + torch.sin(phase) @ self.sines
        return found.view(len(r), *self.shape)

    def _constant(self, name: str, values: Floats) -> None:
        self.register_buffer(name, torch.from_numpy(values), persistent=False)


def legendre_polynomials(x: Tensor, degrees: int) -> list[Tensor]:
    """Return sqrt((2l + 1)/4π) P_l(x), l < degrees, smooth at x = ±1 too."""
    found = [torch.ones_like(x), x][:degrees]
    for k in range(2, degrees):
        found.append(((2 * k - 1) * x * found[-1] - (k - 1) * found[-2]) / k)
    return [p * math.sqrt((2 * k + 1) / (4 * math.pi)) for k, p in enumerate(found)]


def bessel_roots(spherical: int, radial: int) -> Floats:
    """Return the first positive roots of j_0, j_1, ...: (spherical, radial).

    Between two roots of j_l lies one of j_(l+1).
    """
    roots = [math.pi * np.arange(1.0, spherical + radial)]
    for degree in range(1, spherical):
        ends = zip(roots[-1][:-1], roots[-1][1:], strict=True)
        found = [brentq(lambda z, k=degree: spherical_jn(k, z), *end) for end in ends]
        roots.append(np.array(found))
    return np.stack([own[:radial] for own in roots]).astype(np.float64)


def _wave_numbers(fastest: float) -> Floats:
    slowest = 2.0 * math.pi / _PERIOD
    count = math.ceil(fastest / slowest) + _SPARE
    return slowest * np.arange(count, dtype=np.float64)


def _fitted_waves(roots: Floats, waves: Floats) -> tuple[Floats, Floats]:
    """Return the coefficients of each wave for cosines and for sines.

    Both are (waves, spherical * radial).
    """
    spherical, radial = roots.shape
    x = 0.5 - 0.5 * np.cos(math.pi * np.arange(401) / 400)  # dense at both ends
    parity = np.repeat(np.arange(spherical) % 2, radial)
    degree = np.repeat(np.arange(spherical), radial)
    norm = math.sqrt(2.0) / np.abs(spherical_jn(degree + 1, roots.ravel()))
    wanted = norm * spherical_jn(degree, np.outer(x, roots.ravel()))
    phase = np.outer(x, waves)
    even = np.linalg.lstsq(np.cos(phase), wanted * (1 - parity), rcond=1e-12)[0]
    odd = np.linalg.lstsq(np.sin(phase), wanted * parity, rcond=1e-12)[0]
    return even, odd
