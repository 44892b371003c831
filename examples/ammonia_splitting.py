"""Inversion of ammonia on a campaign's model and, with --level, at the level itself.

alloop run campaigns/ammonia.yaml
python examples/ammonia_splitting.py runs/ammonia.zarr --level 'ccsd(t)/cc-pvdz'
"""

import argparse

import numpy as np
from ase import units
from scipy.optimize import minimize

import alloop
from alloop.core.levels import energy_level
from alloop.jobs.level_model import LevelPotential

H, N = 1.00783, 14.00307  # amu
KINETIC = 0.5 * units._hbar**2 / units._amu / units._e * 1e20  # ħ²/2 in eV amu Å²
HEIGHTS, RADII = np.arange(-30, 31) * 0.032, np.arange(0.72, 1.33, 0.04)  # Å
SIMPLEX = {"method": "Nelder-Mead", "options": {"xatol": 1e-4, "fatol": 1e-7}}
RING = np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])


def kinetic(grid, mass):
    """Return the kinetic energy on a grid (Colbert & Miller, 1992), eV."""
    i, j = np.indices((len(grid), len(grid)))
    terms = np.where(i == j, np.pi**2 / 3, 2.0 / np.maximum(np.abs(i - j), 1) ** 2)
    return KINETIC / mass / (grid[1] - grid[0]) ** 2 * (-1.0) ** (i - j) * terms


def energies(potential, *places):
    """Return energies in eV at places (height, radius) in Å."""
    shapes = (np.vstack([[[0, 0, h]], r * RING]) for h, r in places)
    frames = [alloop.Frame(np.array([7, 1, 1, 1]), x) for x in shapes]
    return potential.predict(alloop.pack_frames(frames)).energies


def report(name, potential):
    """Print the barrier, the zero-point energy and the lowest levels of a surface."""
    bottom = minimize(lambda x: energies(potential, x)[0], (0.4, 0.94), **SIMPLEX).fun
    flat = minimize(lambda x: energies(potential, (0, x[0]))[0], (1.0,), **SIMPLEX).fun
    half = energies(potential, *((h, r) for h in HEIGHTS[30:] for r in RADII))
    half = half.reshape(31, -1)
    surface = np.vstack([half[:0:-1], half]).ravel() - bottom
    moving = np.kron(kinetic(HEIGHTS, 3 * H * N / (3 * H + N)), np.eye(len(RADII)))
    moving += np.kron(np.eye(len(HEIGHTS)), kinetic(RADII, 3 * H))
    levels = np.linalg.eigvalsh(moving + np.diag(surface))[:6] / units.invcm
    above = ", ".join(f"{x - levels[0]:.3f}" for x in levels[1:])
    barrier = (flat - bottom) / units.invcm
    print(f"{name}: barrier {barrier:.1f}, zero {levels[0]:.1f}, levels {above} cm⁻¹")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("store")
parser.add_argument("--level", help="such as hf/sto-3g")
options = parser.parse_args()
report("model", alloop.Campaign.from_store(options.store).model().potential)
if options.level:
    level = energy_level(alloop.level(options.level))
    report(level.title, LevelPotential(level))
