"""Guard rails, which stop a walker that leaves given limits and give the reason."""

from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import numpy as np

from alloop.core.arrays import (
    Place,
    library,
    on_host,
    segment_maxima,
    to_numpy,
    true_rows,
)
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.units import Booleans, Floats, Integers
from alloop.md.contacts import (
    WalkerPairs,
    all_pairs,
    closest_distance,
    pairs_in_cells,
    relative_distances,
    widest_distance,
)

# Generous, so that a bond that is being stretched when a piece begins is still watched;
# hydrogen bonds lie above 1.6.
_BONDED = 1.5


@dataclass(frozen=True, slots=True)
class Guards:
    """The limits at which a walker stops; None turns a guard off.

    A walker with values that are not finite is always stopped. force: largest force on
    an atom, eV/Å. contact and bond: closest approach, and the longest stretch of a bond
    of the start structure, in summed covalent radii. heat: kinetic temperature as a
    multiple of the thermostat's. surprise: as a multiple of the threshold, checked
    where frames are scored. volume: largest factor by which a cell may grow or shrink
    in a piece of MD at constant pressure. back: the candidate is the frame `back` to 2
    `back` steps before.
    """

    force: float | None = 30.0
    contact: float | None = 0.6
    bond: float | None = 2.0
    heat: float | None = 10.0
    surprise: float | None = None
    back: int = 5
    # Not in the repr, which saved states of MD in constant cells hold.
    volume: float | None = field(default=2.0, repr=False)

    def __post_init__(self) -> None:
        if self.back < 1:
            raise InputError(
                f"expected guards to look back 1 step or more, got {self.back}"
            )


@dataclass(frozen=True, slots=True)
class GuardTrip:
    """A guard that tripped: its name (the candidate's origin) and the reason."""

    guard: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class GuardGeometry:
    """The pairs of atoms that the guards of a batch check.

    bonds, owner (bonds,): the indices of pairs that are bonds, and their walkers.
    """

    pairs: WalkerPairs
    bonds: Integers
    owner: Integers
    walkers: int


@dataclass(frozen=True, slots=True, eq=False)
class GuardReadings:
    """The values that guards check, of all walkers at one step.

    batch: with their positions and cells; offsets (walkers + 1,) of the walkers' atoms;
    forces (atoms, 3); finite, heat and surprise (walkers,), heat and surprise as
    multiples of what they are compared with; growth (walkers,) of cells, or its inverse
    where they shrink, None if they stand.
    """

    batch: Batch
    offsets: Integers
    forces: Floats
    finite: Booleans
    heat: Floats
    surprise: Floats | None = None
    growth: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _GuardCheck:
    guard: str
    values: Floats
    beyond: Booleans
    phrase: str


def guard_geometry(batch: Batch, place: Place = on_host) -> GuardGeometry:
    """Return the pairs to check while these frames move, and their present bonds.

    batch: in numpy's arrays; place: where the pairs are wanted.
    """
    pairs = all_pairs(batch, place)
    near = relative_distances(pairs, place(batch.positions)) < _BONDED
    bonds = true_rows(near)
    return GuardGeometry(pairs, bonds, pairs.walker[bonds], len(batch))


def tripped_guards(
    geometry: GuardGeometry, guards: Guards, readings: GuardReadings
) -> dict[int, GuardTrip]:
    """Return the walkers whose guard trips, each with the first guard that does."""
    found: dict[int, GuardTrip] = {}
    checks = _guard_checks(geometry, guards, readings)
    if not reduce(or_, (check.beyond for check in checks)).any():
        return found
    for check in checks:
        values = to_numpy(check.values)
        for walker in np.flatnonzero(to_numpy(check.beyond)):
            reason = check.phrase.format(values[walker])
            found.setdefault(int(walker), GuardTrip(check.guard, reason))
    return found


def _guard_checks(
    geometry: GuardGeometry, guards: Guards, readings: GuardReadings
) -> list[_GuardCheck]:
    checks = [_GuardCheck("not finite", readings.heat, ~readings.finite, "not finite")]
    checks += _mechanical_checks(guards, readings)
    checks += _geometric_checks(geometry, guards, readings)
    if guards.volume is not None and readings.growth is not None:
        phrase = f"a cell {{:.2f}} times as large or small, above {guards.volume:g}"
        checks.append(_above_limit("volume", readings.growth, guards.volume, phrase))
    if guards.surprise is not None and readings.surprise is not None:
        phrase = f"surprise {{:.2f}} times the threshold, above {guards.surprise:g}"
        checks.append(
            _above_limit("surprise ceiling", readings.surprise, guards.surprise, phrase)
        )
    return checks


def _mechanical_checks(guards: Guards, readings: GuardReadings) -> list[_GuardCheck]:
    checks = []
    if guards.force is not None:
        functions = library(readings.forces)
        squares = functions.einsum("ai,ai->a", readings.forces, readings.forces)
        largest = functions.sqrt(segment_maxima(squares, readings.offsets))
        phrase = f"force {{:.1f}} eV/Å above {guards.force:g}"
        checks.append(_above_limit("force", largest, guards.force, phrase))
    if guards.heat is not None:
        phrase = f"{{:.1f}} times as hot as the thermostat, above {guards.heat:g}"
        checks.append(_above_limit("temperature", readings.heat, guards.heat, phrase))
    return checks


def _geometric_checks(
    geometry: GuardGeometry, guards: Guards, readings: GuardReadings
) -> list[_GuardCheck]:
    if guards.contact is None and guards.bond is None:
        return []
    pairs = pairs_in_cells(geometry.pairs, readings.batch)
    relative = relative_distances(pairs, readings.batch.positions)
    checks = []
    if guards.contact is not None:
        near = closest_distance(pairs, relative, geometry.walkers)
        phrase = f"atoms at {{:.2f}} of their covalent radii, below {guards.contact:g}"
        checks.append(_GuardCheck("contact", near, near < guards.contact, phrase))
    if guards.bond is not None:
        own = (geometry.bonds, geometry.owner)
        far = widest_distance(*own, relative, geometry.walkers)
        phrase = f"a bond at {{:.2f}} of its covalent radii, above {guards.bond:g}"
        checks.append(_above_limit("bond", far, guards.bond, phrase))
    return checks


def _above_limit(guard: str, values: Floats, limit: float, phrase: str) -> _GuardCheck:
    return _GuardCheck(guard, values, values > limit, phrase)
