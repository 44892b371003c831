"""CPU time of each network on one molecule: one thread, float32, milliseconds.

    python -m benchmarks.speed.networks [--quick] [--json FILE] [--only KIND ...]
        [--molecule NAME]

    one, many   energies and forces of 1 and of 32 molecules
    step        a training step on 10 molecules: energies and forces, the loss of the
                forces, and its gradient with respect to every weight
    recorded    the same from a recording, as trainings that are not worth compiling
                take it; NaN for networks that cannot be recorded

The networks have their default settings. They take turns, so that a busy machine slows
all of them; a figure is the median over the turns.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from math import nan

import numpy as np
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.models.compilation import NotCompiled
from alloop.models.graph import Graph, to_graph
from alloop.models.network import Network, build_network, energy_and_forces
from alloop.models.settings import NETWORKS
from alloop.training.compiled_gradients import record_gradients
from alloop.training.losses import LabelLoss, Targets, eager_gradients
from benchmarks.common import (
    Row,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)

Task = Callable[[], object]
TASKS = ("one", "many", "step", "recorded")


def graph(name: str, frames: int, cutoff: float) -> Graph:
    """Return molecules, each atom moved by a normal number of 0.05 Å."""
    rng, made = np.random.default_rng(0), []
    for _ in range(frames):
        atoms = molecule(name)
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        made.append(from_atoms(atoms))
    return to_graph(pack_frames(made), cutoff)


def force_task(name: str, network: Network, frames: int) -> Task:
    """Return a task: energies and forces, as MD takes them."""
    frozen = network.requires_grad_(False)
    batch = graph(name, frames, network.cutoff)
    return lambda: energy_and_forces(frozen, batch)


def training_task(
    name: str, network: Network, frames: int, recorded: bool = False
) -> Task | None:
    """Return a task: the gradient of a force loss, as training takes it.

    None where that cannot be recorded.
    """
    inputs, loss = graph(name, frames, network.cutoff), LabelLoss(0.0)
    forces = torch.zeros_like(inputs.pos)
    zero, ones = torch.zeros(frames), torch.ones(frames)
    batch = (inputs, Targets(zero, forces, ones, inputs.batch), ())
    if not recorded:
        return partial(eager_gradients(network, loss), *batch)
    try:
        return partial(record_gradients(network, loss, batch), *batch)
    except NotCompiled:
        return None


def timed_tasks(name: str, kind: str) -> dict[str, Task]:
    """Return what is timed of a network."""
    tasks = {
        "one": force_task(name, build_network(kind), 1),
        "many": force_task(name, build_network(kind), 32),
        "step": training_task(name, build_network(kind), 10),
        "recorded": training_task(name, build_network(kind), 10, recorded=True),
    }
    return {name: task for name, task in tasks.items() if task is not None}


def milliseconds(task: Task, repeats: int) -> float:
    """Return the CPU time of one call, after one that does not count."""
    task()
    began = time.process_time()
    for _ in range(repeats):
        task()
    return 1e3 * (time.process_time() - began) / repeats


def measure(name: str, kinds: Sequence[str], turns: int, repeats: int) -> list[Row]:
    """Return a row for each kind of network."""
    by_kind = {kind: timed_tasks(name, kind) for kind in kinds}
    taken: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in tasks} for kind, tasks in by_kind.items()
    }
    for _ in range(turns):
        for kind, tasks in by_kind.items():
            for name, task in tasks.items():
                taken[kind][name].append(milliseconds(task, repeats))
    return [
        {"network": kind, "weights": weights(kind)}
        | {
            f"{task} ms": median_range(taken[kind].get(task, [nan]))["median"]
            for task in TASKS
        }
        for kind in kinds
    ]


def weights(kind: str) -> int:
    """Count the weights of a network."""
    return sum(weight.numel() for weight in build_network(kind).parameters())


def main() -> None:
    """Measure and show."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=NETWORKS, metavar="KIND", help="these networks"
    )
    parser.add_argument("--molecule", default="CH3CH2OH", help="of ASE's database")
    options: Namespace = parser.parse_args()
    torch.set_num_threads(1)
    turns, repeats = (3, 3) if options.quick else (9, 10)
    name = options.molecule
    rows = measure(name, options.only or list(NETWORKS), turns, repeats)
    show(make_table(f"one thread, float32, {name}, CPU ms", rows))
    write_json(options.json, {"turns": turns, "repeats": repeats, "networks": rows})


if __name__ == "__main__":
    main()
