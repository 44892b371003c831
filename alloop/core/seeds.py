"""Random streams by name: the same name gives the same numbers, whatever ran before."""

import hashlib

import numpy as np


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream called `name` of a campaign with this seed."""
    return np.random.Generator(np.random.PCG64(_hashed_integer(seed, name)))


def torch_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for libraries that take an integer."""
    return _hashed_integer(seed, name) & (2**63 - 1)


def name_share(seed: int, name: str) -> float:
    """Return the name's number in [0, 1), for splits that never change."""
    return (_hashed_integer(seed, name) & (2**53 - 1)) / 2**53


def _hashed_integer(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest(), "little")
