"""Devices on which networks run, as campaign files and commands name them."""

from typing import Literal, TypeAlias, TypeVar

from alloop.core.errors import InputError
from alloop.core.roles import Potential

Device: TypeAlias = Literal["cpu", "cuda", "auto"]
NO_DEVICE = (
    "expected a CUDA device, torch sees none here; install a torch that is built for "
    "it, or set the device to `cpu`"
)

_Some = TypeVar("_Some", bound=Potential)


def torch_device(name: Device) -> str:
    """Return torch's name of a device; for `auto` that of a card, or else the CPU.

    Raises InputError where there is no card and one is wanted.
    """
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "auto":
        return "cpu"
    raise InputError(NO_DEVICE)


def on_device(potential: _Some, name: Device) -> _Some:
    """Return a learned potential on a device, any other one as it is.

    Raises InputError where there is no such device.
    """
    device = torch_device(name)
    if device == "cpu":  # where potentials are restored; torch may not be needed
        return potential
    from alloop.potentials.learned import LearnedPotential

    return (
        potential.on(device) if isinstance(potential, LearnedPotential) else potential
    )
