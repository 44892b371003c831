"""MD and training on a card, beside ASE and TorchSim on the same card.

    python -m benchmarks.speed.device [--quick] [--device cpu] [--json FILE]

Langevin dynamics of ethanol, PaiNN with 64 channels and 3 layers, untrained, guards as
they are by default: walker-steps a second of wall time by the number of walkers, with
their arrays on the card, plain and compiled, beside ASE, one walker at a time with the
same network as its calculator, and TorchSim with the same network, where it is
installed (`pip install torch-sim-atomistic==0.3.0`). Training: frames a second of
AdamW's and Muon's steps on 100 frames. All take turns; medians (low to high) of the
rounds. Without a card nothing is measured; `--device cpu` tries the same code.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch

from alloop.core.batch import pack_frames
from alloop.core.records import LabelSet, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import maxwell_boltzmann
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.placed import PlacedPotential, moving_potential
from alloop.training.fit import fit_network
from alloop.training.graph_pool import make_graph_pool
from alloop.training.stages import Schedule, Stage
from benchmarks.common import make_parser, make_table, median_range, show, write_json
from benchmarks.speed.other_codes import STEP, ase_md, torchsim_md
from benchmarks.speed.other_packages import SIZE, ethanol, make_potential

Work: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Amount:
    """Numbers of walkers, and the work of a turn."""

    walkers: tuple[int, ...]
    rounds: int
    steps: int
    training: int
    frames: int


FULL = Amount((64, 1024, 8192), rounds=5, steps=100, training=100, frames=100)
QUICK = Amount((8,), rounds=2, steps=5, training=5, frames=10)


def walker_md(model: LearnedPotential, count: int, steps: int, compile: bool) -> Work:
    """Return MD of walkers whose arrays are where the model is."""
    frames = ethanol(count).frames()
    rng = np.random.default_rng(2)
    walkers = [
        Walker(i, 0, frame, maxwell_boltzmann(frame, 300.0, rng))
        for i, frame in enumerate(frames)
    ]
    batch = pack_frames(frames)
    potential: Potential
    potential, why = moving_potential(model, batch, compile)
    if why is not None:
        show(why)
    if not isinstance(potential, PlacedPotential) and not compile:
        potential = PlacedPotential(model, batch)  # on a CPU: the same code
    rngs = [random_stream(0, str(i)) for i in range(count)]
    settings = DynamicsSettings(timestep=STEP)
    return lambda: run_dynamics(walkers, potential, settings, steps, rngs)


def training(device: str, amount: Amount, **how: Any) -> Work:
    """Return a stage of training on random labels."""
    batch, rng = ethanol(10 * amount.frames), np.random.default_rng(3)
    forces = 0.1 * rng.standard_normal(batch.positions.shape)
    labels = LabelSet(batch, np.zeros(len(batch)), forces)
    network = build_network("painn", SIZE).to(device)
    pool = make_graph_pool(labels, 1.0, network.cutoff, device=device)
    schedule = Schedule(lr=1e-4, batch=amount.frames, every=10**9, compile=False, **how)
    stage = Stage("speed", "expensive", amount.training, schedule=schedule)
    return lambda: fit_network(network, pool, stage, 0)


def wall_rate(work: Work, units: int) -> float:
    """Return the units of work a second of wall time, the device's own included."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return units / (time.perf_counter() - began)


def rate_rows(work: dict[str, tuple[Work, int]], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each: its rates, taken in turns after one that warms up."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, (call, units) in work.items():
            rate = wall_rate(call, units)
            if number:
                rates[name].append(rate)
    return [{"who": name, **median_range(numbers)} for name, numbers in rates.items()]


def moving(model: LearnedPotential, count: int, steps: int) -> dict[str, Any]:
    """Return MD by all, with the walker-steps of each."""
    units = count * steps
    work: dict[str, tuple[Work, int]] = {
        "alloop": (walker_md(model, count, steps, compile=False), units),
        "alloop, compiled": (walker_md(model, count, steps, compile=True), units),
        "ASE, one by one": (ase_md(model, ethanol(1).frame(0), steps), steps),
    }
    if find_spec("torch_sim"):
        work["TorchSim 0.3"] = (torchsim_md(model, ethanol(count), steps), units)
    return work


def main() -> None:
    """Measure in turns, show, keep."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        show("there is no card here that torch sees: nothing is measured")
        return
    card = options.device == "cuda"
    show(torch.cuda.get_device_name() if card else "on the CPU, not on a card")
    if not find_spec("torch_sim"):
        show("TorchSim is left out: torch-sim-atomistic is not installed")
    amount = QUICK if options.quick else FULL
    model = make_potential("painn").on(options.device)
    figures: dict[str, Any] = {}
    for count in amount.walkers:
        title = f"MD of {count} ethanols, PaiNN, walker-steps/s"
        work = moving(model, count, amount.steps)
        figures[title] = rate_rows(work, amount.rounds)
        show(make_table(title, figures[title]))
    title = "training, PaiNN, frames/s"
    units = amount.frames * amount.training
    steps = {
        name: (training(options.device, amount, optimiser=name), units)
        for name in ("adamw", "muon")
    }
    figures[title] = rate_rows(steps, amount.rounds)
    show(make_table(title, figures[title]))
    write_json(options.json, json.loads(json.dumps(figures)))


if __name__ == "__main__":
    main()
