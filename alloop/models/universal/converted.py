"""Files of universal potentials that `alloop convert` made, opened as numbers."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.core.text import printable
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    content_id,
    malformed,
    refuse_malformed,
    understood,
)

ENDING = ".alloop"
FOREIGN = (".model", ".pt", ".pth", ".cpt")  # files of torch, which are pickles
BLOCKS = ("plain", "residual", "density", "density-residual", "nonlinear")
READOUTS = {"linear", "hidden", "biased"}
TRANSFORMS = ("none", "agnesi", "soft")  # of distances
CONNECTIONS = ("linear", "elements")  # of an atom with itself
ENVELOPES = ("xplor", "polynomial")
ORDERS = {1, 2, 3, 4}  # of products of components
HEAVIEST = 118
DEGREES = 4  # the highest degree of spherical harmonics
TITLES = {"mace": "MACE", "sevennet": "SevenNet"}  # by kind of network


def read_converted(path: str | Path, identity: str = "", kind: str = "") -> Checkpoint:
    """Return description (as settings) and tensors of a converted file.

    identity: that of its content, "" for any; kind: that of its network, "" for any.

    Raises InputError, in one sentence, for a file that is missing, is still a pickle,
    or holds anything else.
    """
    file = Path(path)
    if not str(path):
        raise InputError(
            "expected `path:` of a converted file, got none; "
            "`alloop convert FILE.model --out FILE.alloop` makes one"
        )
    if file.suffix in FOREIGN:
        raise InputError(
            f"expected a converted file, got {path}, which is a pickle that alloop "
            f"does not open here; run `alloop convert {path} --out "
            f"{file.with_suffix(ENDING)}` once, and name that file"
        )
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(
            f"expected a converted file at {path} ({error.strerror}); `alloop convert "
            "FILE.model --out FILE.alloop` makes one"
        ) from error
    checkpoint, content = _read(os.fspath(file), status.st_mtime_ns, status.st_size)
    if identity not in ("", content):
        raise InputError(
            f"expected the file that this work began with at {path}, its content is "
            "another now; put that file back"
        )
    if kind not in ("", checkpoint.kind):
        raise InputError(
            f"expected a converted file of {TITLES[kind]}, {path} is one of "
            f"{TITLES[checkpoint.kind]}; write `kind: {checkpoint.kind}`"
        )
    return checkpoint


def identity_of(path: str | Path) -> str:
    """Return the identity of a converted file's content; errors are the same."""
    read_converted(path)
    status = Path(path).stat()
    return _read(os.fspath(path), status.st_mtime_ns, status.st_size)[1]


@lru_cache(maxsize=2)
def _read(path: str, _changed: int, _size: int) -> tuple[Checkpoint, str]:
    try:
        checkpoint = checkpoint_from_bytes(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"expected a file that can be read at {path} ({error.strerror})"
        ) from error
    with understood():
        network = checkpoint.settings["potential"]["network"]
        description = network.get("model")
        if checkpoint.kind not in TITLES or not isinstance(description, dict):
            raise malformed("it is no converted model")
        refuse_malformed(checkpoint)
        check_description(checkpoint.kind, description)
    described = Checkpoint(checkpoint.kind, description, checkpoint.tensors)
    return described, content_id(checkpoint)


def check_description(kind: str, model: Mapping[str, Any]) -> None:
    """Raise ValueError for degrees, elements or heads that no such network has."""
    if kind == "mace":
        _check_mace(model)
    else:
        _check_sevennet(model)
    elements, heads = model["elements"], model["heads"]
    if not all(type(z) is int and 0 < z <= HEAVIEST for z in elements):
        raise ValueError("an element is out of range")
    if len(set(heads)) != len(heads) or not all(isinstance(x, str) for x in heads):
        raise ValueError("heads are not different names")
    if any(len(model["references"][head]) != len(elements) for head in heads):
        raise ValueError("energies of atoms do not fit its elements")


def _check_mace(model: Mapping[str, Any]) -> None:
    for layer in model["layers"]:
        _check_layer(layer)
    if {x["kind"] for x in model["readouts"]} - READOUTS:
        raise ValueError("a readout is of another kind")
    if model["transform"] not in TRANSFORMS:
        raise ValueError("a transformation is of another kind")


def _check_sevennet(model: Mapping[str, Any]) -> None:
    for layer in model["layers"]:
        _check_degrees(
            [x for path in layer["paths"] for x in path]
            + [int(x) for side in ("inside", "outside") for x in layer[side]]
        )
        if layer["connection"] not in CONNECTIONS:
            raise ValueError("a connection is of another kind")
    if model["envelope"]["kind"] not in ENVELOPES:
        raise ValueError("an envelope is of another kind")


def _check_degrees(degrees: Sequence[Any]) -> None:
    if not all(type(x) is int and 0 <= x <= DEGREES for x in degrees):
        raise ValueError("a degree is out of range")


def _check_layer(layer: Mapping[str, Any]) -> None:
    degrees = [x for path in layer["paths"] for x in path]
    degrees += [*layer["inside"], *layer["outside"], *layer["target"]]
    _check_degrees(degrees + [int(x) for x in layer["terms"]])
    orders = {int(order) for terms in layer["terms"].values() for order in terms}
    if orders - ORDERS:
        raise ValueError("an order of products is out of range")
    if layer["block"] not in BLOCKS:
        raise ValueError("a block is of another kind")


def converted_checkpoint(
    kind: str, model: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Checkpoint:
    """Return the checkpoint of a potential: a checked description, and its arrays."""
    check_description(kind, model)
    energies = model["references"][model["heads"][0]]
    by_element = zip(model["elements"], energies, strict=True)
    settings = {
        "network": {"path": "", "head": "", "freeze": "nothing", "model": model},
        "scale": 1.0,
        "references": {str(z): energy for z, energy in by_element},
    }
    return Checkpoint(kind, settings, arrays)


def chosen_head(model: Mapping[str, Any], head: str) -> str:
    """Return the name of the head; InputError with the list where there are several."""
    heads: list[str] = model["heads"]
    if head in heads:
        return head
    if not head and len(heads) == 1:
        return heads[0]
    got = repr(head) if head else "none"
    raise InputError(
        f"expected `head:` to name one of the model's heads ({', '.join(heads)}), got "
        f"{got}"
    )


def licence_text(settings: Mapping[str, Any]) -> str | None:
    """Return the licence of the weights that a network began with, None if not stated.

    settings: those of the network, as in model files.
    """
    model = settings.get("model")
    licence = model.get("licence") if isinstance(model, dict) else None
    if not isinstance(licence, dict):
        return None
    name = printable(str(licence.get("name")))
    forbids = ", which forbids commercial use" if licence.get("non_commercial") else ""
    return f"{name}{forbids}"
