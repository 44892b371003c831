"""From a checkpoint to the potential that it describes."""

from dataclasses import replace

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.storable import Storable

SCORER = "scorer/"  # what the names of a scorer's tensors begin with
_LEARNED = ("painn", "egnn", "tensornet", "gemnet", "schnet", "visnet", "chgnet")
KINDS = (*_LEARNED, "pairwise")


def inner(whole: Checkpoint) -> Checkpoint:
    """The potential's own checkpoint in that of a generation (`alloop.generation`).

    Raises InputError where there is none.
    """
    if "potential" not in whole.settings:
        raise InputError("expected an alloop model file, got tensors of another kind")
    own = {k: v for k, v in whole.tensors.items() if not k.startswith(SCORER)}
    return replace(whole, settings=whole.settings["potential"], tensors=own)


def restore(checkpoint: Checkpoint) -> Storable:
    """The potential in a checkpoint; torch is imported where it takes a network.

    Raises InputError for a kind that is not there.
    """
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
