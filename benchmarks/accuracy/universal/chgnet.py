"""A universal potential, fine-tuned, against a network trained from scratch.

    python -m benchmarks.accuracy.universal.chgnet [--quick] [--json FILE]

needs `pip install 'alloop[chgnet,xtb]'`. Errors: CHGNet as it comes (references fitted,
0 steps), fine-tuned, and PaiNN trained from scratch, on methanol rattled by 0.06 Å at
GFN2-xTB, tested on 50 frames that neither saw. Speed: CPU time of a force call and of a
training step for ten ethanols, ours and the package's own, in alternating rounds; the
package's graphs are made before the clock starts, ours within.
"""

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet, TrainingData
from alloop.core.roles import Potential, Trainer
from alloop.core.seeds import random_stream
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential
from benchmarks.accuracy.asteroid.data import label_at_level
from benchmarks.common import (
    Row,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)

_NOTHING = LabelSet(pack_frames(()), np.zeros(0), np.zeros((0, 3)))
_FRAMES = 10  # in a training step, and of the timings


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of labels, steps of the two trainings, rounds of timing."""

    labels: tuple[int, ...]
    tuning: int
    scratch: int
    rounds: int


FULL, QUICK = Size((10, 20, 50), 300, 4000, 7), Size((10,), 60, 800, 3)


def main() -> None:
    """Train, time, show."""
    options = make_parser(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    learned = [row for count in size.labels for row in compare_errors(count, size)]
    show(make_table("methanol at GFN2-xTB, test errors in meV/Å and meV", learned), "")
    speeds = compare_times(size.rounds)
    show(make_table(f"{_FRAMES} ethanols, CPU ms and ratio to the package", speeds))
    write_json(options.json, {"learning": learned, "speed": speeds})


def compare_errors(count: int, size: Size) -> list[Row]:
    """Return the errors of three potentials of the same labels."""
    training, test = rattled_methanol(count, "taught"), rattled_methanol(50, "test")
    schedule = Schedule(3e-3, warmup=20, ema=0.95, optimiser="adamw")
    (gentle,) = standard_stages(size.tuning, schedule)
    (stage,) = standard_stages(size.scratch)
    tuner = UniversalTrainer(StagedTrainer("chgnet", {}, (gentle,)))
    scratch = StagedTrainer("painn", {"channels": 32}, (stage,))
    return [
        _row(
            "chgnet as it comes",
            count,
            untrained_potential("chgnet", {}, training),
            test,
            0.0,
        ),
        _trained("chgnet fine-tuned", tuner, training, test),
        _trained("painn from nothing", scratch, training, test),
    ]


def rattled_methanol(count: int, name: str) -> LabelSet:
    """Return rattled methanols with labels."""
    atoms = molecule("CH3OH")
    shifts = random_stream(0, name).normal(0.0, 0.06, (count, len(atoms), 3))
    frames = []
    for shift in shifts:
        moved = atoms.copy()
        moved.positions += shift
        frames.append(from_atoms(moved))
    return label_at_level(frames, "gfn2-xtb")


def _trained(name: str, trainer: Trainer, training: LabelSet, test: LabelSet) -> Row:
    began = time.process_time()
    potential, _ = trainer.train(TrainingData(_NOTHING, training), None, 0)
    return _row(name, len(training), potential, test, time.process_time() - began)


def _row(
    name: str, count: int, potential: Potential, test: LabelSet, seconds: float
) -> Row:
    errors = prediction_errors(potential.predict(test.batch), test)
    return {
        "potential": name,
        "labels": count,
        "forces": 1e3 * errors.force_mae,
        "RMSE": 1e3 * errors.force_rmse,
        "energy": 1e3 * errors.energy_mae,
        "CPU s": seconds,
    }


def compare_times(rounds: int) -> list[Row]:
    """Time force calls and training steps, ours and the package's in turn."""
    atoms = molecule("CH3CH2OH")
    ours, theirs = _ours(atoms), _theirs(atoms)
    rows = []
    for what in ("force call", "training step"):
        pairs = [
            (_cpu_milliseconds(ours[what]), _cpu_milliseconds(theirs[what]))
            for _ in range(rounds + 1)
        ]
        mine, package = zip(*pairs[1:], strict=True)  # the first one warms up
        ratio = median_range(b / a for a, b in pairs[1:])
        row = {"what": what, "ours": median(mine), "package": median(package)}
        rows.append({**row, **{f"times {key}": x for key, x in ratio.items()}})
    return rows


def _cpu_milliseconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return 1e3 * (time.process_time() - began)


def _ours(atoms: Any) -> dict[str, Callable[[], Any]]:
    network, still = (
        build_network("chgnet"),
        build_network("chgnet").requires_grad_(False),
    )
    batch = pack_frames([from_atoms(atoms)] * _FRAMES)

    def step() -> None:
        said = energy_and_forces(network, to_graph(batch, 6.0), create_graph=True)
        said.forces.square().sum().backward()  # type: ignore[no-untyped-call]

    return {
        "force call": lambda: energy_and_forces(still, to_graph(batch, 6.0)),
        "training step": step,
    }


def _theirs(atoms: Any) -> dict[str, Callable[[], Any]]:
    from chgnet.model import CHGNet
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.structure import Structure

    with contextlib.redirect_stdout(io.StringIO()):
        network = CHGNet.load(use_device="cpu", verbose=False)
    places = atoms.positions - atoms.positions.mean(axis=0)
    symbols = atoms.get_chemical_symbols()
    cell = Lattice.cubic(30.0)
    structure = Structure(cell, symbols, places, coords_are_cartesian=True)
    graphs: Sequence[Any] = [network.graph_converter(structure) for _ in range(_FRAMES)]

    def call() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about the volume of the cell
            return network(graphs, task="ef")

    def step() -> None:
        torch.cat(call()["f"]).square().sum().backward()  # type: ignore[no-untyped-call]

    return {"force call": call, "training step": step}


if __name__ == "__main__":
    main()
