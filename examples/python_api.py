"""Run a campaign from Python, then MD with its force field in ASE.

The toy campaign replaces quantum chemistry by Morse pairs, so that this takes seconds:

    python examples/python_api.py
"""

from pathlib import Path

from ase import units
from ase.md.verlet import VelocityVerlet

from alloop import Campaign

CAMPAIGN = Path(__file__).parent.parent / "campaigns" / "toy.yaml"


def main() -> None:
    """Run the campaign and 200 steps at constant energy on the result."""
    campaign = Campaign.from_yaml(CAMPAIGN)
    print("finished:", campaign.run().finished)  # a second call continues, or returns

    frames = campaign.dataset("expensive")  # ase.Atoms, REF_energy and REF_forces
    print(len(frames), "labelled frames of", frames[0].get_chemical_formula())

    atoms = frames[0].copy()
    atoms.calc = campaign.calculator()  # energy (eV), forces (eV/Å), surprise
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    before = atoms.get_total_energy()
    dynamics.run(200)
    drift = 1000 * (atoms.get_total_energy() - before) / len(atoms)
    print(f"energy drift over 0.1 ps: {drift:.3f} meV per atom")
    print(f"surprise of the last frame: {atoms.calc.results['surprise']:.2f}")


if __name__ == "__main__":
    main()
