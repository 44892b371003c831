"""Frames of a test set that are in the training data, in any orientation."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers
from alloop.intake.superposition import largest_shift, pair_distances

_Key = tuple[bytes, int, int]


def duplicate_frames(
    test: Sequence[Frame], train: Sequence[Frame], tolerance: float = 1e-3
) -> list[tuple[int, int]]:
    """Return pairs (test index, train index) of frames with the same geometry.

    Two frames are the same if their ids are equal, or if charge, spin and the atoms in
    their order are equal and all atoms are closer than `tolerance` Å after optimal
    superposition, mirror images included. Periodic frames are the same only if their
    ids are equal.
    """
    found = set(_same_ids(test, train))
    asked, known = _composition_groups(test), _composition_groups(train)
    for key in asked.keys() & known.keys():
        found.update(_same_shapes(test, train, (asked[key], known[key]), tolerance))
    return sorted(found)


def _same_ids(
    test: Sequence[Frame], train: Sequence[Frame]
) -> Iterator[tuple[int, int]]:
    places = defaultdict(list)
    for j, frame in enumerate(train):
        places[frame.id].append(j)
    for i, frame in enumerate(test):
        yield from ((i, j) for j in places.get(frame.id, ()))


def _composition_groups(frames: Sequence[Frame]) -> Mapping[_Key, list[int]]:
    groups: dict[_Key, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        if not any(frame.pbc):
            groups[frame.numbers.tobytes(), frame.charge, frame.spin].append(index)
    return groups


def _same_shapes(
    test: Sequence[Frame],
    train: Sequence[Frame],
    members: tuple[list[int], list[int]],
    tolerance: float,
) -> Iterator[tuple[int, int]]:
    asked, known = members
    pairs = _similar_pairs(
        _stacked_positions(test, asked), _stacked_positions(train, known), 2 * tolerance
    )
    for i, j in pairs:
        one, other = test[asked[i]].positions, train[known[j]].positions
        if largest_shift(one, other) < tolerance:
            yield asked[i], known[j]


def _similar_pairs(
    asked: Floats, known: Floats, width: float
) -> Iterator[tuple[int, int]]:
    """Yield index pairs of geometries whose pair distances all agree within `width`.

    If no atom moves by more than half of it, no distance can change by more. Sorting by
    the mean distance first leaves few to compare.
    """
    ours, theirs = pair_distances(asked), pair_distances(known)
    if not ours.shape[1]:
        yield from np.ndindex(len(asked), len(known))
        return
    order = np.argsort(theirs.mean(axis=1))
    means = theirs.mean(axis=1)[order]
    low = np.searchsorted(means, ours.mean(axis=1) - width, "left")
    high = np.searchsorted(means, ours.mean(axis=1) + width, "right")
    for i, window in enumerate(zip(low, high, strict=True)):
        near: Integers = order[slice(*window)]
        worst = np.abs(theirs[near] - ours[i]).max(axis=1)
        yield from ((i, int(j)) for j in near[worst <= width])


def _stacked_positions(frames: Sequence[Frame], indices: Sequence[int]) -> Floats:
    return np.stack([frames[index].positions for index in indices])
