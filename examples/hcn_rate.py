"""Rate of HCN to HNC on a campaign's model and, with --level, at the level itself.

    alloop run campaigns/hcn.yaml
    python examples/hcn_rate.py runs/hcn.zarr --level 'ccsd(t)/cc-pvdz'

Transition-state theory with tunnelling, see `alloop.md.rates`.
"""

import argparse
from pathlib import Path

from ase import io

import alloop
from alloop.jobs.level_model import LevelPotential
from alloop.md.rates import reaction_rate
from alloop.md.reaction_path import PathSettings, find_path, stationary_point
from alloop.md.vibrations import harmonic_vibrations

ENDS = [Path(__file__).parents[1] / f"campaigns/{name}.xyz" for name in ("hcn", "hnc")]


def rate_table(name, potential, frames):
    """Print barrier, reaction energy, wavenumbers and rates on one surface."""
    points = [stationary_point(frame, potential)[0] for frame in frames]
    energies = potential.predict(alloop.pack_frames(points)).energies
    vibrations = tuple(harmonic_vibrations(point, potential) for point in points)
    barrier, reaction = 1e3 * (energies[1:] - energies[0])
    print(f"{name}: barrier {barrier:.1f} meV, reaction {reaction:.1f} meV")
    for place, point in zip(("HCN", "saddle", "HNC"), vibrations, strict=True):
        print(f"  {place:6}", *(f"{x:8.1f}" for x in point.modes.wavenumbers), "cm⁻¹")
    print("    T, K      k, 1/s   Wigner   Eckart")
    for temperature in (300.0, 500.0, 1000.0, 2000.0):
        rate = reaction_rate(vibrations, energies, temperature)
        factors = f"{rate.wigner:8.3g} {rate.eckart:8.3g}"
        print(f"  {temperature:6.0f} {rate.classical:11.3g} {factors}")


def main():
    """Find the path on the model; compare both surfaces at its stationary points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--level", help="compare with this level, such as gfn2-xtb")
    options = parser.parse_args()
    model = alloop.Campaign.from_store(options.store).model().potential
    first, last = (alloop.from_atoms(io.read(path)) for path in ENDS)
    path = find_path(first, last, model, PathSettings(images=7))
    frames = [path.batch.frame(place) for place in (0, path.top, 8)]
    rate_table("model", model, frames)
    if options.level:
        level = alloop.level(options.level)
        rate_table(level.title, LevelPotential(level), frames)


if __name__ == "__main__":
    main()
