"""The weights of SO3LR, from the names and shapes of so3krates-torch to alloop's."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from alloop.core.errors import InputError
from alloop.models.pretrained_files import package_file, pickled_tensors

_PACKAGE = "so3krates_torch"
_FILE = "pretrained/so3lr/so3lr.model"
_CLASSES = (
    *(
        f"{_PACKAGE}.blocks.{name}"
        for name in (
            "embedding.ChargeSpinEmbedding",
            "embedding.EuclideanEmbedding",
            "embedding.InvariantEmbedding",
            "euclidean_transformer.EuclideanAttentionBlock",
            "euclidean_transformer.EuclideanTransformer",
            "euclidean_transformer.FilterNet",
            "euclidean_transformer.InteractionBlock",
            "output_block.AtomicEnergyOutputHead",
            "output_block.DipoleVecOutputHead",
            "output_block.HirshfeldOutputHead",
            "output_block.PartialChargesOutputHead",
            "physical_potentials.DispersionInteraction",
            "physical_potentials.ElectrostaticInteraction",
            "physical_potentials.ZBLRepulsion",
            "radial_basis.BernsteinBasis",
            "radial_basis.ComputeRBF",
            "so3_conv_invariants.L0Contraction",
        )
    ),
    f"{_PACKAGE}.modules.cutoff.PhysNetCutoff",
    f"{_PACKAGE}.modules.models.SO3LR",
    f"{_PACKAGE}.modules.spherical_harmonics.RealSphericalHarmonics",
    "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.normalization.LayerNorm",
    "torch.nn.modules.sparse.Embedding",
)
_EXPONENTIALS = ("a1", "a2", "a3", "a4", "c1", "c2", "c3", "c4", "p", "d")


def pretrained_state(rows: int, layers: int) -> dict[str, Tensor]:
    """Return the state of `alloop.models.networks.so3lr.SO3LR` from the package's file.

    rows: of tables by atomic number. Raises InputError where the package is missing or
    its file is another one.
    """
    found = pickled_tensors(package_file(_PACKAGE, _FILE, "so3lr"), _CLASSES)
    try:
        return _renamed(found, rows, layers)
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"expected the weights of SO3LR in {_PACKAGE}, got others ({error}); "
            "pip install 'alloop[so3lr]'"
        ) from error


def _renamed(t: Mapping[str, Tensor], rows: int, layers: int) -> dict[str, Tensor]:
    heads = {
        "energy.0": "atomic_energy_output_block.layers.0",
        "energy.2": "atomic_energy_output_block.final_layer",
        "partial_charge.0": "partial_charges_output_block.transform_inv_features.0",
        "partial_charge.2": "partial_charges_output_block.transform_inv_features.2",
        "volume.0": "hirshfeld_output_block.transform_features.0",
        "volume.2": "hirshfeld_output_block.transform_features.2",
    }
    tables = {
        "element_charge": "partial_charges_output_block.atomic_embedding",
        "element_volume": "hirshfeld_output_block.v_shift_embedding",
        "volume_query": "hirshfeld_output_block.q_embedding",
    }
    scale = "atomic_energy_output_block.energy_scales.weight"
    element = "inv_feature_embedding.embedding.weight"
    raw = [t[f"zbl_repulsion.{name}_raw"] for name in _EXPONENTIALS]
    state = {
        "element.weight": _by_element(t[element], rows),
        "energy_scale.weight": _by_element(t[scale], rows),
        "repulsion": softplus(torch.cat(raw)),
        **_state_embedding(t, "charge", rows),
        **_state_embedding(t, "spin", rows),
        **{f"{own}.weight": t[f"{x}.weight"][:rows] for own, x in tables.items()},
    }
    for own, name in heads.items():
        state |= {f"{own}.{part}": t[f"{name}.{part}"] for part in ("weight", "bias")}
    for index in range(layers):
        whole = f"euclidean_transformers.{index}."
        inner = {k.removeprefix(whole): v for k, v in t.items() if k.startswith(whole)}
        state |= {f"layers.{index}.{k}": v for k, v in _layer(inner).items()}
    return state


def _by_element(columns: Tensor, rows: int) -> Tensor:
    """Return a table by atomic number from columns that begin with hydrogen."""
    return torch.nn.functional.pad(columns[:, : rows - 1], (1, 0)).T


def _state_embedding(t: Mapping[str, Tensor], own: str, rows: int) -> dict[str, Tensor]:
    name = f"{own}_embedding"
    return {
        f"{own}.query.weight": _by_element(t[f"{name}.Wq.weight"], rows),
        f"{own}.key": t[f"{name}.Wk"],
        f"{own}.value": t[f"{name}.Wv"],
        f"{own}.mlp.1.weight": t[f"{name}.mlp.1.weight"],
        f"{own}.mlp.3.weight": t[f"{name}.mlp.3.weight"],
    }


def _layer(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a layer's tensors; those that are applied to the same rows are joined."""
    state: dict[str, Tensor] = {}
    nets = ("filter_net_inv", "filter_net_ev")
    for part in ("weight", "bias"):
        for own, name in (("radial", "mlp_rbf"), ("angular", "mlp_ev")):
            both = [t[f"{net}.{name}.0.{part}"] for net in nets]
            state[f"{own}.{part}"] = torch.cat(both)
        names = {
            "norm": "layer_norm_inv_1",
            "last_norm": "layer_norm_inv_2",
            "mlp.1.0": "mlp_1.1",
            "mlp.1.2": "mlp_1.3",
            "exchange": "interaction_block.linear_layer",
        }
        state |= {f"{own}.{part}": t[f"{x}.{part}"] for own, x in names.items()}
    for own, net in zip(("feature_filter", "vector_filter"), nets, strict=True):
        last = [f"{net}.mlp_{x}.mlp_{x}_layer_1.0" for x in ("rbf", "ev")]
        state[f"{own}.weight"] = torch.cat([t[f"{x}.weight"] for x in last], dim=1)
        state[f"{own}.bias"] = t[f"{last[0]}.bias"] + t[f"{last[1]}.bias"]
    maps = ("q_inv", "q_ev", "k_inv", "k_ev", "v_inv")
    block = "euclidean_attention_block.W_"
    state["mix"] = torch.cat([t[f"{block}{x}"] for x in maps], dim=-1)
    return state
