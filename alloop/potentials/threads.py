"""Threads of torch: a molecule's force call is too small to be shared among cores."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Hold torch to so many threads, where it is imported, and give back the caller's.

    Waking a team of threads for each small operation costs far more than the operation.
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
