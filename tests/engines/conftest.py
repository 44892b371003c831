"""A small network on water with a scorer, in a file, as engines are given it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.scores.qresidual import fit_qresidual


@dataclass(frozen=True)
class Model:
    """A model, its file, the structure it is tried on, and one it does not trust."""

    generation: Generation
    file: Path
    atoms: Atoms
    far: Atoms


@pytest.fixture(scope="session")
def water_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    water = molecule("H2O")
    rng = np.random.default_rng(0)
    near = [water.copy() for _ in range(20)]
    for atoms in near:
        atoms.positions += 0.03 * rng.standard_normal((3, 3))
    batch = pack_frames([from_atoms(atoms) for atoms in near])
    network = build_network("schnet", {"channels": 8}, 1, torch.float64)
    potential = LearnedPotential(network, {1: -13.0, 8: -2040.0})
    found = potential.predict(batch, descriptors=True)
    assert found.descriptors is not None
    scorer = fit_qresidual(batch, found.descriptors, batch, found.descriptors)
    threshold = float(scorer.score(batch, found).max())
    domain = Domain.of(batch)
    generation = Generation(potential, scorer, threshold, {}, domain)
    file = tmp_path_factory.mktemp("model") / "water.model"
    file.write_bytes(to_bytes(generation)[1])
    far = water.copy()
    far.positions[1] += 0.5 * (far.positions[1] - far.positions[0])
    return Model(generation, file, near[0], far)


def ipi_input(
    field: str, start: Path, beads: int, mode: str = "nve", thermostat: str = ""
) -> str:
    """i-PI's input of four steps with a force field of the name alloop."""
    return f"""
<simulation verbosity='quiet'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step, potential, conserved ]</properties>
  </output>
  <total_steps>4</total_steps>
  <prng><seed>3</seed></prng>
  {field}
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'>{start}</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='alloop'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='{mode}'>
        <timestep units='femtosecond'>0.25</timestep>
        {thermostat}
      </dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
  </system>
</simulation>
"""
