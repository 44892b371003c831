"""ASTEROID's bias of cheap labels and the weights made of it.

Bukharin et al., ICML 2023, section 3: B(x) measures how much a model of the expensive
level disagrees with a cheap force, and w = exp(-B/γ) lowers the weight of labels that
disagree.
"""

from dataclasses import dataclass

import numpy as np

from alloop.core.units import Floats

_RAISE = 1.1  # factor by which γ grows until enough frames count
_ROUNDING = 1e-5  # of the mean bias; a smaller spread is that of float32


@dataclass(frozen=True, slots=True)
class Gamma:
    """ASTEROID's γ: in eV/Å, or as a multiple of the standard deviation of B.

    The multiple can be used for other pairs of levels too: the paper's pairs lie closer
    together than HF and CCSD(T) do.
    """

    value: float
    of_spread: bool = True

    def in_ev_per_angstrom(self, bias: Floats) -> float:
        """Return γ in eV/Å for these biases (frames,).

        A multiple of a spread that is no more than rounding is 0.
        """
        if not self.of_spread:
            return self.value
        spread = float(np.std(bias))
        return self.value * spread if spread > _ROUNDING * np.mean(bias) else 0.0


DEFAULT = Gamma(2.0)


def bias_weights(bias: Floats, gamma: float) -> Floats:
    """Return w = exp(-(B - min B)/γ), scaled to mean 1; (frames,), γ in eV/Å.

    Weights are uniform for γ = 0. Subtracting min B does not change the scaled weights
    and keeps one of them at 1 before the scaling. Without the scaling the loss would
    fall below Adam's epsilon.
    """
    excess = bias - bias.min()
    if gamma <= 0.0:
        return np.ones_like(bias)
    w = np.exp(-excess / gamma)
    out: Floats = w / w.mean()
    return out


def effective_size(weights: Floats) -> float:
    """Return Kish's effective sample size (Σw)²/Σw²."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def guarded_weights(bias: Floats, gamma: Gamma, minimum: float) -> tuple[Floats, float]:
    """Return weights and their γ (eV/Å), which is raised until enough frames count.

    minimum: the smallest effective sample size allowed, as a fraction of the frames
    below 1. Biases that are equal but for rounding give uniform weights and γ = 0.
    """
    value = gamma.in_ev_per_angstrom(bias)
    weights = bias_weights(bias, value)
    while effective_size(weights) < minimum * len(bias):
        value *= _RAISE
        weights = bias_weights(bias, value)
    return weights, value
