"""MD, inference and training of the same networks by alloop and by other packages.

    python -m benchmarks.speed.other_packages [--quick] [--other-python PATH]
        [--json FILE]

All take turns in one run on one core, and are timed by the CPU seconds of their own
processes: rates are medians (low to high) over the rounds, ratios are taken round by
round.

MD: 32 walkers of ethanol in Langevin dynamics, walker-steps a second, beside ASE, one
walker at a time with the same network as its calculator, and TorchSim with the same
network, where it is installed (`pip install torch-sim-atomistic==0.3.0`). "Products
alone" are the matrix products of a step's force call, or of a training step's gradient,
and nothing else, each by MKL or oneDNN, whichever is faster: no code that makes them
by these can be faster.
Inference: energies and forces of 32 frames of ethanol, frames a second. Training: steps
on 10 frames with energies and forces, frames a second, by AdamW as the others do, and
by Muon, alloop's default. The others are networks of the same size: SchNetPack's PaiNN
and the E(n)-GNN of egnn-pytorch, run by the Python of --other-python, which must have
both (`pip install schnetpack==2.1.1 egnn-pytorch==0.2.8`); SchNetPack and graph-pes
have no E(n)-GNN.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one core for everybody

import json
import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from torch.utils._python_dispatch import TorchDispatchMode

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.records import LabelSet, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.guards import Guards
from alloop.md.integrate import maxwell_boltzmann
from alloop.models.compilation import onednn_product
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from alloop.training.fit import fit_network
from alloop.training.graph_pool import GraphPool, make_graph_pool
from alloop.training.losses import LabelLoss, eager_gradients
from alloop.training.stages import Schedule, Stage
from benchmarks.common import make_parser, make_table, median_range, show, write_json
from benchmarks.speed.other_codes import STEP, OtherNetwork, Turn, ase_md, torchsim_md

WALKERS = 32
FRAMES = 10  # of a training step
SIZE = {"channels": 64, "layers": 3}
NETWORKS = {"painn": "SchNetPack", "egnn": "egnn-pytorch"}
_PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}


@dataclass(frozen=True)
class Amount:
    """Work in a turn, and the number of rounds.

    A turn is as long as a piece of MD in a campaign, and long enough for a training
    that its beginning, some 0.2 s, counts as little as there.
    """

    rounds: int
    steps: int
    repeats: int
    training: int


FULL = Amount(rounds=5, steps=200, repeats=20, training=300)
QUICK = Amount(rounds=3, steps=20, repeats=5, training=15)


# --- what is timed -------------------------------------------------------------------


def ethanol(count: int) -> Batch:
    """Return frames of ethanol, each a little displaced."""
    rest = from_atoms(molecule("CH3CH2OH"))
    rng = np.random.default_rng(1)
    moves = 0.03 * rng.standard_normal((count, len(rest), 3))
    return pack_frames(
        [replace(rest, positions=rest.positions + move) for move in moves]
    )


def make_potential(kind: str) -> LearnedPotential:
    """Return an untrained network of the common size: its forces are small."""
    network = build_network(kind, SIZE, seed=1)
    return LearnedPotential(network, {1: 0.0, 6: 0.0, 8: 0.0}, scale=0.1)


def batched_md(model: Potential, amount: Amount) -> Turn:
    """Return a turn of MD of all walkers side by side."""
    frames = ethanol(WALKERS).frames()
    rng = np.random.default_rng(2)
    walkers = [
        Walker(i, 0, frame, maxwell_boltzmann(frame, 300.0, rng))
        for i, frame in enumerate(frames)
    ]
    plain = DynamicsSettings(timestep=STEP, guards=Guards(bond=None, contact=None))
    rngs = [random_stream(0, str(i)) for i in range(WALKERS)]

    def turn() -> float:
        began = time.process_time()
        run_dynamics(walkers, model, plain, amount.steps, rngs)
        return WALKERS * amount.steps / (time.process_time() - began)

    return turn


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records matrix products, to make them again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in _PRODUCTS:
            self._calls.append((func, args))
        return func(*args, **(kwargs or {}))

    @torch.no_grad()
    def fastest(self) -> list[Callable[[], Any]]:
        """Return each product as a call of MKL or oneDNN, whichever takes less time."""
        return [
            min(_ways_to_call(func, args), key=_shortest_time)
            for func, args in self._calls
        ]


def _ways_to_call(func: Any, args: tuple[Any, ...]) -> list[Callable[[], Any]]:
    ways: list[Callable[[], Any]] = [partial(func, *args)]
    a, b = args[-2:]
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if onednn and a.dim() == 2:
        ways.append(partial(onednn_product, a, b))
    return ways


def _shortest_time(call: Callable[[], Any]) -> float:
    return min(timeit.repeat(call, number=20, repeat=5))


def products_alone(model: LearnedPotential, amount: Amount) -> Turn:
    """Return a turn of the matrix products of MD's force calls, in parts as there."""
    parts = 2
    graph = to_graph(ethanol(WALKERS // parts), model.cutoff, model.dtype)
    with _Products() as products:
        energy_and_forces(model.frozen_network, graph)
    return _products_turn(products, parts * amount.steps, WALKERS * amount.steps)


def training_products(kind: str, amount: Amount) -> Turn:
    """Return a turn of the matrix products of a training step's gradient."""
    network, pool = build_network(kind, SIZE), random_labels(kind)
    gradients = eager_gradients(network, LabelLoss(Schedule().energy))
    with _Products() as products:
        gradients(*pool.select(np.arange(FRAMES)), ())
    return _products_turn(products, amount.training, FRAMES * amount.training)


def _products_turn(products: _Products, repeats: int, frames: int) -> Turn:
    calls = products.fastest()

    @torch.no_grad()
    def turn() -> float:
        began = time.process_time()
        for _ in range(repeats):
            for call in calls:
                call()
        return frames / (time.process_time() - began)

    return turn


def inference(model: Potential, amount: Amount) -> Turn:
    """Return a turn of energies and forces of all frames at once."""
    batch = ethanol(WALKERS)

    def turn() -> float:
        began = time.process_time()
        for _ in range(amount.repeats):
            model.predict(batch)
        return WALKERS * amount.repeats / (time.process_time() - began)

    return turn


def random_labels(kind: str) -> GraphPool:
    """Return frames of ethanol with random forces as labels."""
    batch, rng = ethanol(20 * FRAMES), np.random.default_rng(3)
    forces = 0.1 * rng.standard_normal(batch.positions.shape)
    labels = LabelSet(batch, np.zeros(len(batch)), forces)
    return make_graph_pool(labels, 1.0, build_network(kind, SIZE).cutoff)


def training(kind: str, amount: Amount, **how: Any) -> Turn:
    """Return a turn of alloop's optimisation loop on random labels."""
    network, pool = build_network(kind, SIZE), random_labels(kind)
    schedule = Schedule(lr=1e-4, batch=FRAMES, every=10**9, **how)
    stage = Stage("speed", "expensive", amount.training, schedule=schedule)
    fit_network(
        network, pool, replace(stage, steps=2), 0
    )  # code is made before the first turn

    def turn() -> float:
        began = time.process_time()
        fit_network(network, pool, stage, 0)
        return FRAMES * amount.training / (time.process_time() - began)

    return turn


# --- rounds --------------------------------------------------------------------------


def comparisons(
    amount: Amount, others: Mapping[str, OtherNetwork]
) -> Iterator[tuple[str, dict[str, Turn]]]:
    """Yield each comparison with its turns; alloop's own come first."""
    for kind, theirs in NETWORKS.items():
        eager = make_potential(kind)
        fast, why = compiled_for(eager, ethanol(WALKERS))
        ours: dict[str, Potential] = {"alloop": eager}
        if why is None:
            ours = {"alloop, compiled": fast, **ours}
        else:
            show(why)
        moving = {name: batched_md(model, amount) for name, model in ours.items()}
        moving["ASE, one by one"] = ase_md(eager, ethanol(1).frame(0), amount.steps)
        if find_spec("torch_sim"):
            moving["TorchSim 0.3"] = torchsim_md(eager, ethanol(WALKERS), amount.steps)
        moving["products alone"] = products_alone(eager, amount)
        yield f"MD, {kind}, walker-steps/s", moving
        inferring = {name: inference(model, amount) for name, model in ours.items()}
        if kind in others:
            inferring[theirs] = others[kind].turn("predict")
        yield f"inference, {kind}, frames/s", inferring
        learning = {
            "alloop, AdamW, compiled": training(
                kind, amount, optimiser="adamw", compile=True
            ),
            "alloop, AdamW": training(kind, amount, optimiser="adamw", compile=False),
            "alloop, Muon, compiled": training(kind, amount, compile=True),
        }
        if kind in others:
            learning[theirs] = others[kind].turn("train")
        learning["products alone"] = training_products(kind, amount)
        yield f"training, {kind}, frames/s", learning


def start_others(
    python: Path | None, amount: Amount, stack: ExitStack
) -> dict[str, OtherNetwork]:
    """Start the networks that this Python has; print which are left out."""
    if python is None:
        show("published networks are left out: no --other-python")
        return {}
    rates = {}
    counts = (WALKERS, amount.repeats, FRAMES, amount.training)
    for kind, name in NETWORKS.items():
        other = stack.enter_context(OtherNetwork(python, kind, counts))
        if other.installed:
            rates[kind] = other
        else:
            show(f"{name} is left out: {python} lacks it")
    return rates


def run_rounds(turns: Mapping[str, Turn], count: int) -> dict[str, list[float]]:
    """Return the rates of all, in turns; the first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(count + 1):
        for name, turn in turns.items():
            rate = turn()
            if number:
                rates[name].append(rate)
    return rates


def rate_rows(rates: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each: its rates, and how many times as fast the first one is."""
    first = next(iter(rates.values()))
    rows = []
    for name, rate in rates.items():
        ratio = median_range(a / b for a, b in zip(first, rate, strict=True))
        times = {f"times, {key}": value for key, value in ratio.items()}
        rows.append({"who": name, **median_range(rate), **times})
    return rows


def main() -> None:
    """Measure in turns, show, keep."""
    parser = make_parser(__doc__)
    parser.add_argument("--other-python", type=Path, help="a Python with those")
    options = parser.parse_args()
    torch.set_num_threads(1)
    amount = QUICK if options.quick else FULL
    if not find_spec("torch_sim"):
        show("TorchSim is left out: torch-sim-atomistic is not installed")
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        others = start_others(options.other_python, amount, stack)
        for title, turns in comparisons(amount, others):
            figures[title] = rate_rows(run_rounds(turns, amount.rounds))
            show(make_table(title, figures[title]))
    write_json(options.json, json.loads(json.dumps(figures)))


if __name__ == "__main__":
    main()
