"""From a checkpoint to the potential that it describes."""

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.potentials.storable import Storable

_LEARNED = ("painn", "egnn")


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
    kinds = ", ".join((*_LEARNED, "pairwise"))
    raise InputError(
        f"expected a potential of kind {kinds}, got {checkpoint.kind!r}; "
        "use a newer alloop"
    )
