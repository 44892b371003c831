"""Pair energies of SO3LR that need no network: repulsion, charges, dispersion.

Kabylda et al., "Molecular simulations with a pretrained neural network and universal
pairwise force fields", ChemRxiv 10.26434/chemrxiv-2024-bdfr0 (2024). All functions take
what belongs to pairs, (pairs,), and return the energy of each ordered pair in eV: half
of that of the pair.
"""

import math

import torch
from torch import Tensor

from alloop.core.units import BOHR, HARTREE

COULOMB = 14.399645351950548  # e²/4πε0, eV Å
_FINE_STRUCTURE = 0.0072973525693
_WIDTH = 4.0  # Å, of the charges
_DAMPING = 1.2  # of the dispersion
_TAIL = 2.0  # Å before the cutoff, over which dispersion is switched off
_SWITCH = 0.45  # of the cutoff, where the force of charges begins to be shifted
_SMALL = 1e-2  # exp(-1/x) is below every rounding there
_RADIUS = (-0.00433008, 0.24428889, 0.04125273, -0.00078893)  # cubic in the vdW radius

# Of free atoms, by atomic number, in atomic units: polarisability and C6 (Tkatchenko
# and Scheffler, Phys. Rev. Lett. 102, 073005 (2009)).
FREE_ATOMS = {
    1: (4.5, 6.5),
    6: (12.0, 46.6),
    7: (7.4, 24.2),
    8: (5.4, 15.6),
    9: (3.8, 9.52),
    15: (25.0, 185.0),
    16: (19.6, 134.0),
    17: (15.0, 94.6),
}


def smooth_step(r: Tensor, start: float, stop: float) -> Tensor:
    """Return a factor that is 1 below `start` and 0 above `stop` (Å), smooth in all."""
    x = (r - start) / (stop - start)
    down, up = _flat_exponential(1.0 - x), _flat_exponential(x)
    return down / (down + up)


def _flat_exponential(x: Tensor) -> Tensor:
    """Return exp(-1/x), and zero to within rounding for x ≤ 0."""
    return torch.exp(-1.0 / x.clamp(min=_SMALL))


def repulsion_energy(r: Tensor, z: Tensor, other: Tensor, fitted: Tensor) -> Tensor:
    """Return the energy of ZBL's form between nuclei below 1.5 Å.

    z, other: atomic numbers; fitted (10,): exponents and factors of the four
    exponentials, then the power of the atomic numbers and the inverse length (1/Å).
    """
    exponents, factors, power, inverse = torch.split(fitted, [4, 4, 1, 1])
    x = r * (z**power + other**power) * inverse
    screened = torch.exp(-x.unsqueeze(-1) * exponents) @ (factors / factors.sum())
    bare: Tensor = 0.5 * COULOMB * z * other / r
    return bare * screened * smooth_step(r, 0.0, 1.5)


def charge_energy(r: Tensor, product: Tensor, cutoff: float) -> Tensor:
    """Return the energy of two Gaussian charges, whose force ends at the cutoff (Å).

    product: of the two charges, e².
    """
    end, slope = _erf_potential(cutoff), _erf_slope(cutoff)
    near = torch.erf(r / _WIDTH) / r - end
    shift = (1.0 - smooth_step(r, _SWITCH * cutoff, cutoff)) * slope * (r - cutoff)
    energy = 0.5 * COULOMB * product * (near - shift)
    return torch.where(r < cutoff, energy, torch.zeros_like(energy))


def dispersion_energy(
    r: Tensor, polarisabilities: tuple[Tensor, Tensor], c6: Tensor, cutoff: float
) -> Tensor:
    """Return the energy of two damped quantum Drude oscillators.

    Khabibrakhmanov et al., JCTC 19, 7895 (2023). polarisabilities of the two atoms and
    c6 of the pair are in atomic units; the cutoff is in Å.
    """
    mean = 0.5 * (polarisabilities[0] + polarisabilities[1])
    root = mean ** (1.0 / 7.0)
    radius = _FINE_STRUCTURE ** (-4.0 / 21.0) * root
    a, b, c, d = _RADIUS
    width = a + radius * (b + radius * (c + radius * d))
    gamma = 0.5 / width**2
    damping = 2.0 * 2.54 * _DAMPING * root
    R = r / BOHR
    terms = (
        1.0 / (R**6 + damping**6)
        + 5.0 / gamma / (R**8 + damping**8)
        + 245.0 / 8.0 / gamma**2 / (R**10 + damping**10)
    )
    energy: Tensor = -0.5 * HARTREE * c6 * terms
    return energy * smooth_step(r, cutoff - _TAIL, cutoff)


def mixed_c6(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Return the C6 of a pair from (polarisability, C6) of its two atoms."""
    (a, c), (b, d) = first, second
    return 2.0 * c * d * a * b / (a**2 * d + b**2 * c)


def _erf_potential(r: float) -> float:
    return math.erf(r / _WIDTH) / r


def _erf_slope(r: float) -> float:
    """Return the derivative of erf(r/w)/r."""
    x = r / _WIDTH
    gauss = 2.0 * x * math.exp(-(x**2)) / math.sqrt(math.pi)
    return (gauss - math.erf(x)) / r**2
