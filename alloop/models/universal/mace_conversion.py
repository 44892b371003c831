"""Conversion of a MACE file of mace-torch to tensors and settings.

The file is a pickle: opening it runs what it holds. It is opened here, for
`alloop convert`, and nowhere else.
"""

import contextlib
import hashlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import combinations_with_replacement, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.models.universal.converted import DEGREES, converted_checkpoint

VERSION = "0.3.16"
_BLOCKS = {
    "RealAgnosticInteractionBlock": "plain",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density-residual",
    "RealAgnosticResidualNonLinearInteractionBlock": "nonlinear",
}
_READOUTS = {
    "LinearReadoutBlock": "linear",
    "NonLinearReadoutBlock": "hidden",
    "NonLinearBiasReadoutBlock": "biased",
}
_TRANSFORMS = {"AgnesiTransform": "agnesi", "SoftTransform": "soft"}
_STATES = ("total_charge", "total_spin")
_TINY = 1e-12  # below which a coupling is none


def mace_checkpoint(path: Path, licence: Mapping[str, Any]) -> Checkpoint:
    """Return a MACE file as the checkpoint of a potential, in float64.

    licence: its name, and whether it forbids commercial use. Raises InputError where
    mace-torch is missing, the file cannot be opened, or its network is of a kind that
    alloop has not.
    """
    _require_package()
    data = _read_bytes(path)
    network = _open(path)
    if type(network).__name__ != "ScaleShiftMACE":
        raise _unsupported(f"a {type(network).__name__}")
    try:
        network = network.double().cpu()
        model = _description(network)
        tensors = dict(_tensors(network, model))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise _unsupported(f"one that it cannot read ({reason})") from error
    model |= {
        "source": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "program": f"mace-torch {version('mace-torch')}",
        "licence": dict(licence),
    }
    arrays = {name: np.array(x.detach().numpy()) for name, x in tensors.items()}
    return converted_checkpoint("mace", model, arrays)


def _require_package() -> None:
    if importlib.util.find_spec("mace") is None:
        raise InputError(
            "expected the package mace-torch, which converts its files and is needed "
            "for nothing else; pip install 'alloop[mace]'"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"expected a MACE file at {path} ({error.strerror}); name another"
        ) from error


def _open(path: Path) -> Any:
    """Unpickle the module; this runs what the file holds."""
    variable = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # which the package sets for good
    before = os.environ.get(variable)
    usual = torch.get_default_dtype()
    try:
        with _silence():
            import mace  # noqa: F401 - e3nn opens its constants only after this

            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the pickle raises
        reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:200]
        raise InputError(
            f"expected a MACE file that mace-torch {VERSION} opens, {path} cannot be "
            f"opened ({reason}); check that it is whole, and its version"
        ) from error
    finally:
        torch.set_default_dtype(usual)
        if before is None:
            os.environ.pop(variable, None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _unsupported(what: str) -> InputError:
    return InputError(
        f"expected a ScaleShiftMACE of the published kinds, got {what}; use it through "
        "its ASE calculator, as a level of `kind: ase`"
    )


def _require(fine: bool, what: str) -> None:
    if not fine:
        raise _unsupported(what)


# --- description ---------------------------------------------------------------------


def _description(network: Any) -> dict[str, Any]:
    radial = network.radial_embedding
    basis = type(radial.bessel_fn).__name__
    _require(basis == "BesselBasis", f"one with the radial functions {basis}")
    transform = getattr(radial, "distance_transform", None)
    name = type(transform).__name__ if transform is not None else ""
    _require(not name or name in _TRANSFORMS, f"one with the distances of {name}")
    elements = [int(z) for z in network.atomic_numbers]
    heads = [str(x) for x in getattr(network, "heads", None) or ["Default"]]
    energies = network.atomic_energies_fn.atomic_energies
    energies = energies.view(-1, len(elements))
    channels = _degrees(network.node_embedding.linear.irreps_out)[0]
    harmonics = max(_degrees(network.spherical_harmonics.irreps_out))
    _require(harmonics <= DEGREES, f"one with harmonics of degree {harmonics}")
    acts = [
        act.cst
        for readout in network.readouts
        for act in getattr(getattr(readout, "non_linearity", None), "acts", ())
    ]
    silu = _silu_scale(network)
    _require(all(abs(x - silu) < 1e-9 for x in acts), "one with another activation")
    repulsive = hasattr(network, "pair_repulsion_fn")
    return {
        "elements": elements,
        "heads": heads,
        "head_count": len(heads),
        "references": {
            head: [float(e) for e in row]
            for head, row in zip(heads, energies.expand(len(heads), -1), strict=True)
        },
        "cutoff": float(network.r_max),
        "envelope": int(radial.cutoff_fn.p),
        "envelope_in_basis": bool(getattr(radial, "apply_cutoff", True)),
        "radial": len(radial.bessel_fn.bessel_weights),
        "transform": _TRANSFORMS.get(name, "none"),
        "harmonics": harmonics,
        "zbl": int(network.pair_repulsion_fn.p) if repulsive else 0,
        "channels": channels,
        "activation": silu,
        "states": _states(network),
        "embedding_readout": hasattr(network, "embedding_readout"),
        "layers": [
            _layer(interaction, product, channels, len(elements))
            for interaction, product in zip(
                network.interactions, network.products, strict=True
            )
        ],
        "readouts": _readouts(network, len(heads)),
    }


def _silu_scale(network: Any) -> float:
    """Return the factor that e3nn multiplies SiLUs by; a mean over random numbers."""
    for interaction in network.interactions:
        weights = interaction.conv_tp_weights
        if type(weights).__name__ == "FullyConnectedNet":
            acts = [layer.act for layer in weights if layer.act is not None]
            if acts:
                return float(acts[0].cst)
    for readout in network.readouts:
        for act in getattr(getattr(readout, "non_linearity", None), "acts", ()):
            return float(act.cst)
    return 1.0


def _degrees(irreps: Any) -> dict[int, int]:
    """Return the number of channels by degree; each degree once, of natural parity."""
    out: dict[int, int] = {}
    for count, irrep in irreps:
        _require(irrep.p == (-1) ** irrep.l, f"one with features {irreps}")
        out[irrep.l] = out.get(irrep.l, 0) + count
    return out


def _states(network: Any) -> dict[str, Any]:
    if not hasattr(network, "joint_embedding"):
        return {}
    states = {}
    for name, spec in network.joint_embedding.specs.items():
        known = name in _STATES and spec["per"] == "graph"
        _require(known, f"one that reads {name}")
        if spec["type"] == "categorical":
            kind = {
                "kind": "classes",
                "classes": int(spec["num_classes"]),
                "offset": int(spec.get("offset", 0)),
            }
        else:
            kind = {"kind": "number", "bias": bool(spec.get("use_bias", True))}
        states[name] = {**kind, "width": int(spec["emb_dim"])}
    return states


def _layer(
    interaction: Any, product: Any, channels: int, elements: int
) -> dict[str, Any]:
    name = type(interaction).__name__
    _require(name in _BLOCKS, f"one with the block {name}")
    config = getattr(interaction, "cueq_config", None)
    _require(not getattr(config, "enabled", False), "one of cuEquivariance")
    tensor_product = interaction.conv_tp
    inputs, harmonics, outputs = (
        [irrep for _, irrep in getattr(tensor_product, which)]
        for which in ("irreps_in1", "irreps_in2", "irreps_out")
    )
    paths = [
        [inputs[x.i_in1].l, harmonics[x.i_in2].l, outputs[x.i_out].l]
        for x in tensor_product.instructions
    ]
    _require(paths == sorted(paths, key=lambda x: x[2]), "one with unsorted products")
    edge_channels = set(_degrees(interaction.linear_up.irreps_out).values())
    inside = _degrees(interaction.node_feats_irreps)
    outside = _degrees(product.linear.irreps_out)
    target = _degrees(interaction.target_irreps)
    widths = {*inside.values(), *outside.values(), *target.values()}
    _require(len(edge_channels) == 1 and widths == {channels}, "one of mixed widths")
    alike = bool(getattr(product, "use_agnostic_product", False))
    layer = {
        "block": _BLOCKS[name],
        "neighbours": float(interaction.avg_num_neighbors),
        "inside": sorted(_degrees(interaction.linear_up.irreps_out)),
        "outside": sorted(outside),
        "target": sorted(target),
        "edge_channels": edge_channels.pop(),
        "paths": paths,
        "hidden": _hidden(interaction.conv_tp_weights),
        "alike": alike,
        "channels": channels,
        "elements": elements,
        "terms": _terms(product, channels, 1 if alike else elements),
    }
    if name.endswith("NonLinearInteractionBlock"):
        gate = interaction.equivariant_nonlin
        layer["gates"] = [float(gate._scalar_cst), float(gate._gate_cst)]
    return layer


def _hidden(mlp: Any) -> list[int]:
    sizes = [int(x) for x in mlp.hs]
    return sizes[1:-1]


def _terms(product: Any, channels: int, elements: int) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    contractions = product.symmetric_contractions.contractions
    degrees = [irrep.l for _, irrep in product.symmetric_contractions.irreps_out]
    for degree, contraction in zip(degrees, contractions, strict=True):
        sizes = {}
        for order in range(1, contraction.correlation + 1):
            monomials, coupling = _symmetrised(contraction, order, degree)
            if len(monomials):
                sizes[str(order)] = {
                    "products": len(monomials),
                    "paths": coupling.shape[1],
                    "components": contraction.coupling_irreps.dim,
                    "channels": channels,
                    "elements": elements,
                }
        terms[str(degree)] = sizes
    return terms


def _readouts(network: Any, heads: int) -> list[dict[str, Any]]:
    count, out = len(network.readouts), []
    for index, readout in enumerate(network.readouts):
        name = type(readout).__name__
        _require(name in _READOUTS, f"one with the readout {name}")
        kind = _READOUTS[name]
        layer = len(network.products) - 1 if count == 1 else index
        width = 0
        if kind != "linear":
            width = _degrees(readout.hidden_irreps)[0] // heads
        out.append({"layer": layer, "kind": kind, "width": width})
    return out


# --- tensors -------------------------------------------------------------------------


def _symmetrised(
    contraction: Any, order: int, degree: int
) -> tuple[list[tuple[int, ...]], Tensor]:
    """Return products of components, and their couplings (2l + 1, paths, products).

    A product of different factors stands for all orders of them.
    """
    U = contraction.U_tensors(order)
    if degree == 0:
        U = U.unsqueeze(0)
    components = U.shape[1]
    rows, columns = [], []
    for monomial in combinations_with_replacement(range(components), order):
        total = sum(U[(slice(None), *x)] for x in sorted(set(permutations(monomial))))
        if torch.as_tensor(total).abs().max() > _TINY:
            rows.append(monomial)
            columns.append(torch.as_tensor(total))
    if not rows:
        return [], U.new_zeros(U.shape[0], U.shape[-1], 0)
    return rows, torch.stack(columns, dim=-1)


def _tensors(network: Any, model: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    heads = int(model["head_count"])
    yield from _input_tensors(network, model)
    for name in ("scale", "shift"):
        value = getattr(network.scale_shift, name).view(-1)
        yield name, value.expand(heads)
    blocks = zip(model["layers"], network.interactions, network.products, strict=True)
    for index, (layer, interaction, product) in enumerate(blocks):
        for name, tensor in _interaction_tensors(interaction, layer):
            yield f"layers.{index}.interaction.{name}", tensor
        for name, tensor in _product_tensors(product):
            yield f"layers.{index}.{name}", tensor
    for index, readout in enumerate(network.readouts):
        for name, tensor in _readout_tensors(readout, heads):
            yield f"readouts.{index}.{name}", tensor


def _input_tensors(
    network: Any, model: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """Yield what embeds elements, distances and states, and the repulsion."""
    table = network.node_embedding.linear.weight
    yield "embedding.weight", table.view(len(model["elements"]), -1)
    yield "radial.waves", network.radial_embedding.bessel_fn.bessel_weights
    if model["zbl"]:
        pairs = network.pair_repulsion_fn
        yield "repulsion.shape", torch.stack([pairs.a_exp, pairs.a_prefactor]).double()
    if model["states"]:
        joint = network.joint_embedding
        for key, tensor in joint.embedders.named_parameters():
            yield f"state.parts.{key}", tensor
        yield "state.project.weight", joint.project[0].weight
    if model["embedding_readout"]:
        first = network.embedding_readout.linear.weight
        yield (
            "first_readout.first",
            first.view(-1, int(model["head_count"])).T[..., None],
        )


def _linear(name: str, linear: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the matrices of an e3nn Linear by degree, inputs of a degree joined."""
    parts: dict[int, dict[int, Tensor]] = {}
    views = linear.weight_views(yield_instruction=True)
    for _, instruction, weight in views:
        degree = linear.irreps_in[instruction.i_in].ir.l
        parts.setdefault(degree, {})[instruction.i_in] = weight
    for number, degree in enumerate(sorted(parts)):
        rows = [parts[degree][i] for i in sorted(parts[degree])]
        yield f"{name}.weights.{number}", torch.cat(rows)


def _by_element(name: str, product: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the matrices of a product with one-hot elements, elements first."""
    views = list(product.weight_views(yield_instruction=True))
    views.sort(key=lambda x: product.irreps_in1[x[1].i_in1].ir.l)
    for number, (_, _, weight) in enumerate(views):
        yield f"{name}.weights.{number}", weight.transpose(0, 1)


def _interaction_tensors(
    block: Any, layer: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    yield from _linear("up", block.linear_up)
    for number, tensor in enumerate(_couplings(block.conv_tp)):
        yield f"convolution.coupling_{number}", tensor
    if layer["block"] == "nonlinear":
        yield from _nonlinear_tensors(block, int(layer["elements"]))
        return
    for number, part in enumerate(block.conv_tp_weights):
        yield f"radial.weights.{number}", part.weight
    yield from _linear("mix", block.linear)
    yield from _by_element("skip", block.skip_tp)
    if "density" in layer["block"]:
        for number, part in enumerate(block.density_fn):
            yield f"density.weights.{number}", part.weight


def _nonlinear_tensors(block: Any, elements: int) -> Iterator[tuple[str, Tensor]]:
    yield "source.weight", block.source_embedding.weight.view(elements, -1)
    yield "sink.weight", block.target_embedding.weight.view(elements, -1)
    for name, mlp in (("radial", block.conv_tp_weights), ("density", block.density_fn)):
        for key, tensor in mlp.net.named_parameters():
            yield f"{name}.{key}", tensor
    linears = {
        "residual": block.linear_res,
        "mix": block.linear_1,
        "last": block.linear_2,
        "skip": block.skip_tp,
    }
    for name, linear in linears.items():
        yield from _linear(name, linear)
    yield "alpha", block.alpha
    yield "beta", block.beta


def _couplings(product: Any) -> Iterator[Tensor]:
    """Yield what e3nn couples features and harmonics by, as `Convolution` has it."""
    from e3nn import o3

    buffers = {k.rpartition(".")[2]: v for k, v in product.named_buffers()}
    for x in product.instructions:
        a, b, c = (
            irreps[i].ir.l
            for irreps, i in (
                (product.irreps_in1, x.i_in1),
                (product.irreps_in2, x.i_in2),
                (product.irreps_out, x.i_out),
            )
        )
        coupling = buffers.get(f"_w3j_{a}_{b}_{c}")
        if coupling is None:
            coupling = o3.wigner_3j(a, b, c, dtype=torch.float64)
        turned = coupling.double() * x.path_weight
        yield turned.permute(1, 0, 2).reshape(2 * b + 1, -1)


def _product_tensors(product: Any) -> Iterator[tuple[str, Tensor]]:
    contractions = product.symmetric_contractions.contractions
    degrees = [irrep.l for _, irrep in product.symmetric_contractions.irreps_out]
    for degree, contraction in zip(degrees, contractions, strict=True):
        for order in range(1, contraction.correlation + 1):
            monomials, coupling = _symmetrised(contraction, order, degree)
            if not len(monomials):
                continue
            stem = f"product.terms.{degree}_{order}"
            yield f"{stem}.monomials", torch.tensor(monomials).T
            yield f"{stem}.coupling", coupling.flatten(0, 1)
            lower = contraction.correlation - order
            whole = contraction.weights_max if not lower else None
            yield (
                f"{stem}.weights",
                contraction.weights[lower - 1] if whole is None else whole,
            )
    yield from _linear("mix", product.linear)


def _readout_tensors(readout: Any, heads: int) -> Iterator[tuple[str, Tensor]]:
    if type(readout).__name__ == "LinearReadoutBlock":
        weight = readout.linear.weight.view(-1, heads)
        yield "first", weight.T.unsqueeze(-1)
        return
    width = _degrees(readout.hidden_irreps)[0] // heads
    first = readout.linear_1.weight.view(-1, heads, width)
    yield "first", first.transpose(0, 1)
    each = torch.arange(heads)
    second = readout.linear_2.weight.view(heads, width, heads)
    yield "second", second[each, :, each]
    if type(readout).__name__ == "NonLinearBiasReadoutBlock":
        middle = readout.linear_mid.weight.view(heads, width, heads, width)
        yield "middle", middle[each, :, each]
        yield "middle_bias", readout.linear_mid.bias.view(heads, width)
        yield "bias", readout.linear_2.bias.view(heads)
