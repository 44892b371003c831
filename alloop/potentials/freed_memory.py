"""Freed memory, which a process that makes many force calls keeps for its next use.

By itself glibc gives large pieces back to the system, and each has to be cleared page
by page when it is asked for again; Dask starts workers with
`MALLOC_TRIM_THRESHOLD_=65536`, which gives back more. A force call of thousands of
pairs then takes twice as long.
"""

import ctypes
import os
from functools import cache

_VARIABLE = "MALLOC_TRIM_THRESHOLD_"
_OF_DASK = "65536"
# Parameters of glibc's mallopt, and the bytes that they are set to: the second is the
# largest that it takes.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**28
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 2**25


@cache
def keep_freed_memory() -> None:
    """Have this process, and under Dask its children, keep freed memory.

    At most 256 MB are kept. Nothing is done where the user chose a threshold, or
    where the C library is not glibc.
    """
    if os.environ.get(_VARIABLE, _OF_DASK) != _OF_DASK:
        return
    os.environ.pop(_VARIABLE, None)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
