"""Use a function of your own as a level of theory.

A level is a function of a frame and its settings that returns energy and forces. Its
module must be importable where labels are made, so this runs from its own folder:

    cd examples && python own_level.py
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alloop import Campaign, Frame, Result

CAMPAIGN = """
name: springs
start: [{molecule: H2O}]
validation: {frames: 6, temperature: 300}
levels:
  cheap: {kind: "own_level:springs", settings: {stiffness: 40.0}}
  expensive: {kind: "own_level:springs", settings: {stiffness: 45.0}}
seeds: {cheap: 20, expensive: 6, temperature: 300}
explore: {walkers: 2, steps: 40, piece: 20, temperature: 300}
potential: {kind: pairwise}
training: {every: 6}
budget: {cheap: 30, expensive: 12}
cluster: {kind: inline}
limits: {isolate: false}
store: springs.zarr
"""
LENGTHS = np.array([[0.0, 0.97, 0.97], [0.97, 0.0, 1.53], [0.97, 1.53, 0.0]])  # Å


def springs(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Springs between all pairs of water's atoms: energy in eV, forces in eV/Å."""
    k = settings["stiffness"]  # eV/Å²
    apart = frame.positions[:, None] - frame.positions  # (3, 3, xyz) Å
    r = np.linalg.norm(apart, axis=-1) + np.eye(3)
    stretch = (r - LENGTHS) * (1 - np.eye(3))
    energy = 0.25 * k * np.sum(stretch**2)  # every pair stands twice
    forces = -k * np.sum((stretch / r)[:, :, None] * apart, axis=1)
    return Result(float(energy), forces)


def main() -> None:
    """Run a small campaign whose two levels are springs of different stiffness."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "springs.yaml"
        file.write_text(CAMPAIGN)
        campaign = Campaign.from_yaml(file)
        print("finished:", campaign.run().finished)
        print(len(campaign.dataset("expensive")), "expensive labels to learn from")


if __name__ == "__main__":
    main()
