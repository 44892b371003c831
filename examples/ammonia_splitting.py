"""Inversion of ammonia on a campaign's model and, with --level, at the level itself.

    alloop run campaigns/ammonia.yaml
    python examples/ammonia_splitting.py runs/ammonia.zarr --level 'ccsd(t)/cc-pvdz'

The nitrogen's height and the hydrogens' circle move (Colbert & Miller, 1992).
"""

import argparse

import numpy as np
from ase import units
from scipy.interpolate import RectBivariateSpline

import alloop
from alloop.core.levels import energy_level
from alloop.jobs.level_model import LevelPotential

H, N = 1.00783, 14.00307  # amu
KINETIC = 0.5 * units._hbar**2 / units._amu / units._e * 1e20  # ħ²/2 in eV amu Å²
HEIGHTS, RADII = np.arange(-30, 31) * 0.032, np.arange(0.72, 1.33, 0.04)  # Å


def kinetic(grid, mass):
    """Return the kinetic energy of sinc functions on a grid, eV."""
    i, j = np.indices((len(grid), len(grid)))
    terms = np.where(i == j, np.pi**2 / 3, 2.0 / np.maximum(np.abs(i - j), 1) ** 2)
    return KINETIC / mass / (grid[1] - grid[0]) ** 2 * (-1.0) ** (i - j) * terms


def surface(potential):
    """Return energies (heights, radii) in eV; both signs of h are one structure."""
    ring = np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])
    shapes = [np.vstack([[[0, 0, h]], r * ring]) for h in HEIGHTS[30:] for r in RADII]
    frames = [alloop.Frame(np.array([7, 1, 1, 1]), x) for x in shapes]
    half = potential.predict(alloop.pack_frames(frames)).energies.reshape(31, -1)
    return np.vstack([half[:0:-1], half])


def report(name, energies):
    """Print the barrier, the zero-point energy and the lowest levels of a surface."""
    spline = RectBivariateSpline(HEIGHTS, RADII, energies, kx=5, ky=5)
    fine = np.arange(0.8, 1.2, 0.0005)
    bottom, flat = spline(fine - 0.6, fine).min(), spline(0.0, fine).min()
    moving = np.kron(kinetic(HEIGHTS, 3 * H * N / (3 * H + N)), np.eye(len(RADII)))
    moving += np.kron(np.eye(len(HEIGHTS)), kinetic(RADII, 3 * H))
    levels = np.linalg.eigvalsh(moving + np.diag(energies.ravel() - bottom))[:6]
    barrier, (low, *upper) = (flat - bottom) / units.invcm, levels / units.invcm
    above = ", ".join(f"{x - low:.3f}" for x in upper)
    print(f"{name}: barrier {barrier:.1f}, zero point {low:.1f}, levels {above} cm⁻¹")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("store")
parser.add_argument("--level", help="such as hf/sto-3g")
options = parser.parse_args()
report("model", surface(alloop.Campaign.from_store(options.store).model().potential))
if options.level:
    level = energy_level(alloop.level(options.level))
    report(level.title, surface(LevelPotential(level)))
