"""A model as named tensors: bytes that hold no code, and an identity by content.

The bytes are a safetensors file whose metadata carries one JSON header (format,
version, kind, settings, identity), so that any safetensors reader opens the tensors.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from alloop.core.batch import Batch
from alloop.core.errors import DamagedError, InputError
from alloop.core.records import Predictions
from alloop.core.text import printable

_KEY = "alloop"
_FORMAT = "alloop model"
_VERSION = 1
_FIELDS = {"format", "version", "kind", "settings", "identity"}
_TYPES = {"version": int, "kind": str, "settings": dict, "identity": str}
_LARGEST_SETTING = 1000  # no setting of an ordinary model is a larger integer
_LARGEST_CUTOFF = 100.0  # Å: no potential has a larger one
MALFORMED = (  # errors that reading a malformed file raises
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, StopIteration, TypeError, ValueError),
)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The kind, settings and tensors from which a model is rebuilt.

    kind names the program ("painn", "pairwise", ...), settings are JSON values, tensors
    are arrays by name.
    """

    kind: str
    settings: dict[str, Any]
    tensors: Mapping[str, npt.NDArray[Any]]


@runtime_checkable
class Storable(Protocol):
    """A Potential that can be stored; `alloop.potentials.restore` restores it."""

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) eV and forces (atoms, 3) eV/Å, forces = -dE/dx."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        ...


def content_id(checkpoint: Checkpoint) -> str:
    """Return 32 hexadecimal digits of the content.

    The content is kind, settings, and every tensor's name, type, shape and bytes. The
    order of keys does not matter.
    """
    digest = hashlib.sha256(_canonical_json([_FORMAT, checkpoint.kind]))
    digest.update(_canonical_json(checkpoint.settings))
    for name in sorted(checkpoint.tensors):
        array = np.asarray(checkpoint.tensors[name], order="C")
        digest.update(_canonical_json([name, array.dtype.str, list(array.shape)]))
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def checkpoint_to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the checkpoint as bytes; equal checkpoints give equal bytes."""
    import safetensors.numpy  # not by `check`, which handles no model

    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": checkpoint.kind,
        "settings": checkpoint.settings,
        "identity": content_id(checkpoint),
    }
    tensors = {
        name: np.asarray(array, order="C")
        for name, array in sorted(checkpoint.tensors.items())
    }
    # One key only: safetensors writes several in no fixed order.
    metadata = {_KEY: _canonical_json(header).decode()}
    return bytes(safetensors.numpy.save(tensors, metadata))


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    """Return the checkpoint in these bytes.

    Raises:
    ------
    InputError
        If they are not an alloop model, or one of a newer version.
    DamagedError
        If they are one, and do not match their identity.
    """
    checkpoint, stated = _read(data)
    with understood():
        intact = content_id(checkpoint) == stated
    if not intact:
        raise _damaged_error()
    return checkpoint


def content_identity(data: bytes) -> str:
    """Return the identity of the model in these bytes, computed from its content.

    Raises InputError where they are no alloop model, or one of a newer version.
    """
    with understood():
        return content_id(_read(data)[0])


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Turn what malformed settings or tensors raise into an InputError."""
    try:
        yield
    except MALFORMED as error:
        reason = printable(f"{type(error).__name__}: {error}".splitlines()[0][:200])
        raise malformed(reason) from error


def malformed(reason: str) -> InputError:
    """Return the error for a model file whose content does not make a model.

    It is meant for files whose checksum holds.
    """
    return InputError(
        f"expected a model that alloop wrote, got one that cannot be used ({reason}); "
        "export the model again"
    )


def refuse_malformed(checkpoint: Checkpoint) -> None:
    """Raise InputError for numbers that no potential has.

    These are numbers that are not finite, and sizes far beyond those of the tensors,
    which would take all memory to build.
    """
    tensors = checkpoint.tensors
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise malformed(f"{name} holds a number that is not finite")
    widest = max((n for array in tensors.values() for n in array.shape), default=0)
    limit = max(_LARGEST_SETTING, len(tensors), widest)
    for key, value in _leaves(checkpoint.settings):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not math.isfinite(value):
            raise malformed(f"{key} is {value}")
        if number and isinstance(value, int) and abs(value) > limit:
            raise malformed(f"{key} is {value}, its tensors are smaller")
        if key == "cutoff" and not (number and 0.0 < value <= _LARGEST_CUTOFF):
            raise malformed(f"its cutoff is {value!r} Å")


def _leaves(settings: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all plain values within settings, each with its key."""
    if isinstance(settings, dict) and settings:
        for name, value in settings.items():
            yield from _leaves(value, str(name))
    elif isinstance(settings, list) and settings:
        for value in settings:
            yield from _leaves(value, key)
    else:
        yield key, settings


def _read(data: bytes) -> tuple[Checkpoint, str]:
    """Return the checkpoint, unverified, and the identity that the file states."""
    import safetensors.numpy

    header = _read_header(data)
    if header["version"] > _VERSION:
        raise InputError(
            f"expected a model file of version {_VERSION} or older, got version "
            f"{header['version']}; use a newer alloop"
        )
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, *MALFORMED) as error:
        raise _damaged_error() from error
    return Checkpoint(header["kind"], header["settings"], tensors), header["identity"]


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        header = json.loads(metadata[_KEY])
        complete = isinstance(header, dict) and _FIELDS.issubset(header)
    except MALFORMED as error:
        raise InputError(
            "expected an alloop model file, got something else; "
            "`alloop export --model FILE` writes one"
        ) from error
    if not (complete and all(isinstance(header[k], t) for k, t in _TYPES.items())):
        raise _damaged_error()
    return dict(header)


def _damaged_error() -> DamagedError:
    return DamagedError(
        "expected a whole alloop model file, got one that does not match its checksum; "
        "export the model again"
    )


def _canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
