"""CPU time of each network on ethanol: one thread, float32, milliseconds.

    python -m benchmarks.speed.networks [--quick] [--json FILE] [--only KIND ...]

    one, many   energies and forces of 1 and of 32 molecules
    step        a training step on 10 molecules: energies and forces, the loss of the
                forces, and its gradient with respect to every weight

The networks have their default settings. They take turns, so that a busy machine slows
all of them; a figure is the median over the turns.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.models.graph import Graph, to_graph
from alloop.models.network import Network, build_network, energy_and_forces
from alloop.models.settings import NETWORKS
from benchmarks.common import Row, arguments, say, spread, table, write_json

Task = Callable[[], object]


def graph(frames: int, cutoff: float) -> Graph:
    """Return ethanols, each atom moved by a normal number of 0.05 Å."""
    rng, made = np.random.default_rng(0), []
    for _ in range(frames):
        atoms = molecule("CH3CH2OH")
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        made.append(from_atoms(atoms))
    return to_graph(pack_frames(made), cutoff)


def forces(network: Network, frames: int) -> Task:
    """Return a task: energies and forces, as MD takes them."""
    still = network.requires_grad_(False)
    own = graph(frames, network.cutoff)
    return lambda: energy_and_forces(still, own)


def step(network: Network, frames: int) -> Task:
    """Return a task: the gradient of a force loss, as training takes it."""
    own = graph(frames, network.cutoff)

    def run() -> None:
        network.zero_grad()
        said = energy_and_forces(network, own, create_graph=True)
        loss = torch.linalg.vector_norm(said.forces, dim=1).mean()
        torch.autograd.backward(loss)

    return run


def tasks(kind: str) -> dict[str, Task]:
    """Return what is timed of a network."""
    return {
        "one": forces(build_network(kind), 1),
        "many": forces(build_network(kind), 32),
        "step": step(build_network(kind), 10),
    }


def milliseconds(task: Task, repeats: int) -> float:
    """Return the CPU time of one call, after one that does not count."""
    task()
    began = time.process_time()
    for _ in range(repeats):
        task()
    return 1e3 * (time.process_time() - began) / repeats


def measured(kinds: Sequence[str], turns: int, repeats: int) -> list[Row]:
    """Return a row for each kind of network."""
    all_tasks = {kind: tasks(kind) for kind in kinds}
    taken: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in own} for kind, own in all_tasks.items()
    }
    for _ in range(turns):
        for kind, own in all_tasks.items():
            for name, task in own.items():
                taken[kind][name].append(milliseconds(task, repeats))
    return [
        {"network": kind, "weights": weights(kind)}
        | {f"{name} ms": spread(times)["median"] for name, times in taken[kind].items()}
        for kind in kinds
    ]


def weights(kind: str) -> int:
    """Count the weights of a network."""
    return sum(weight.numel() for weight in build_network(kind).parameters())


def main() -> None:
    """Measure and show."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=NETWORKS, metavar="KIND", help="these networks"
    )
    chosen: Namespace = parser.parse_args()
    torch.set_num_threads(1)
    turns, repeats = (3, 3) if chosen.quick else (9, 10)
    rows = measured(chosen.only or list(NETWORKS), turns, repeats)
    say(table("one thread, float32, ethanol, CPU ms", rows))
    write_json(chosen.json, {"turns": turns, "repeats": repeats, "networks": rows})


if __name__ == "__main__":
    main()
