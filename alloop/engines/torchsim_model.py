"""A model in TorchSim: many systems at once, its integrators, relaxation, batching."""

from typing import Any

import numpy as np
import torch
from torch_sim.models.interface import ModelInterface

from alloop.core.batch import Batch
from alloop.core.stress import tensor_of_voigt
from alloop.engines.evaluator import Evaluator


class AlloopModel(ModelInterface):  # type: ignore[misc]
    """A TorchSim model that calls a model of alloop.

    charge (e) and spin (2S) are those of each system, since TorchSim's states have
    none. Outputs: energy (systems,), forces (atoms, 3), stress (systems, 3, 3) where
    asked for, surprise and error_limit (systems,). They are float64 on the CPU; a
    potential on an accelerator computes there, and its results come back.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        charge: int = 0,
        spin: int = 0,
        compute_stress: bool = False,
    ) -> None:
        super().__init__()
        self.evaluator, self.charge, self.spin = evaluator, charge, spin
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, compute_stress
        self._memory_scales_with = "n_atoms"  # molecules have no density

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Return the outputs for a SimState."""
        batch = self._batch(state)
        evaluation = self.evaluator.evaluate(batch)
        outputs = {
            "energy": evaluation.energies,
            "forces": evaluation.forces,
            "surprise": evaluation.surprise,
            "error_limit": evaluation.error_limits,
        }
        if self._compute_stress:
            stress = evaluation.stress
            size = len(batch)
            outputs["stress"] = np.full((size, 3, 3), np.nan)
            if stress is not None:
                outputs["stress"] = tensor_of_voigt(stress)
        return {
            name: torch.as_tensor(values, dtype=self._dtype, device=self._device)
            for name, values in outputs.items()
        }

    def _batch(self, state: Any) -> Batch:
        counts = torch.bincount(state.system_idx, minlength=state.n_systems).numpy()
        cells = state.row_vector_cell.detach().numpy().astype(np.float64)
        pbc = np.broadcast_to(np.asarray(state.pbc, dtype=np.bool_), (len(counts), 3))
        return Batch(
            numbers=state.atomic_numbers.numpy().astype(np.int64),
            positions=state.positions.detach().numpy().astype(np.float64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            charges=np.full(len(counts), self.charge, dtype=np.int64),
            spins=np.full(len(counts), self.spin, dtype=np.int64),
            cells=np.ascontiguousarray(cells),
            pbc=pbc.copy(),
        )
