"""Rates against Schrödinger's equation and limits where their results are known."""

import numpy as np
import pytest
from ase import units
from scipy.integrate import solve_ivp

from alloop.core.frame import Frame
from alloop.core.units import BOLTZMANN, Floats
from alloop.md.rates import eckart_factor, reaction_rate, wigner_factor
from alloop.md.thermal_frames import NormalModes, angular_frequency
from alloop.md.vibrations import Vibrations

QUANTUM = 0.15  # eV, some 1200 cm⁻¹
HBAR2 = (units._hbar / units._e) ** 2 * units._e / units._amu * 1e20  # eV amu Å²


def transmissions(energies: Floats, forward: float, backward: float) -> Floats:
    """Transmissions by integrating Schrödinger's equation through the barrier.

    Eckart's barrier V = A ξ/(1+ξ) + B ξ/(1+ξ)², ξ = exp(x), x in Å, with the mass at
    which the top has the quantum.
    """
    rise, hump = forward - backward, (np.sqrt(forward) + np.sqrt(backward)) ** 2

    def barrier(x: Floats) -> Floats:
        xi = np.exp(x)
        return rise * xi / (1 + xi) + hump * xi / (1 + xi) ** 2

    grid = np.linspace(-3, 3, 60_001)
    top, step = grid[np.argmax(barrier(grid))], 1e-3
    bend = barrier(top + step) - 2 * barrier(top) + barrier(top - step)
    mass = HBAR2 * -bend / (step * QUANTUM) ** 2
    outgoing = np.sqrt(2 * mass * (energies - rise) / HBAR2)
    incoming = np.sqrt(2 * mass * energies / HBAR2)

    def slope(x: float, y: Floats) -> Floats:
        value, derivative = np.split(y, 2)
        curvature = 2 * mass / HBAR2 * (barrier(x) - energies) * value
        return np.concatenate([derivative, curvature])

    start = np.concatenate([np.ones_like(outgoing), 1j * outgoing])  # to the right
    done = solve_ivp(slope, (14, -14), start, rtol=1e-8, atol=1e-9, method="DOP853")
    value, derivative = np.split(done.y[:, -1], 2)
    forth = 0.5 * (value + derivative / (1j * incoming))
    return outgoing / incoming / np.abs(forth) ** 2


@pytest.mark.parametrize(("forward", "backward"), [(0.3, 0.3), (0.5, 0.3), (0.3, 0.4)])
def test_eckart_s_factor_is_that_of_schroedinger_s_equation(
    forward: float, backward: float
) -> None:
    thermal = BOLTZMANN * 500.0
    low, high = max(0.0, forward - backward), forward + 12 * thermal
    nodes, weights = np.polynomial.legendre.leggauss(24)
    energies = low + (high - low) * 0.5 * (nodes + 1)
    through = transmissions(energies, forward, backward)
    integrand = through * np.exp((forward - energies) / thermal) / thermal
    direct = 0.5 * (high - low) * weights @ integrand
    assert direct > 1.4
    factor = eckart_factor(forward, backward, QUANTUM, thermal)
    assert factor == pytest.approx(direct, rel=2e-3)


def test_at_high_temperature_eckart_s_factor_is_wigner_s() -> None:
    """To the leading order in the quantum over kT."""
    thermal = 10 * QUANTUM
    factor = eckart_factor(100.0, 80.0, QUANTUM, thermal)
    assert factor - 1 == pytest.approx(wigner_factor(QUANTUM, thermal) - 1, rel=0.02)


def test_high_barriers_do_not_overflow() -> None:
    factor = eckart_factor(6.0, 5.0, 0.01, BOLTZMANN * 300.0)
    assert factor == pytest.approx(wigner_factor(0.01, BOLTZMANN * 300.0), rel=0.01)


def test_a_hot_rate_is_that_of_classical_oscillators() -> None:
    """Vineyard (1957): frequencies of the minimum over those of the saddle."""
    frame = Frame(np.array([8, 1, 1]), np.array([[0, 0, 0], [1, 0, 0], [0, 1.1, 0.0]]))
    minimum, saddle = np.array([800.0, 1200, 1900]), np.array([-700.0, 1100, 1500])
    points = tuple(
        Vibrations(
            frame,
            NormalModes(np.sign(x) * angular_frequency(x) ** 2, np.zeros((3, 3, 3))),
            None,
        )
        for x in (minimum, saddle, minimum)
    )
    temperature = 30_000.0
    rate = reaction_rate(points, np.array([0.0, 0.5, -0.1]), temperature)
    light = 100 * units._c  # cm/s
    attempts = light * minimum.prod() / saddle[1:].prod()  # per second
    expected = attempts * np.exp(-0.5 / (BOLTZMANN * temperature))
    assert rate.classical == pytest.approx(expected, rel=2e-3)
    assert rate.wigner == pytest.approx(
        1 + (700 * units.invcm) ** 2 / 24 / 2.585**2, 1e-3
    )
