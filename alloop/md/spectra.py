"""Infrared spectra from dipole moments along MD."""

from dataclasses import dataclass

import numpy as np
from ase import units
from scipy.signal import welch

from alloop.core.units import BOLTZMANN, Floats
from alloop.md.vibrations import INTENSITY

_FEMTOSECOND = 1e-15 * 100.0 * units._c  # cm: light's way in it
# (e Å/fs)² over kT in eV, in e²/amu.
_RATES = (1e-10 / 1e-15) ** 2 * units._amu / units._e


@dataclass(frozen=True, slots=True, eq=False)
class InfraredSpectrum:
    """A spectrum: wavenumbers (points,) in cm⁻¹ and absorption in km/mol per cm⁻¹."""

    wavenumbers: Floats
    absorption: Floats

    def intensity(self, low: float, high: float) -> float:
        """Return the intensity between two wavenumbers (cm⁻¹) in km/mol."""
        inside = (self.wavenumbers >= low) & (self.wavenumbers <= high)
        spacing = self.wavenumbers[1] - self.wavenumbers[0]
        return float(self.absorption[inside].sum() * spacing)


def infrared_spectrum(
    dipoles: Floats, spacing: float, temperature: float, width: float = 10.0
) -> InfraredSpectrum:
    """Return the spectrum of molecules from their dipoles along classical MD.

    dipoles (frames, walkers, 3) in e Å, `spacing` fs apart, at a temperature in K;
    width: resolution in cm⁻¹, by the length of the pieces that are averaged (Welch).
    The spectrum is that of dμ/dt over kT, with the quantum correction of harmonic
    oscillators (Ramírez et al., J. Chem. Phys. 121, 3973, 2004): a harmonic molecule
    has its double-harmonic intensities at any temperature.
    """
    pieces = min(len(dipoles), max(8, round(1.0 / (width * _FEMTOSECOND * spacing))))
    frequencies, power = welch(
        dipoles, 1.0 / spacing, nperseg=pieces, axis=0, detrend="constant"
    )
    rates = (2.0 * np.pi * frequencies[:, None]) ** 2 * power.sum(axis=2)
    thermal = BOLTZMANN * temperature
    # One-sided densities in 1/fs: their integral over frequencies is the mean square.
    absorption = INTENSITY * _RATES * rates.mean(axis=1) / thermal * _FEMTOSECOND
    return InfraredSpectrum(frequencies / _FEMTOSECOND, absorption)
