"""Potentials rebuilt from checkpoints."""

from dataclasses import replace

from alloop.core.errors import InputError
from alloop.core.species import Domain
from alloop.models.checkpoint import (
    Checkpoint,
    Storable,
    malformed,
    refuse_malformed,
    understood,
)
from alloop.models.settings import NETWORKS

SCORER = "scorer/"  # prefix of the names of a scorer's tensors
DOMAIN = "trained_on"  # the setting that holds the species of the training
KINDS = (*NETWORKS, "pairwise")


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
    refuse_malformed(checkpoint)
    with understood():
        potential = _restored(checkpoint)
        _refuse_changed(checkpoint, potential.checkpoint())
    return potential


def _restored(checkpoint: Checkpoint) -> Storable:
    if checkpoint.kind in NETWORKS:
        from alloop.potentials import dipoles, learned, two_heads

        if dipoles.SETTING in checkpoint.settings:
            return dipoles.dipoles_from_checkpoint(checkpoint)
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


def _refuse_changed(checkpoint: Checkpoint, restored: Checkpoint) -> None:
    """Raise InputError where a tensor was cast or reshaped to fit."""
    for name, array in checkpoint.tensors.items():
        tensor = restored.tensors.get(name)
        if tensor is None or (tensor.dtype, tensor.shape) != (array.dtype, array.shape):
            raise malformed(f"{name} is of another type or shape")
