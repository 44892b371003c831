"""A model as named tensors: bytes that hold no code, and an identity by content.

The bytes are a safetensors file whose metadata carries one JSON header (format,
version, kind, settings, identity), so that any safetensors reader opens the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors import numpy as safetensors_numpy

from alloop.core.errors import DamagedError, InputError

_KEY = "alloop"
_FORMAT = "alloop model"
_VERSION = 1
_FIELDS = {"format", "version", "kind", "settings", "identity"}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What it takes to build a model again.

    kind names the program ("painn", "pairwise", ...), settings are JSON values, tensors
    are arrays by name.
    """

    kind: str
    settings: dict[str, Any]
    tensors: Mapping[str, npt.NDArray[Any]]


def identity(checkpoint: Checkpoint) -> str:
    """32 hexadecimal digits of the content: kind, settings, and every tensor's name,
    type, shape and bytes. The order of keys does not matter."""
    digest = hashlib.sha256(_canonical([_FORMAT, checkpoint.kind]))
    digest.update(_canonical(checkpoint.settings))
    for name in sorted(checkpoint.tensors):
        array = np.asarray(checkpoint.tensors[name], order="C")
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def dumps(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as bytes; equal checkpoints give equal bytes."""
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": checkpoint.kind,
        "settings": checkpoint.settings,
        "identity": identity(checkpoint),
    }
    tensors = {
        name: np.asarray(array, order="C")
        for name, array in sorted(checkpoint.tensors.items())
    }
    # One key only: safetensors writes several in no fixed order.
    metadata = {_KEY: _canonical(header).decode()}
    return bytes(safetensors_numpy.save(tensors, metadata))


def loads(data: bytes) -> Checkpoint:
    """The checkpoint in these bytes.

    Raises
    ------
    InputError
        They are not a model of ours, or one of a newer version.
    DamagedError
        They are one, and do not match their identity.
    """
    header = _header(data)
    if header["version"] > _VERSION:
        raise InputError(
            f"expected a model file of version {_VERSION} or older, got version "
            f"{header['version']}; use a newer alloop"
        )
    try:
        tensors = safetensors_numpy.load(data)
    except safetensors.SafetensorError as error:
        raise _damaged() from error
    checkpoint = Checkpoint(header["kind"], header["settings"], tensors)
    if identity(checkpoint) != header["identity"]:
        raise _damaged()
    return checkpoint


def _header(data: bytes) -> dict[str, Any]:
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        header = json.loads(metadata[_KEY])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "expected an alloop model file, got something else; "
            "`alloop export --model FILE` writes one"
        ) from error
    if not _FIELDS.issubset(header):
        raise _damaged()
    return dict(header)


def _damaged() -> DamagedError:
    return DamagedError(
        "expected a whole alloop model file, got one that does not match its checksum; "
        "export the model again"
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
