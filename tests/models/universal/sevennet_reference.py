"""Small SevenNet models, and what sevenn says of them, for tests without sevenn.

`python -m tests.models.universal.sevennet_reference`, where `alloop[sevennet]` is
installed, makes `sevennet_small.alloop` and `sevennet_small.npz` beside this file
again: a network of two heads with random weights.
"""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from tests.models.universal.mace_reference import frames

FOLDER = Path(__file__).parent
HEAD = "fine"
ELEMENTS = {8: 0, 1: 1, 7: 2, 6: 3}  # in an order of their own
CONFIG: dict[str, Any] = {  # of a small network of one head
    "version": "0.13.0",
    "_model_type": "E3_equivariant_model",
    "chemical_species": ["O", "H", "N", "C"],
    "_number_of_species": 4,
    "_type_map": ELEMENTS,
    "act_gate": {"e": "silu", "o": "tanh"},
    "act_scalar": {"e": "silu", "o": "tanh"},
    "irreps_manual": ["6x0e", "6x0e+4x1e+2x2e", "6x0e+4x1e+2x2e", "6x0e"],
    "channel": 6,
    "lmax": 2,
    "lmax_edge": -1,
    "lmax_node": -1,
    "is_parity": False,
    "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 5},
    "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 4.0},
    "cutoff": 4.5,
    "num_convolution_layer": 3,
    "weight_nn_hidden_neurons": [8, 8],
    "train_shift_scale": False,
    "train_denominator": False,
    "use_bias_in_linear": False,
    "readout_as_fcn": False,
    "act_radial": "silu",
    "self_connection_type": "linear",
    "interaction_type": "nequip",
    "_normalize_sph": True,
    "conv_denominator": [9.0, 11.0, 13.0],
    "shift": [-2.0, -1.0, -3.0, -4.0],
    "scale": [0.9, 0.8, 1.1, 1.2],
    "use_modality": False,
}
HEADS: dict[str, Any] = {  # the changes for two heads
    "use_modality": True,
    "_modal_map": {"rough": 0, "fine": 1},
    "_number_of_modalities": 2,
    "use_modal_node_embedding": False,
    "use_modal_self_inter_intro": True,
    "use_modal_self_inter_outro": True,
    "use_modal_output_block": True,
    "use_modal_wise_shift": True,
    "use_modal_wise_scale": False,
    "shift": [[-2.0, -1.0, -3.0, -4.0], [-2.1, -1.2, -3.1, -4.2]],
}


def small_sevennet(**changes: Any) -> tuple[Any, dict[str, Any]]:
    """A network of sevenn's with random weights, and its checkpoint."""
    from sevenn.model_build import build_E3_equivariant_model

    config = {**CONFIG, **changes}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_E3_equivariant_model({**config})
    return model, {"config": config, "model_state_dict": model.state_dict(), "epoch": 1}


def predictions(model: Any, atoms: Sequence[Atoms], head: str = "") -> dict[str, Any]:
    """Energies, forces and stress by sevenn's modules in float64."""
    import sevenn._keys as KEY

    model = model.double().eval()
    model.set_is_batch_data(False)
    for name, module in model.named_children():
        if "onehot" in name or "one_hot" in name:  # which end in float32
            module.register_forward_hook(_in_double)
    said: dict[str, list[Any]] = {"energies": [], "forces": [], "stress": []}
    for frame in atoms:
        data = _graph(frame, model.cutoff)
        if head:
            data[KEY.DATA_MODALITY] = head
        with _float64():
            out = model(data)
        said["energies"].append(out[KEY.PRED_TOTAL_ENERGY].item())
        said["forces"].append(out[KEY.PRED_FORCE].detach().numpy())
        if frame.pbc.all():
            stress = -out[KEY.PRED_STRESS].detach().numpy()
            said["stress"].append(stress.reshape(-1)[[0, 1, 2, 4, 5, 3]])
    return {
        "energies": np.array(said["energies"]),
        "forces": np.concatenate(said["forces"]),
        "stress": np.array(said["stress"]),
    }


def _graph(atoms: Atoms, cutoff: float) -> Any:
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    arrays = unlabeled_atoms_to_graph(atoms, cutoff, True)
    graph = AtomGraphData.from_numpy_dict(dict(arrays))  # in float32
    for key, array in arrays.items():
        if getattr(array, "dtype", None) == np.float64:
            graph[key] = torch.from_numpy(array).reshape(graph[key].shape)
    return graph


def _in_double(_: Any, __: Any, data: dict[str, Any]) -> dict[str, Any]:
    for key, x in data.items():
        if torch.is_tensor(x) and x.dtype == torch.float32:
            data[key] = x.double()
    return data


@contextmanager
def _float64() -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def main() -> None:
    """Make the files."""
    from alloop.jobs.convert_job import convert_model

    model, checkpoint = small_sevennet(**HEADS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "small.pth")
        torch.save(checkpoint, file)
        convert_model(file, FOLDER / "sevennet_small.alloop", "MIT", force=True)
    said = predictions(model, frames(), HEAD)
    np.savez_compressed(FOLDER / "sevennet_small.npz", **said)


if __name__ == "__main__":
    main()
