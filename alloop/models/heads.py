"""The parts of a network: its representation, and the head that a level has for itself.

As in the programs of Kreiman & Krishnapriyan, Digital Discovery 2026, 5, 415: the head
is the last layer of messages with its output, the beginning is the embedding of the
elements and the first layer. What lies between belongs to the representation too.
"""

from alloop.core.errors import InputError
from alloop.models.layers import Network
from alloop.models.settings import HEADED


def head_names(network: Network) -> frozenset[str]:
    """Return the names of the parameters of the head.

    Raises InputError for networks of other kinds than `HEADED`.
    """
    layers = _layers(network)
    last = layers - 1
    if network.kind in ("painn", "tensor-painn"):
        parts = [f"messages.{last}.", f"updates.{last}."] if last else []
        return _named(network, (*parts, "readout."))
    parts = [f"blocks.{last}."] if last else []
    return _named(network, (*parts, f"outs.{layers}.", f"energies.{layers}."))


def beginning_names(network: Network) -> frozenset[str]:
    """Return the names of the parameters of the beginning, which no head shares.

    Raises InputError for networks of other kinds than `HEADED`.
    """
    _layers(network)
    if network.kind in ("painn", "tensor-painn"):
        return _named(
            network, ("embedding.", "messages.0.", "updates.0.")
        ) - head_names(network)
    parts = ("elements.", "start.", "blocks.0.", "outs.0.", "energies.0.")
    return _named(network, parts) - head_names(network)


def free_only(network: Network, names: frozenset[str]) -> Network:
    """Leave only these parameters free to be trained, in place; return the network."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(name in names)
    return network


def _layers(network: Network) -> int:
    if network.kind not in HEADED:
        raise InputError(
            f"expected a network of kind {' or '.join(HEADED)} for two heads, got "
            f"{network.kind}; set `potential: {{kind: tensor-painn}}`"
        )
    return int(network.settings["layers"])


def _named(network: Network, parts: tuple[str, ...]) -> frozenset[str]:
    names = (name for name, _ in network.named_parameters())
    return frozenset(name for name in names if name.startswith(parts))
