"""Rates of reactions by transition-state theory, with tunnelling.

The saddle and the minima are rigid rotors with harmonic vibrations in an ideal gas.
"""

from dataclasses import dataclass

import numpy as np
from ase import units

from alloop.core.units import BOLTZMANN, Floats
from alloop.md.vibrations import Vibrations, gas_functions

_PLANCK = units._hplanck * units.J  # eV s
_STEPS = 20_001  # energies of the integral through a barrier
_ABOVE = 40.0  # kT above the top, where nothing comes from any more


@dataclass(frozen=True, slots=True)
class ReactionRate:
    """The rate of a reaction at a temperature in K.

    classical: 1/s of a unimolecular reaction, without tunnelling; wigner and eckart:
    factors by which tunnelling multiplies it.
    """

    temperature: float
    classical: float
    wigner: float
    eckart: float


def reaction_rate(
    points: tuple[Vibrations, Vibrations, Vibrations],
    energies: Floats,
    temperature: float,
) -> ReactionRate:
    """Return the rate from a minimum over a saddle to another minimum (Eyring, 1935).

    points: vibrations of minimum, saddle and minimum; energies (3,) eV. The barriers
    that Eckart's formula wants hold the zero-point energies.
    """
    thermal = BOLTZMANN * temperature
    gas = [
        gas_functions(point, float(energy), temperature, 1.0)
        for point, energy in zip(points, energies, strict=True)
    ]
    low, top, high = (
        energy + functions.zero_point
        for energy, functions in zip(energies, gas, strict=True)
    )
    quantum = -float(points[1].modes.wavenumbers[0]) * units.invcm
    activation = gas[1].gibbs - gas[0].gibbs
    return ReactionRate(
        temperature=temperature,
        classical=float(thermal / _PLANCK * np.exp(-activation / thermal)),
        wigner=wigner_factor(quantum, thermal),
        eckart=eckart_factor(top - low, top - high, quantum, thermal),
    )


def wigner_factor(quantum: float, thermal: float) -> float:
    """Return 1 + (hν/kT)²/24 for a saddle's quantum and kT in eV (Wigner, 1932)."""
    return 1.0 + (quantum / thermal) ** 2 / 24.0


def eckart_factor(
    forward: float, backward: float, quantum: float, thermal: float
) -> float:
    """Return the factor of tunnelling through an Eckart barrier.

    forward, backward: its heights above both ends; quantum: hν of the saddle;
    thermal: kT; all in eV. The transmission is that of Johnston & Heicklen (J. Phys.
    Chem. 66, 532, 1962) over a Boltzmann distribution of energies.
    """
    a, b = (2.0 * np.pi * height / quantum for height in (forward, backward))
    energies = np.linspace(
        max(0.0, forward - backward), forward + _ABOVE * thermal, _STEPS
    )
    shape = 2.0 / (a**-0.5 + b**-0.5)
    x = np.sqrt(a * energies / forward) * shape
    y = np.sqrt(np.maximum(a * energies / forward - a + b, 0.0)) * shape
    d = np.sqrt(complex(4.0 * a * b - np.pi**2))  # imaginary in a flat barrier
    # Less the largest exponent: barriers of many quanta would overflow.
    exponent = np.maximum(x + y, d.real)
    above = np.exp(x + y - exponent) + np.exp(-x - y - exponent)
    below = np.exp(x - y - exponent) + np.exp(y - x - exponent)
    depth = (np.exp(d - exponent) + np.exp(-d - exponent)).real
    through = (above - below) / (above + depth)
    weights = np.exp((forward - energies) / thermal)
    return float(np.trapezoid(through * weights, energies) / thermal)
