"""Functions for arrays of numpy and for tensors on a device, written once for both.

torch gives most functions numpy's names; `library` tells whose to call. The others are
here. Nothing imports torch: where there is a tensor, somebody has.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

AnyArray: TypeAlias = npt.NDArray[Any]
Place: TypeAlias = Callable[[AnyArray], Any]  # numpy's array to where others are kept


def on_host(array: AnyArray) -> AnyArray:
    """Return numpy's array itself: the `Place` of computations on this machine."""
    return array


def is_numpy(array: Any) -> bool:
    """Return True for an array of numpy."""
    return isinstance(array, np.ndarray)


def library(array: Any) -> Any:
    """Return the module whose functions take this array: numpy, or torch."""
    return np if isinstance(array, np.ndarray) else sys.modules[type(array).__module__]


def to_numpy(array: Any) -> AnyArray:
    """Return an array as numpy's; a tensor is copied from its device."""
    out: AnyArray = array if isinstance(array, np.ndarray) else array.cpu().numpy()
    return out


def array_like(values: AnyArray, array: Any) -> Any:
    """Return numpy's values as an array of the other one's kind, on its device."""
    if isinstance(array, np.ndarray):
        return values
    return library(array).as_tensor(values, device=array.device)


def true_rows(chosen: Any) -> Any:
    """Return the indices at which an array (rows,) is True."""
    if isinstance(chosen, np.ndarray):
        return np.flatnonzero(chosen)
    return chosen.nonzero()[:, 0]


def indexed_sums(index: Any, values: Any, size: int) -> Any:
    """Return the sums of values (rows, ...) with the same index: (size, ...)."""
    shape = (size, *values.shape[1:])
    if isinstance(values, np.ndarray):
        out = np.zeros(shape)
        np.add.at(out, index, values)
        return out
    return values.new_zeros(shape).index_add(0, index, values)


def segment_sums(values: Any, offsets: Any) -> Any:
    """Sum rows (rows, ...) between offsets (segments + 1,): (segments, ...).

    No segment is empty. On a device the order of a sum is always the same too.
    """
    if isinstance(values, np.ndarray):
        return np.add.reduceat(values, offsets[:-1], axis=0)
    torch = library(values)
    return torch.segment_reduce(values, "sum", offsets=offsets, unsafe=True)


def segment_maxima(values: Any, offsets: Any) -> Any:
    """Return the largest of values (rows,) between offsets: (segments,).

    No segment is empty.
    """
    if isinstance(values, np.ndarray):
        return np.maximum.reduceat(values, offsets[:-1])
    torch = library(values)
    return torch.segment_reduce(values, "max", offsets=offsets, unsafe=True)


def indexed_minima(index: Any, values: Any, size: int, largest: float) -> Any:
    """Return the smallest of values (rows,) with the same index: (size,).

    No result is above `largest`, which stands where there are no values.
    """
    if isinstance(values, np.ndarray):
        out = np.full(size, largest)
        np.minimum.at(out, index, values)
        return out
    return values.new_full((size,), largest).scatter_reduce(0, index, values, "amin")


def indexed_maxima(index: Any, values: Any, size: int, smallest: float) -> Any:
    """Return the largest of values (rows,) with the same index: (size,).

    No result is below `smallest`, which stands where there are no values.
    """
    return -indexed_minima(index, -values, size, -smallest)
