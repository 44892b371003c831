"""Infrared spectra of dipoles whose spectrum is known."""

import numpy as np
import pytest
from ase import units

from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN
from alloop.md.spectra import infrared_spectrum
from alloop.md.thermal_frames import angular_frequency
from alloop.md.vibrations import INTENSITY

KELVIN, SPACING, SLOPE = 300.0, 2.0, 0.4  # K, fs, e/√amu
KT = BOLTZMANN * KELVIN
ENERGY = units._amu / units._e * 1e10  # amu Å²/fs² in eV


def oscillators(wavenumber: float, count: int = 200, frames: int = 8000) -> np.ndarray:
    """Thermal harmonic oscillators, whose dipole is along z: (frames, walkers, 3)."""
    rng, omega = random_stream(1, "oscillators"), angular_frequency(wavenumber)
    width = np.sqrt(KT / ENERGY) / omega  # of Q, √amu Å
    phase = rng.uniform(0.0, 2 * np.pi, count)
    amplitude = width * np.sqrt(2.0 * rng.exponential(size=count))
    times = SPACING * np.arange(frames)[:, None]
    dipoles = np.zeros((frames, count, 3))
    dipoles[:, :, 2] = SLOPE * amplitude * np.cos(omega * times + phase)
    return dipoles + np.array([0.5, 0.0, 0.0])


@pytest.mark.parametrize("wavenumber", [500.0, 1500.0, 3500.0])
def test_an_oscillator_has_its_double_harmonic_intensity(wavenumber: float) -> None:
    spectrum = infrared_spectrum(oscillators(wavenumber), SPACING, KELVIN)
    place = spectrum.wavenumbers[np.argmax(spectrum.absorption)]
    assert place == pytest.approx(wavenumber, abs=10.0)
    line = spectrum.intensity(wavenumber - 100, wavenumber + 100)
    assert line == pytest.approx(INTENSITY * SLOPE**2, rel=0.1)  # 200 amplitudes
    everywhere = spectrum.intensity(0.0, 9000.0)
    assert everywhere == pytest.approx(line, rel=0.03)


def test_the_resolution_is_what_is_asked_for() -> None:
    dipoles = oscillators(1000.0) + oscillators(1060.0)
    sharp, blunt = (
        infrared_spectrum(dipoles, SPACING, KELVIN, width) for width in (8.0, 80.0)
    )
    middle = [np.interp(1030.0, x.wavenumbers, x.absorption) for x in (sharp, blunt)]
    heights = [x.absorption.max() for x in (sharp, blunt)]
    assert middle[0] < 0.05 * heights[0]
    assert middle[1] > 0.5 * heights[1]
