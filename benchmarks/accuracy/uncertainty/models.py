"""The pools and models of the benchmark of scorers.

Each model is trained once with a committee. One pool is made here in minutes: ethanol
at three temperatures, GFN1-xTB under GFN2-xTB.
"""

import time
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from alloop.config.build import make_trainer
from alloop.config.load import parse_level
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import TrainingData
from alloop.core.seeds import random_stream
from alloop.core.units import Integers
from alloop.evaluation import TrainingInputs, train_generation
from alloop.files.targets import replace_atomically
from alloop.generation import Generation, from_bytes, to_bytes
from alloop.labels.direct import DirectLabeller
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.scores.calibrate import ScorerSettings
from alloop.scores.committee import CommitteeScorer
from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool, LabelTable
from benchmarks.accuracy.selection.active import stage_steps
from benchmarks.accuracy.selection.table_campaign import pool_setup
from benchmarks.common import show

_LEVELS = {"cheap": "gfn1-xtb", "expensive": "gfn2-xtb"}
_KELVIN = (300, 600, 1000)
_FRAMES = 1000  # at each temperature
_SPACING = 20  # fs between frames
_SPLIT = 20_300  # the seed of the division into pool and test frames


def xtb_ethanol(folder: Path) -> LabelledPool:
    """Return ethanol: 3000 frames of MD at 300, 600 and 1000 K, on GFN2-xTB.

    They are made once and kept in the folder. Of 1500 test frames, drawn once, `all`
    are all; the others are named by their temperature.
    """
    file = folder / "xtb_ethanol.npz"
    if not file.exists():
        _make_frames(file)
    raw = np.load(file)
    numbers = raw["numbers"]
    frames = tuple(Frame(numbers, positions) for positions in raw["positions"])
    order = np.random.default_rng(_SPLIT).permutation(len(frames))
    test, chosen = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    warmth = {f"{k} K": test[test // _FRAMES == i] for i, k in enumerate(_KELVIN)}
    return LabelledPool(
        name="xtb-ethanol",
        start=frames[:1],
        frames=frames,
        molecules=np.zeros(len(frames), dtype=np.int64),
        tables={
            key: LabelTable(raw[f"{key}_energies"], tuple(raw[f"{key}_forces"]))
            for key in _LEVELS
        },
        levels=_LEVELS,
        chosen=chosen,
        tests={"all": test, **warmth},
        names=("CH3CH2OH",),
    )


def _make_frames(file: Path) -> None:
    oracles = {
        key: LabellerPotential(DirectLabeller(parse_level(level)))
        for key, level in _LEVELS.items()
    }
    frames = []
    for kelvin in _KELVIN:
        rng = np.random.default_rng(kelvin)
        atoms = molecule("CH3CH2OH")
        atoms.calc = PotentialCalculator(oracles["expensive"])
        MaxwellBoltzmannDistribution(atoms, temperature_K=2 * kelvin, rng=rng)
        moves = Langevin(
            atoms, units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng
        )
        moves.run(500)
        for _ in range(_FRAMES):
            moves.run(_SPACING)
            frames.append(from_atoms(atoms))
    batch = pack_frames(frames)
    atoms_each = len(frames[0])
    arrays: dict[str, Any] = {
        "numbers": frames[0].numbers,
        "positions": batch.positions.reshape(len(frames), atoms_each, 3),
    }
    for key, oracle in oracles.items():
        predictions = oracle.predict(batch)
        arrays[f"{key}_energies"] = predictions.energies
        arrays[f"{key}_forces"] = predictions.forces.reshape(len(frames), atoms_each, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(file) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


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
    indices = pool.chosen
    if draw == "low":
        energies = pool.tables["expensive"].energies[indices]
        indices = indices[energies < np.median(energies)]
    order = random_stream(seed, f"uncertainty/{draw}").permutation(indices)
    labelled, heldout = order[:cheap], order[cheap : cheap + _HELDOUT]
    return DrawnFrames(np.sort(labelled), np.sort(labelled[:expensive]), heldout)


def train_model(pool: LabelledPool, options: Namespace, draw: str, seed: int) -> bytes:
    """Return a generation with a committee of further models; its CPU seconds too."""
    drawn = draw_frames(pool, draw, seed, options.cheap, options.expensive)
    settings = {
        "seed": seed,
        "budget": {"cheap": options.cheap, "expensive": options.expensive},
        "training": {"every": options.expensive, **stage_steps(options.steps)},
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


def model_file(options: Namespace, pool: str, draw: str, seed: int) -> Path:
    """Return the file of a model; its name says all that it depends on."""
    amounts = (options.cheap, options.expensive, options.steps)
    name = "-".join(map(str, (pool, *amounts, draw, seed)))
    folder: Path = options.out / "uncertainty"
    return folder / f"{name}.model"


def model(options: Namespace, pool: LabelledPool, draw: str, seed: int) -> Generation:
    """Return the model of a row, trained now where it is missing."""
    file = model_file(options, pool.name, draw, seed)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        blob = train_model(pool, options, draw, seed)
        with replace_atomically(file) as partial:
            partial.write_bytes(blob)
        show(f"trained {file.name}")
    return from_bytes(file.read_bytes())


def open_pool(options: Namespace, name: str) -> LabelledPool:
    """Return a frozen pool; ethanol is made where it is missing."""
    if name == "xtb-ethanol":
        return xtb_ethanol(options.out / "uncertainty")
    return POOLS[name](options.data)
