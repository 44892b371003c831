"""Devices on which networks run, as campaign files and commands name them, and threads.

On the CPU one force call is too small to share among cores.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limit torch to `count` threads, and restore the caller's number afterwards.

    Nothing is done where torch is not imported. Waking a team of threads for each small
    operation costs far more than the operation.
    """
    torch = sys.modules.get("torch")
    before = count if torch is None else torch.get_num_threads()
    if torch is None or before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
