"""Published PaiNN and E(n)-GNN, run by a Python that has them.

`benchmarks.speed.other_packages` starts this file. PaiNN is SchNetPack's, E(n)-GNN that
of egnn-pytorch: layers for dense batches, with coordinates left alone and the hidden
layers as wide as alloop's, which are narrower. Arguments: the kind, then frames and
repeats of a prediction, then of a training. Prints `ready`, then answers each line
`predict` or `train` with frames a CPU second.
"""

import sys
import time
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.utils.data.dataloader as loader
from torch import Tensor, nn

ETHANOL = (6, 6, 8, 1, 1, 1, 1, 1, 1)
WIDTH, LAYERS = 64, 3

Evaluate = Callable[[], tuple[Tensor, Tensor]]  # energies and forces of a batch


class PaiNN(nn.Module):
    """64 features, 3 layers, 8 radial functions, 5 Å, as alloop's."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(loader, "T_co"):  # which schnetpack imports from older torch
            setattr(loader, "T_co", typing.TypeVar("T_co", covariant=True))  # noqa: B010
        atomistic, parts = map(import_module, ("schnetpack.atomistic", "schnetpack.nn"))
        representation = import_module("schnetpack.representation").PaiNN(
            n_atom_basis=WIDTH,
            n_interactions=LAYERS,
            radial_basis=parts.GaussianRBF(n_rbf=8, cutoff=5.0),
            cutoff_fn=parts.CosineCutoff(5.0),
        )
        self.whole = import_module("schnetpack.model").NeuralNetworkPotential(
            representation=representation,
            input_modules=[atomistic.PairwiseDistances()],
            output_modules=[
                atomistic.Atomwise(n_in=WIDTH, output_key="energy"),
                atomistic.Forces(energy_key="energy", force_key="forces"),
            ],
        )

    def on(self, frames: int) -> Evaluate:
        """Return a call on so many frames, with all pairs listed beforehand."""
        inputs = _listed(frames)

        def evaluate() -> tuple[Tensor, Tensor]:
            results = self.whole(dict(inputs))
            return results["energy"], results["forces"]

        return evaluate


class EGNN(nn.Module):
    """The same width and depth; a sum of an MLP of the atoms' features."""

    def __init__(self) -> None:
        super().__init__()
        layer = import_module("egnn_pytorch").EGNN
        self.embedding = nn.Embedding(10, WIDTH)
        self.layers = nn.ModuleList(
            layer(WIDTH, m_dim=WIDTH, update_coors=False, soft_edges=True)
            for _ in range(LAYERS)
        )
        for block in self.layers:
            block.edge_mlp = nn.Sequential(_mlp(2 * WIDTH + 1, WIDTH), nn.SiLU())
            block.node_mlp = _mlp(2 * WIDTH, WIDTH)
        self.readout = _mlp(WIDTH, 1)

    def on(self, frames: int) -> Evaluate:
        """Return a call on so many frames."""
        z = torch.tensor(ETHANOL).repeat(frames, 1)
        start = torch.tensor(_positions(frames), dtype=torch.float32)

        def evaluate() -> tuple[Tensor, Tensor]:
            x = start.clone().requires_grad_()
            h = self.embedding(z)
            for layer in self.layers:
                h, _ = layer(h, x)
            energies = self.readout(h).sum(dim=(1, 2))
            (slope,) = torch.autograd.grad(
                energies.sum(), x, create_graph=self.training
            )
            return energies, -slope.view(-1, 3)

        return evaluate


def _mlp(inside: int, outside: int) -> nn.Sequential:
    first = nn.Linear(inside, WIDTH)
    return nn.Sequential(first, nn.SiLU(), nn.Linear(WIDTH, outside))


def _positions(frames: int) -> Any:
    """Return nine atoms on a grid, a little displaced, (frames, 9, 3) Å."""
    grid = 1.4 * np.array([[x, y, z] for x in range(3) for y in range(3) for z in (0,)])
    noise = np.random.default_rng(0).standard_normal((frames, len(ETHANOL), 3))
    return grid + 0.03 * noise


def _listed(frames: int) -> dict[str, Tensor]:
    """Return a batch as SchNetPack takes it."""
    size = len(ETHANOL)
    i, j = np.nonzero(~np.eye(size, dtype=bool))
    first = size * np.arange(frames)[:, None]
    x = torch.tensor(_positions(frames).reshape(-1, 3), dtype=torch.float32)
    return {
        "_atomic_numbers": torch.tensor(ETHANOL * frames),
        "_positions": x,
        "_idx_i": torch.tensor((i + first).ravel()),
        "_idx_j": torch.tensor((j + first).ravel()),
        "_idx_m": torch.arange(frames).repeat_interleave(size),
        "_n_atoms": torch.full((frames,), size),
        "_offsets": torch.zeros(frames * len(i), 3),
        "_cell": torch.zeros(frames, 3, 3),
        "_pbc": torch.zeros(3 * frames, dtype=torch.bool),
    }


def predict(model: Any, frames: int, repeats: int) -> float:
    """Time energies and forces."""
    model.eval()
    evaluate = model.on(frames)
    began = time.process_time()
    for _ in range(repeats):
        evaluate()
    return frames * repeats / (time.process_time() - began)


def train(model: Any, frames: int, repeats: int) -> float:
    """Time steps of AdamW on random forces and zero energies."""
    model.train()
    evaluate, loss = model.on(frames), nn.functional.mse_loss
    energies = torch.zeros(frames)
    forces = 0.1 * torch.randn(frames * len(ETHANOL), 3)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    began = time.process_time()
    for _ in range(repeats):
        e, f = evaluate()
        total = loss(f, forces) + 0.05 * loss(e, energies)
        adam.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return frames * repeats / (time.process_time() - began)


def main() -> None:
    """Answer until nobody asks."""
    torch.set_num_threads(1)
    walkers, repeats, frames, steps = map(int, sys.argv[2:])
    model = {"painn": PaiNN, "egnn": EGNN}[sys.argv[1]]()
    answer("ready")
    for line in sys.stdin:
        if line.strip() == "predict":
            answer(str(predict(model, walkers, repeats)))
        else:
            answer(str(train(model, frames, steps)))


def answer(text: str) -> None:
    """Print a line to whoever started this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
