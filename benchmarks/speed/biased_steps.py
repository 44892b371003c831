"""What does a step of a biased walker cost, as a multiple of a plain one?

    python -m benchmarks.speed.biased_steps --store STORE [--quick]

Walkers of a finished campaign's first start move on its best model, compiled, on one
thread: plainly, with metadynamics of torsions, of hydrogens' transfers and of shapes,
and driven by surprise. They take turns; a figure is the CPU time of a step over that of
a plain step in the same round, median (low to high).
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from alloop import Campaign
from alloop.core.batch import pack_frames
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.generation import Generation
from alloop.md.biases import (
    Metadynamics,
    MetadynamicsSettings,
    ShapeMetadynamics,
    UncertaintySettings,
    chosen_variables,
)
from alloop.md.collective_variables import CollectiveVariable
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import maxwell_boltzmann
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from alloop.scores.qresidual import QResidual
from alloop.workers.surprise_bias import SurpriseBias
from benchmarks.common import Row, make_parser, make_table, median_range, show

_KELVIN = 500.0
Biases = Callable[[], list[Potential]]


def walkers_of(campaign: Campaign, count: int) -> list[Walker]:
    """Return walkers at the first start of a campaign."""
    frame = campaign.setup.start[0]
    rng = random_stream(0, "walkers")
    return [
        Walker(index, 0, frame, maxwell_boltzmann(frame, _KELVIN, rng))
        for index in range(count)
    ]


def ways(generation: Generation, walkers: Sequence[Walker]) -> Mapping[str, Biases]:
    """Return what makes the biases of each way, none of a plain step."""
    out: dict[str, Biases] = {"plain": list}
    frame = walkers[0].frame
    for name in ("torsions", "transfers"):
        settings = MetadynamicsSettings(variables=name)
        variables = {0: chosen_variables(frame, settings)}
        if variables[0]:
            out[name] = partial(_hills, walkers, variables, settings)
    shape = MetadynamicsSettings(variables="shape")
    out["shape"] = lambda: [ShapeMetadynamics.of(walkers, shape, temperature=_KELVIN)]
    potential, scorer = generation.potential, generation.scorer
    if isinstance(potential, LearnedPotential) and isinstance(scorer, QResidual):
        threshold = generation.threshold or 1.0
        out["surprise"] = lambda: [
            SurpriseBias(potential, scorer, threshold, UncertaintySettings())
        ]
    return out


def _hills(
    walkers: Sequence[Walker],
    variables: Mapping[int, tuple[CollectiveVariable, ...]],
    settings: MetadynamicsSettings,
) -> list[Potential]:
    return [Metadynamics.of(walkers, variables, settings, temperature=_KELVIN)]


def step_seconds(
    walkers: Sequence[Walker], potential: Potential, biases: Biases, steps: int
) -> float:
    """Return the CPU time of a step."""
    settings = DynamicsSettings(temperature=_KELVIN)
    rngs = [random_stream(0, f"step/{x.index}") for x in walkers]
    bias = biases()
    began = time.process_time()
    run_dynamics(walkers, potential, settings, steps, rngs, biases=bias)
    return (time.process_time() - began) / steps


def measure(options: Namespace) -> list[Row]:
    """Return a row for each way."""
    campaign = Campaign.from_store(options.store)
    generation = campaign.model()
    walkers = walkers_of(campaign, options.walkers)
    batch = pack_frames([walker.frame for walker in walkers])
    potential, why = compiled_for(generation.potential, batch)
    if why:
        show(why)
    makers = ways(generation, walkers)
    taken: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(options.turns + 1):
        for name, biases in makers.items():
            seconds = step_seconds(walkers, potential, biases, options.steps)
            if turn:
                taken[name].append(seconds)
    plain = np.array(taken["plain"])
    return [
        {
            "bias": name,
            "CPU ms a step": 1e3 * float(np.median(seconds)),
            **median_range((np.array(seconds) / plain).tolist()),
        }
        for name, seconds in taken.items()
    ]


def main() -> None:
    """Measure and show."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--store", type=Path, required=True, help="a campaign that has run")
    add("--walkers", type=int, default=32)
    add("--steps", type=int, default=200)
    add("--turns", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.steps, options.turns = 40, 2
    torch.set_num_threads(1)
    show(make_table(f"{options.walkers} walkers, one thread", measure(options)))


if __name__ == "__main__":
    main()
