"""Small trainings on springs, and a process that runs one until somebody kills it."""

import sys
from pathlib import Path

import torch

from alloop.models.network import Network, build_network
from alloop.training.fit import fit_stage
from alloop.training.graph_pool import GraphPool, force_scale, make_graph_pool
from alloop.training.stage_state import StageTask
from alloop.training.stages import Compile, Schedule, Stage
from alloop.training.state_folder import StateFolder
from tests.training.conftest import spring_labels

SETTINGS = {"channels": 16, "layers": 1, "radial": 6, "cutoff": 4.0}


def network(seed: int = 0) -> Network:
    return build_network("painn", SETTINGS, seed=seed)


def pool(count: int = 12, name: str = "train") -> GraphPool:
    labels = spring_labels(count, 4.0, 0.8, 0.0, name)
    return make_graph_pool(labels, force_scale(labels), cutoff=4.0)


def stage(steps: int = 60, compile: Compile = False, **settings: object) -> Stage:
    schedule = Schedule(
        **{"batch": 4, "every": 5, "patience": 1000, "compile": compile, **settings}
    )
    return Stage("spring", "expensive", steps, schedule=schedule)


def bits(network: Network) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in network.parameters())


def main(folder: str, steps: str, compile: str) -> None:
    """Train, keep each step's state, say each step that is done."""
    torch.set_num_threads(1)
    task = StageTask(
        network(),
        pool(),
        stage(int(steps), bool(compile), every=1),
        5,
        validation=pool(4, "test"),
    )
    fit_stage(
        task,
        StateFolder(Path(folder), every=0.0),
        lambda _, step, *__: print(step, flush=True),  # noqa: T201
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
