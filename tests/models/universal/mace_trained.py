"""A small MACE model that knows molecules, for tests that must measure something real.

`PYTHONPATH=. python tests/models/universal/mace_trained.py`, where `alloop[mace]` is
installed, makes `mace_trained.alloop` beside this file again, in some three CPU
minutes: 14,000 weights of mace-torch, converted and then trained by alloop on 1000
GFN2-xTB labels of the small molecules of `benchmarks/data/molecules.npz`.
"""

import tempfile
from pathlib import Path

import numpy as np

from alloop.core.records import LabelSet, TrainingData
from alloop.core.seeds import random_stream
from benchmarks.accuracy.labelled_pool import DATA, LabelledPool, read_pool

FILE = Path(__file__).with_name("mace_trained.alloop")
FRAMES = 1000  # that it has learned from
_STEPS = 8000


def labels(pool: LabelledPool, known: bool) -> LabelSet:
    """GFN2-xTB labels of the frames that it has learned from, or of the others."""
    order = random_stream(0, "mace").permutation(len(pool.frames))
    return pool.label_set("cheap", order[:FRAMES] if known else order[FRAMES:])


def molecules() -> LabelledPool:
    """The small molecules."""
    return read_pool(DATA / "molecules.npz")


def random_model(file: Path) -> None:
    """Write a converted model of H, C, N, O and F with random weights."""
    import mace  # noqa: F401 - before e3nn, which it prepares
    import torch
    from e3nn import o3
    from mace_reference import small_mace  # type: ignore[import-not-found]

    from alloop.jobs.convert_job import convert_model

    model = small_mace(
        num_elements=5,
        atomic_numbers=[1, 6, 7, 8, 9],
        atomic_energies=np.zeros(5),
        hidden_irreps=o3.Irreps("16x0e + 16x1o"),
        MLP_irreps=o3.Irreps("8x0e"),
        radial_MLP=[16, 16],
        num_bessel=8,
        avg_num_neighbors=5.0,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        interaction_cls_first="RealAgnosticDensityInteractionBlock",
        interaction_cls="RealAgnosticDensityResidualInteractionBlock",
        distance_transform="Agnesi",
        pair_repulsion=True,
    )
    pickle = file.with_suffix(".model")
    torch.save(model, pickle)
    convert_model(pickle, file, "MIT", force=True)


def train(file: Path) -> None:
    """Train the model of a converted file, and write it as one."""
    from alloop.models.checkpoint import (
        Checkpoint,
        checkpoint_from_bytes,
        checkpoint_to_bytes,
    )
    from alloop.training.stages import Schedule, standard_stages
    from alloop.training.trainers.staged_trainer import StagedTrainer
    from alloop.training.trainers.universal import UniversalTrainer

    schedule = Schedule(1e-2, 10, compile=True)
    staged = StagedTrainer(
        "mace", {"path": str(file)}, standard_stages(_STEPS, schedule)
    )
    data = TrainingData(LabelSet.of([], [], []), labels(molecules(), known=True))
    tuned, _ = UniversalTrainer(staged).train(data, None, 0)
    before = checkpoint_from_bytes(file.read_bytes())
    state = tuned.network.state_dict()
    tensors = {
        name: state[name].double().numpy().reshape(x.shape).astype(x.dtype)
        for name, x in before.tensors.items()
    }
    potential = before.settings["potential"]
    model = potential["network"]["model"]
    (head,) = model["heads"]
    energies = {z: tuned.references[z] for z in model["elements"]}
    model["references"][head] = list(energies.values())
    potential["references"] = {str(z): energy for z, energy in energies.items()}
    written = Checkpoint(before.kind, before.settings, tensors)
    FILE.write_bytes(checkpoint_to_bytes(written))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder, "random.alloop")
        random_model(start)
        train(start)
