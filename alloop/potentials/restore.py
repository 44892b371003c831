"""From a checkpoint to the potential that it describes."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint, malformed, understood
from alloop.potentials.storable import Storable

SCORER = "scorer/"  # what the names of a scorer's tensors begin with
_LEARNED = ("painn", "egnn", "tensornet", "gemnet", "schnet", "visnet", "chgnet")
KINDS = (*_LEARNED, "pairwise")
_USUAL = 1000  # no setting of a usual model is a larger whole number
_FARTHEST = 100.0  # Å: no potential sees farther


def inner(whole: Checkpoint) -> Checkpoint:
    """The potential's own checkpoint in that of a generation (`alloop.generation`).

    Raises InputError where there is none.
    """
    if not isinstance(whole.settings.get("potential"), dict):
        raise InputError("expected an alloop model file, got tensors of another kind")
    own = {k: v for k, v in whole.tensors.items() if not k.startswith(SCORER)}
    return replace(whole, settings=whole.settings["potential"], tensors=own)


def restore(checkpoint: Checkpoint) -> Storable:
    """The potential in a checkpoint; torch is imported where it takes a network.

    Raises InputError for a kind that is not there, and for settings or tensors that
    make no potential.
    """
    _refuse_malformed(checkpoint)
    with understood():
        potential = _restored(checkpoint)
        _refuse_changed(checkpoint, potential.checkpoint())
    return potential


def _restored(checkpoint: Checkpoint) -> Storable:
    if checkpoint.kind in _LEARNED:
        from alloop.potentials import learned

        return learned.from_checkpoint(checkpoint)
    if checkpoint.kind == "pairwise":
        from alloop.potentials import pairwise

        return pairwise.from_checkpoint(checkpoint)
    raise InputError(
        f"expected a potential of kind {', '.join(KINDS)}, got {checkpoint.kind!r}; "
        "use a newer alloop"
    )


def _refuse_malformed(checkpoint: Checkpoint) -> None:
    """InputError for numbers that no potential has: not finite, or sizes far beyond
    those of the tensors, which would take all memory to build."""
    tensors = checkpoint.tensors
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise malformed(f"{name} holds a number that is not finite")
    widest = max((n for array in tensors.values() for n in array.shape), default=0)
    most = max(_USUAL, len(tensors), widest)
    for key, value in _numbers(checkpoint.settings):
        if not math.isfinite(value):
            raise malformed(f"{key} is {value}")
        if isinstance(value, int) and abs(value) > most:
            raise malformed(f"{key} is {value}, its tensors are smaller")
        if key == "cutoff" and not 0.0 < value <= _FARTHEST:
            raise malformed(f"its cutoff is {value} Å")


def _numbers(settings: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """All numbers within settings, each with the name that it goes by."""
    match settings:
        case bool():
            return
        case int() | float():
            yield key, settings
        case dict():
            for name, value in settings.items():
                yield from _numbers(value, str(name))
        case list():
            for value in settings:
                yield from _numbers(value, key)


def _refuse_changed(given: Checkpoint, restored: Checkpoint) -> None:
    """InputError where a tensor was cast or reshaped to fit."""
    for name, array in given.tensors.items():
        own = restored.tensors.get(name)
        if own is None or (own.dtype, own.shape) != (array.dtype, array.shape):
            raise malformed(f"{name} is of another type or shape")
