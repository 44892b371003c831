"""Conversion of a SevenNet checkpoint to tensors and settings.

A checkpoint is a pickle of tensors and settings. It is opened by torch's unpickler of
weights, which runs none of its code, so that neither sevenn nor e3nn is needed.
"""

import hashlib
import importlib.util
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.models.universal.converted import DEGREES, converted_checkpoint
from alloop.models.universal.equivariant import dimension

PUBLISHED = {  # names of the weights that come with the package, and their files
    "7net-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "7net-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "7net-mf-0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
}
_SILU = 1.679176792398942  # e3nn's factor of SiLUs, a mean over its random numbers
_DEFAULTS: dict[str, Any] = {  # of settings that not all versions wrote
    "interaction_type": "nequip",
    "readout_as_fcn": False,
    "lmax_edge": -1,
    "lmax_node": -1,
    "_normalize_sph": False,
    "use_modality": False,
}
_SORTED = (0, 11)  # the version that first sorted products by the degree of the result
_OLD_NAMES = (  # of modules and tensors, before April 2024
    (r"^EdgeEmbedding\.", "edge_embedding."),
    (r"^reducing nn input to hidden\.", "reduce_input_to_hidden."),
    (r"^reducing nn hidden to energy\.", "reduce_hidden_to_energy."),
    (r"^rescale atomic energy\.", "rescale_atomic_energy."),
    (r"^(\d+) self connection intro\.", r"\1_self_connection_intro."),
    (r"^(\d+) convolution\.", r"\1_convolution."),
    (r"^(\d+) self interaction 2\.", r"\1_self_interaction_2."),
    (r"\.denumerator$", ".denominator"),
)
_NUMPY: list[Any] = [  # what arrays in the settings are made by
    (getattr(multiarray, name), f"numpy.{module}.multiarray.{name}")
    for module in ("core", "_core")
    for name in ("_reconstruct", "scalar")
] + [np.ndarray, np.dtype, *(type(np.dtype(x)) for x in ("f4", "f8", "i4", "i8"))]


def published_checkpoint(name: str) -> Path | None:
    """Return the file of published weights in the package sevenn, None for other names.

    The package is not imported. Raises InputError where it is not installed.
    """
    if name.lower() not in PUBLISHED:
        return None
    package = importlib.util.find_spec("sevenn")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            f"expected the package sevenn, which {name} comes with and which is needed "
            "for nothing else; pip install 'alloop[sevennet]'"
        )
    folder = Path(package.submodule_search_locations[0], "pretrained_potentials")
    return folder / PUBLISHED[name.lower()]


def open_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return settings and weights of a SevenNet checkpoint, None for another file.

    Runs no code of the file.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever a file that is no such checkpoint raises
        return None
    fine = isinstance(data, dict) and {"config", "model_state_dict"} <= data.keys()
    return data if fine else None


def sevennet_checkpoint(
    path: Path, data: Mapping[str, Any], licence: Mapping[str, Any]
) -> Checkpoint:
    """Return a SevenNet checkpoint as that of a potential, in float64.

    licence: its name, and whether it forbids commercial use. Raises InputError for a
    network of a kind that alloop has not.
    """
    try:
        config = {**_DEFAULTS, **data["config"]}
        weights = {
            _new_name(name): x.double() for name, x in data["model_state_dict"].items()
        }
        model = _description(config, weights)
        tensors = dict(_tensors(config, weights, model))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise _unsupported(f"one that it cannot read ({reason})") from error
    model |= {
        "source": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "program": f"sevenn {config['version']}",
        "licence": dict(licence),
    }
    arrays = {name: np.array(x.numpy()) for name, x in tensors.items()}
    return converted_checkpoint("sevennet", model, arrays)


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = re.sub(old, new, name)
    return name


def _unsupported(what: str) -> InputError:
    return InputError(
        f"expected a SevenNet checkpoint of the published kinds, got {what}; use it "
        "through its ASE calculator, as a level of `kind: ase`"
    )


def _require(fine: bool, what: str) -> None:
    if not fine:
        raise _unsupported(what)


# --- description ---------------------------------------------------------------------


def _description(
    config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    _require_settings(config)
    elements = sorted(config["_type_map"], key=config["_type_map"].get)
    heads = _heads(config)
    lmax = config["lmax_edge"] if config["lmax_edge"] >= 0 else config["lmax"]
    _require(lmax <= DEGREES, f"one with harmonics of degree {lmax}")
    irreps = _irreps(config, lmax)
    shifts = weights["rescale_atomic_energy.shift"]
    shifts = shifts.expand(len(heads), len(elements))
    envelope = config["cutoff_function"]
    xplor = envelope["cutoff_function_name"] == "XPLOR"
    return {
        "elements": [int(z) for z in elements],
        "heads": heads,
        "references": {
            head: row.tolist() for head, row in zip(heads, shifts, strict=True)
        },
        "cutoff": float(config["cutoff"]),
        "envelope": {"kind": "xplor", "start": float(envelope["cutoff_on"])}
        if xplor
        else {"kind": "polynomial", "power": int(envelope["poly_cut_p_value"])},
        "radial": int(config["radial_basis"]["bessel_basis_num"]),
        "harmonics": int(lmax),
        "unit_harmonics": bool(config["_normalize_sph"]),
        "activation": _SILU,
        "layers": [
            _layer(config, number, (irreps[number], irreps[number + 1]), lmax)
            for number in range(len(irreps) - 1)
        ],
        "readout": irreps[-1][0] // 2,
        "head_readout": len(heads) > 1 and bool(config["use_modal_output_block"]),
    }


def _require_settings(config: Mapping[str, Any]) -> None:
    """Raise InputError for what the published networks do not have."""
    settings: dict[str, Any] = {
        "interaction_type": "nequip",
        "is_parity": False,
        "use_bias_in_linear": False,
        "readout_as_fcn": False,
        "act_radial": "silu",
        "_number_of_species": len(config["_type_map"]),
    }
    for key, value in settings.items():
        _require(config[key] == value, f"one with `{key}: {config[key]}`")
    for key in ("act_scalar", "act_gate"):
        _require(config[key]["e"] == "silu", f"one with `{key}: {config[key]}`")
    basis = config["radial_basis"]["radial_basis_name"]
    _require(basis == "bessel", f"one with the radial functions {basis}")
    envelope = config["cutoff_function"]["cutoff_function_name"]
    _require(envelope in ("XPLOR", "poly_cut"), f"one with the envelope {envelope}")
    embed = config["use_modality"] and config["use_modal_node_embedding"]
    _require(not embed, "one whose heads embed elements")
    kinds = set(_connections(config))
    _require(kinds <= {"linear", "nequip"}, f"one with the connections {kinds}")


def _heads(config: Mapping[str, Any]) -> list[str]:
    if not config["use_modality"]:
        return ["Default"]
    names: Mapping[str, int] = config["_modal_map"]
    return sorted(names, key=lambda name: names[name])


def _connections(config: Mapping[str, Any]) -> list[str]:
    kinds = config["self_connection_type"]
    return (
        [kinds] * config["num_convolution_layer"] if isinstance(kinds, str) else kinds
    )


def _irreps(config: Mapping[str, Any], lmax_edge: int) -> list[dict[int, int]]:
    """Return the channels by degree before and after each layer."""
    texts = config["irreps_manual"]
    if texts:
        return [_channels(text) for text in texts]
    channels, count = int(config["channel"]), int(config["num_convolution_layer"])
    lmax = config["lmax_node"] if config["lmax_node"] > 0 else config["lmax"]
    widths = [{0: channels}]
    for layer in range(count):
        reach = min(max(widths[-1]) + lmax_edge, lmax if layer < count - 1 else 0)
        widths.append(dict.fromkeys(range(reach + 1), channels))
    return widths


def _channels(text: str) -> dict[int, int]:
    """Return channels by degree of a text such as `128x0e+64x1e`."""
    terms = [re.fullmatch(r"(\d+)x(\d+)e", x.strip()) for x in str(text).split("+")]
    _require(all(terms), f"one with features {text}")
    widths = {int(term[2]): int(term[1]) for term in terms if term}
    _require(sorted(widths) == list(range(len(terms))), f"one with features {text}")
    return widths


def _layer(
    config: Mapping[str, Any],
    number: int,
    irreps: tuple[Mapping[int, int], Mapping[int, int]],
    lmax: int,
) -> dict[str, Any]:
    inside, outside = irreps
    several = len(_heads(config)) > 1
    kind = _connections(config)[number]
    return {
        "inside": {str(x): n for x, n in inside.items()},
        "outside": {str(x): n for x, n in outside.items()},
        "paths": sorted(_products(inside, lmax, max(outside)), key=lambda x: x[2]),
        "hidden": [int(n) for n in config["weight_nn_hidden_neurons"]],
        "connection": "elements" if kind == "nequip" else "linear",
        "head_before": several and bool(config["use_modal_self_inter_intro"]),
        "head_after": several and bool(config["use_modal_self_inter_outro"]),
    }


def _products(inside: Mapping[int, int], lmax: int, reach: int) -> list[list[int]]:
    """Return the degrees of features, harmonics and result, as old files order them."""
    return [
        [a, b, c]
        for a in inside
        for b in range(lmax + 1)
        for c in range(abs(a - b), min(a + b, reach) + 1)
    ]


# --- tensors -------------------------------------------------------------------------


def _tensors(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], model: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    heads, elements = len(model["heads"]), len(model["elements"])
    embedding = weights["onehot_to_feature_x.linear.weight"]
    yield "embedding.weight", embedding.view(elements, -1)
    yield "radial.waves", weights["edge_embedding.basis_function.coeffs"]
    for number, layer in enumerate(model["layers"]):
        for name, tensor in _layer_tensors(config, weights, layer, number):
            yield f"layers.{number}.{name}", tensor
    last, hidden = int(model["layers"][-1]["outside"]["0"]), int(model["readout"])
    first = weights["reduce_input_to_hidden.linear.weight"]
    several = heads if model["head_readout"] else 0
    blocks, row = _linear(first, {0: (last, hidden)}, several)
    yield "readout.0.weights.0", blocks[0]
    if row is not None:
        yield "head_readout", row
    second = weights["reduce_hidden_to_energy.linear.weight"]
    yield "readout.1.weights.0", second.view(hidden, 1)
    scale = weights["rescale_atomic_energy.scale"]
    yield "scale", scale.expand(heads, elements).clone()


def _layer_tensors(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    layer: Mapping[str, Any],
    number: int,
) -> Iterator[tuple[str, Tensor]]:
    heads = len(_heads(config))
    inside = {int(x): n for x, n in layer["inside"].items()}
    gate_widths = {int(x): n for x, n in layer["outside"].items()}
    gate_widths[0] = sum(gate_widths.values())
    sums = dict.fromkeys(gate_widths, 0)
    for a, _, c in layer["paths"]:
        sums[c] += inside[a]
    linears = {
        "before": ("self_interaction_1", {x: (n, n) for x, n in inside.items()}),
        "after": (
            "self_interaction_2",
            {x: (sums[x], n) for x, n in gate_widths.items()},
        ),
    }
    for name, (module, widths) in linears.items():
        flat = weights[f"{number}_{module}.linear.weight"]
        blocks, row = _linear(flat, widths, heads if layer[f"head_{name}"] else 0)
        for index, block in enumerate(blocks):
            yield f"{name}.weights.{index}", block
        if row is not None:
            yield f"head_{name}", row
    common = {x: (inside[x], n) for x, n in gate_widths.items() if x in inside}
    elements = len(config["_type_map"]) if layer["connection"] == "elements" else 0
    stem = f"{number}_self_connection_intro"
    yield from _connection_tensors(weights, stem, common, elements)
    stem = f"{number}_convolution"
    yield "neighbours", weights[f"{stem}.denominator"]
    order = _order(config, layer, inside)
    for index in range(len(layer["hidden"]) + 1):
        weight = weights[f"{stem}.weight_nn.layer{index}.weight"]
        last = index == len(layer["hidden"])
        yield f"radial.weights.{index}", weight[:, order] if last else weight
    for index, path in enumerate(layer["paths"]):
        yield f"convolution.coupling_{index}", _coupling(weights, stem, path)


def _linear(
    flat: Tensor, widths: Mapping[int, tuple[int, int]], heads: int
) -> tuple[list[Tensor], Tensor | None]:
    """Return the matrices of an e3nn Linear by degree, and the rows of its heads.

    heads: 0, or the number of one-hot rows that stand behind the features; they count
    as inputs.
    """
    inputs, outputs = widths[0]
    sizes = [a * b for a, b in widths.values()]
    *blocks, rows = torch.split(flat, [*sizes, heads * outputs])
    shapes = widths.values()
    matrices = [x.view(shape) for x, shape in zip(blocks, shapes, strict=True)]
    if not heads:
        return matrices, None
    matrices[0] = matrices[0] * math.sqrt(inputs / (inputs + heads))
    return matrices, rows.view(heads, outputs) / math.sqrt(inputs + heads)


def _connection_tensors(
    weights: Mapping[str, Tensor],
    stem: str,
    widths: Mapping[int, tuple[int, int]],
    elements: int,
) -> Iterator[tuple[str, Tensor]]:
    """Yield matrices by degree; elements: 0, or the length of one-hot elements."""
    name = "fc_tensor_product.weight" if elements else "linear.weight"
    shapes = widths.values()
    sizes = [a * b * max(elements, 1) for a, b in shapes]
    blocks = torch.split(weights[f"{stem}.{name}"], sizes)
    for number, (block, (a, b)) in enumerate(zip(blocks, shapes, strict=True)):
        product = block.view(a, max(elements, 1), b).transpose(0, 1)
        yield f"connection.weights.{number}", product if elements else product[0]


def _order(
    config: Mapping[str, Any], layer: Mapping[str, Any], inside: Mapping[int, int]
) -> Tensor:
    """Return the columns of radial weights in the order of the layer's products."""
    paths: Sequence[Sequence[int]] = layer["paths"]
    version = tuple(int(x) for x in re.findall(r"\d+", str(config["version"]))[:2])
    stored = paths
    if version < _SORTED:
        lmax = max(b for _, b, _ in paths)
        stored = _products(inside, lmax, max(c for *_, c in paths))
    starts, total = {}, 0
    for path in stored:
        starts[tuple(path)] = total
        total += inside[path[0]]
    columns = [torch.arange(inside[path[0]]) + starts[tuple(path)] for path in paths]
    return torch.cat(columns)


def _coupling(weights: Mapping[str, Tensor], stem: str, path: Sequence[int]) -> Tensor:
    """Return what e3nn couples features and harmonics by, as `Convolution` has it.

    Old files have their own signs; where a degree is 0, it is a multiple of unity.
    """
    a, b, c = path
    key = f"{stem}.convolution._compiled_main_left_right._w3j_{a}_{b}_{c}"
    if 0 in path:
        shape = dimension(a), dimension(b), dimension(c)
        table = torch.eye(max(shape), dtype=torch.float64).reshape(shape)
        table = table / math.sqrt(max(shape))
    else:
        table = weights[key]
    turned = table * math.sqrt(dimension(c))
    return turned.permute(1, 0, 2).reshape(dimension(b), -1)
