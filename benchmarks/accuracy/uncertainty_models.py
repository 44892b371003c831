"""The models of the benchmark of scorers, each trained once with a committee."""

import time
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alloop.config.build import make_trainer
from alloop.core.batch import pack_frames
from alloop.core.records import TrainingData
from alloop.core.seeds import random_stream
from alloop.core.units import Integers
from alloop.evaluation import TrainingInputs, train_generation
from alloop.files.targets import replace_atomically
from alloop.generation import Generation, from_bytes, to_bytes
from alloop.scores.calibrate import ScorerSettings
from alloop.scores.committee import CommitteeScorer
from benchmarks.accuracy.active import stage_steps
from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool
from benchmarks.accuracy.table_campaign import pool_setup
from benchmarks.accuracy.xtb_ethanol import xtb_ethanol
from benchmarks.common import show

DRAWS = ("random", "low")
MEMBERS = 4
_HELDOUT = 100  # frames for the scale of surprise


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFrames:
    """Indices of frames with cheap labels, those with both, and held-out ones."""

    cheap: Integers
    expensive: Integers
    heldout: Integers


def draw_frames(
    pool: LabelledPool, draw: str, seed: int, cheap: int, expensive: int
) -> DrawnFrames:
    """Draw from the pool, or from the half of its frames with the lowest energy."""
    own = pool.chosen
    if draw == "low":
        energies = pool.tables["expensive"].energies[own]
        own = own[energies < np.median(energies)]
    order = random_stream(seed, f"uncertainty/{draw}").permutation(own)
    labelled, heldout = order[:cheap], order[cheap : cheap + _HELDOUT]
    return DrawnFrames(np.sort(labelled), np.sort(labelled[:expensive]), heldout)


def train_model(pool: LabelledPool, given: Namespace, draw: str, seed: int) -> bytes:
    """Return a generation with a committee of further models; its CPU seconds too."""
    drawn = draw_frames(pool, draw, seed, given.cheap, given.expensive)
    settings = {
        "seed": seed,
        "budget": {"cheap": given.cheap, "expensive": given.expensive},
        "training": {"every": given.expensive, **stage_steps(given.steps)},
    }
    setup = pool_setup(pool, settings, {})
    inputs = TrainingInputs(
        data=TrainingData(
            pool.label_set("cheap", drawn.cheap),
            pool.label_set("expensive", drawn.expensive),
        ),
        heldout=pack_frames([pool.frames[i] for i in drawn.heldout]),
        scoring=ScorerSettings(CommitteeScorer(MEMBERS)),
        seed=seed,
        name="uncertainty",
    )
    started = time.process_time()
    trained = train_generation(make_trainer(setup.plan), inputs)
    seconds = time.process_time() - started
    return to_bytes(replace(trained.generation, facts={"cpu_seconds": seconds}))[1]


def model_file(given: Namespace, pool: str, draw: str, seed: int) -> Path:
    """Return the file of a model; its name says all that it depends on."""
    amounts = (given.cheap, given.expensive, given.steps)
    name = "-".join(map(str, (pool, *amounts, draw, seed)))
    folder: Path = given.out / "uncertainty"
    return folder / f"{name}.model"


def model(given: Namespace, pool: LabelledPool, draw: str, seed: int) -> Generation:
    """Return the model of a row, trained now where it is missing."""
    file = model_file(given, pool.name, draw, seed)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        blob = train_model(pool, given, draw, seed)
        with replace_atomically(file) as partial:
            partial.write_bytes(blob)
        show(f"trained {file.name}")
    return from_bytes(file.read_bytes())


def open_pool(given: Namespace, name: str) -> LabelledPool:
    """Return a frozen pool; ethanol is made where it is missing."""
    if name == "xtb-ethanol":
        return xtb_ethanol(given.out / "uncertainty")
    return POOLS[name](given.data)
