"""Potentials rebuilt from checkpoints."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.species import Domain
from alloop.models.checkpoint import Checkpoint, Storable, malformed, understood
from alloop.models.settings import NETWORKS

SCORER = "scorer/"  # prefix of the names of a scorer's tensors
DOMAIN = "trained_on"  # the setting that holds the species of the training
KINDS = (*NETWORKS, "pairwise")
_LARGEST_SETTING = 1000  # no setting of an ordinary model is a larger integer
_LARGEST_CUTOFF = 100.0  # Å: no potential has a larger one


def inner_checkpoint(generation: Checkpoint) -> Checkpoint:
    """Return the potential's own checkpoint from a generation's (`alloop.generation`).

    Raises InputError where there is none.
    """
    if not isinstance(generation.settings.get("potential"), dict):
        raise InputError("expected an alloop model file, got tensors of another kind")
    tensors = {k: v for k, v in generation.tensors.items() if not k.startswith(SCORER)}
    return replace(
        generation, settings=generation.settings["potential"], tensors=tensors
    )


def domain(generation: Checkpoint) -> Domain | None:
    """Return the domain that a generation's model was trained on, None if not stated.

    Raises InputError where it is malformed.
    """
    rows = generation.settings.get(DOMAIN)
    with understood():
        return None if rows is None else Domain.from_rows(rows)


def restore_potential(checkpoint: Checkpoint) -> Storable:
    """Return the potential in a checkpoint; torch is imported only for a network.

    Raises InputError for an unknown kind, and for settings or tensors that make no
    potential.
    """
    _refuse_malformed(checkpoint)
    with understood():
        potential = _restored(checkpoint)
        _refuse_changed(checkpoint, potential.checkpoint())
    return potential


def _restored(checkpoint: Checkpoint) -> Storable:
    if checkpoint.kind in NETWORKS:
        from alloop.potentials import learned, two_heads

        if two_heads.SETTING in checkpoint.settings:
            return two_heads.two_heads_from_checkpoint(checkpoint)
        return learned.from_checkpoint(checkpoint)
    if checkpoint.kind == "pairwise":
        from alloop.potentials import pairwise

        return pairwise.from_checkpoint(checkpoint)
    raise InputError(
        f"expected a potential of kind {', '.join(KINDS)}, got {checkpoint.kind!r}; "
        "use a newer alloop"
    )


def _refuse_malformed(checkpoint: Checkpoint) -> None:
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


def _refuse_changed(checkpoint: Checkpoint, restored: Checkpoint) -> None:
    """Raise InputError where a tensor was cast or reshaped to fit."""
    for name, array in checkpoint.tensors.items():
        tensor = restored.tensors.get(name)
        if tensor is None or (tensor.dtype, tensor.shape) != (array.dtype, array.shape):
            raise malformed(f"{name} is of another type or shape")
