"""A limit on torch's threads: one force call is too small to share among cores."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
