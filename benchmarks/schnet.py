"""SchNetPack's PaiNN for `benchmarks.speed`: run by a Python that has schnetpack, with
the numbers of frames and repeats of a prediction, then of a training.

Says `ready`, then answers each line `predict` or `train` with frames a CPU second.
"""

import sys
import time
import typing
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.utils.data.dataloader as loader

ETHANOL = (6, 6, 8, 1, 1, 1, 1, 1, 1)


def painn() -> Any:
    """64 features, 3 layers, 8 radial functions, 5 Å: as in `benchmarks.speed`."""
    if not hasattr(loader, "T_co"):  # which schnetpack imports from older torch
        setattr(loader, "T_co", typing.TypeVar("T_co", covariant=True))  # noqa: B010
    atomistic, nn = (
        import_module("schnetpack.atomistic"),
        import_module("schnetpack.nn"),
    )
    representation = import_module("schnetpack.representation").PaiNN(
        n_atom_basis=64,
        n_interactions=3,
        radial_basis=nn.GaussianRBF(n_rbf=8, cutoff=5.0),
        cutoff_fn=nn.CosineCutoff(5.0),
    )
    return import_module("schnetpack.model").NeuralNetworkPotential(
        representation=representation,
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[
            atomistic.Atomwise(n_in=64, output_key="energy"),
            atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )


def batch(frames: int) -> dict[str, torch.Tensor]:
    """Frames of nine atoms as SchNetPack takes them, all pairs listed beforehand."""
    size = len(ETHANOL)
    i, j = np.nonzero(~np.eye(size, dtype=bool))
    first = size * np.arange(frames)[:, None]
    grid = 1.4 * np.array([[x, y, z] for x in range(3) for y in range(3) for z in (0,)])
    noise = 0.03 * np.random.default_rng(0).standard_normal((frames, size, 3))
    return {
        "_atomic_numbers": torch.tensor(ETHANOL * frames),
        "_positions": torch.tensor((grid + noise).reshape(-1, 3), dtype=torch.float32),
        "_idx_i": torch.tensor((i + first).ravel()),
        "_idx_j": torch.tensor((j + first).ravel()),
        "_idx_m": torch.arange(frames).repeat_interleave(size),
        "_n_atoms": torch.full((frames,), size),
        "_offsets": torch.zeros(frames * len(i), 3),
        "_cell": torch.zeros(frames, 3, 3),
        "_pbc": torch.zeros(3 * frames, dtype=torch.bool),
    }


def predict(model: Any, frames: int, repeats: int) -> float:
    """Energies and forces."""
    model.eval()
    given = batch(frames)
    began = time.process_time()
    for _ in range(repeats):
        model(dict(given))
    return frames * repeats / (time.process_time() - began)


def train(model: Any, frames: int, repeats: int) -> float:
    """Steps of Adam on random forces and energies of nothing."""
    model.train()
    given = batch(frames)
    energies = torch.zeros(frames)
    forces = 0.1 * torch.randn(frames * len(ETHANOL), 3)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    began = time.process_time()
    for _ in range(repeats):
        said = model(dict(given))
        loss = torch.nn.functional.mse_loss(said["forces"], forces)
        loss = loss + 0.05 * torch.nn.functional.mse_loss(said["energy"], energies)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return frames * repeats / (time.process_time() - began)


def main() -> None:
    """Answer until nobody asks."""
    torch.set_num_threads(1)
    walkers, repeats, frames, steps = map(int, sys.argv[1:])
    model = painn()
    answer("ready")
    for line in sys.stdin:
        if line.strip() == "predict":
            answer(str(predict(model, walkers, repeats)))
        else:
            answer(str(train(model, frames, steps)))


def answer(text: str) -> None:
    """A line to whoever started this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
