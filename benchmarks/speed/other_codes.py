"""MD of ASE and TorchSim, and published networks, for `other_packages`."""

import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from ase import units
from ase.md.langevin import Langevin

from alloop.core.atoms import frame_masses, to_atoms
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.models.graph import to_graph
from alloop.models.network import energy_and_forces
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.learned import LearnedPotential

STEP = 0.5  # fs
Turn: TypeAlias = Callable[[], float]  # does some work: units of it a CPU second


def ase_md(model: LearnedPotential, frame: Frame, steps: int) -> Turn:
    """Return a turn of ASE's MD, which moves one walker at a time."""
    atoms = to_atoms(frame)
    atoms.calc = PotentialCalculator(model)
    bath = {"temperature_K": 300.0, "friction": 0.01 / units.fs}
    md = Langevin(
        atoms, STEP * units.fs, **bath, rng=np.random.RandomState(0), fixcm=False
    )

    def turn() -> float:
        began = time.process_time()
        md.run(steps)
        return steps / (time.process_time() - began)

    return turn


def torchsim_md(potential: LearnedPotential, batch: Batch, steps: int) -> Turn:
    """Return a turn of `steps` steps of all frames: walker-steps a CPU second.

    The model hands TorchSim's tensors to the network as they are: the graph is built
    once, and energies and forces stay tensors.
    """
    interface: Any = import_module("torch_sim.models.interface").ModelInterface
    graph = to_graph(batch, potential.cutoff, potential.dtype, potential.device)
    network = potential.frozen_network

    class Model(interface):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._device = torch.device(potential.device)
            self._dtype = potential.dtype
            self._compute_stress, self._compute_forces = False, True

        def forward(self, state: Any) -> dict[str, torch.Tensor]:
            graph.pos = state.positions
            output = energy_and_forces(network, graph)
            return {
                "energy": potential.scale * output.energies,
                "forces": potential.scale * output.forces,
            }

    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=potential.dtype, device=potential.device)

    state = import_module("torch_sim.state").SimState(
        positions=potential.tensor(batch.positions),
        masses=potential.tensor(frame_masses(batch.numbers)),
        cell=potential.tensor(50.0 * np.eye(3)).repeat(len(batch), 1, 1),
        pbc=False,
        atomic_numbers=graph.z,
        system_idx=graph.batch,
    )
    integrators = import_module("torch_sim.integrators")
    begin, step = integrators.nvt_langevin(
        Model(),
        dt=number(STEP * units.fs),
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


class OtherNetwork:
    """A published network in another process that reports its own rates.

    counts: frames and repeats of a prediction, then of a training. It is a context
    manager.
    """

    def __init__(self, python: Path, kind: str, counts: tuple[int, ...]) -> None:
        script = Path(__file__).with_name("published_networks.py")
        command = [str(python), str(script), kind, *map(str, counts)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(
            command, text=True, stderr=subprocess.DEVNULL, **pipes
        )
        self.installed = self._read_line() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def turn(self, task: str) -> Turn:
        """Return a turn of `predict` or `train`."""

        def turn() -> float:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{task}\n")
            self._process.stdin.flush()
            return float(self._read_line())

        return turn

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        return line.strip()
