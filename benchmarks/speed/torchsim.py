"""TorchSim's Langevin dynamics on one of alloop's networks."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from ase import units

from alloop.core.atoms import frame_masses
from alloop.core.batch import Batch
from alloop.models.graph import to_graph
from alloop.models.network import energy_and_forces
from alloop.potentials.learned import LearnedPotential


def torchsim(
    potential: LearnedPotential, batch: Batch, steps: int
) -> Callable[[], float]:
    """Return a turn of `steps` steps of all frames: walker-steps a CPU second.

    The model hands TorchSim's tensors to the network as they are: the graph is built
    once, and energies and forces stay tensors.
    """
    interface: Any = import_module("torch_sim.models.interface").ModelInterface
    graph = to_graph(batch, potential.cutoff, potential.dtype)
    network = potential.frozen_network

    class Model(interface):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), potential.dtype
            self._compute_stress, self._compute_forces = False, True

        def forward(self, state: Any) -> dict[str, torch.Tensor]:
            graph.pos = state.positions
            said = energy_and_forces(network, graph)
            return {
                "energy": potential.scale * said.energies,
                "forces": potential.scale * said.forces,
            }

    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=potential.dtype)

    state = import_module("torch_sim.state").SimState(
        positions=potential.tensor(batch.positions),
        masses=potential.tensor(frame_masses(batch.numbers)),
        cell=50.0 * torch.eye(3, dtype=potential.dtype).repeat(len(batch), 1, 1),
        pbc=False,
        atomic_numbers=torch.as_tensor(batch.numbers.copy()),
        system_idx=graph.batch,
    )
    integrators = import_module("torch_sim.integrators")
    begin, step = integrators.nvt_langevin(
        Model(),
        dt=number(0.5 * units.fs),
        kT=number(300.0 * units.kB),
        gamma=number(0.01 / units.fs),
    )
    now = begin(state, seed=0)

    def turn() -> float:
        nonlocal now
        began = time.process_time()
        for _ in range(steps):
            now = step(now)
        return len(batch) * steps / (time.process_time() - began)

    return turn
