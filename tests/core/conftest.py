"""Frames of every kind."""

import numpy as np
from hypothesis import strategies as st

from alloop.core.frame import Frame

_COORDINATES = st.floats(-20, 20, allow_nan=False, width=64)


@st.composite
def frames(draw, least=1):
    """A frame of up to five atoms, charged, open-shell or periodic as it may be."""
    size = draw(st.integers(least, 5))
    flat = draw(st.lists(_COORDINATES, min_size=3 * size, max_size=3 * size))
    numbers = draw(st.lists(st.integers(1, 86), min_size=size, max_size=size))
    periodic = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    return Frame(
        numbers=np.array(numbers, dtype=np.int64),
        positions=np.array(flat).reshape(size, 3),
        charge=draw(st.integers(-3, 3)),
        spin=draw(st.integers(0, 4)),
        cell=np.eye(3) * draw(st.floats(1, 30)) if any(periodic) else np.zeros((3, 3)),
        pbc=periodic,
    )
