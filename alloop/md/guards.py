"""Guard rails, which stop a walker that leaves given limits and give the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from ase.data import chemical_symbols

from alloop.core.arrays import (
    Place,
    indexed_maxima,
    indexed_minima,
    library,
    on_host,
    segment_maxima,
    to_numpy,
)
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.settings import COUNT, setting
from alloop.core.text import plural
from alloop.core.units import Booleans, Floats, Integers
from alloop.md.contacts import (
    WalkerPairs,
    all_pairs,
    closest_distance,
    pairs_in_cells,
    relative_distances,
    widest_distance,
)

# Pairs closer than this are bonds, in summed covalent radii. Generous for hydrogen and
# the second period, so that a bond that is being stretched when a piece begins is still
# watched; where an atom is heavier, contacts between molecules begin at 1.3 (halogen
# bonds such as I and N, S and S).
_LIGHT_BOND, _HEAVY_BOND = 1.5, 1.3
_HYDROGEN, _NEON = 1, 10


@dataclass(frozen=True, slots=True)
class Guards:
    """The limits at which a walker stops; None turns a guard off.

    A walker with values that are not finite is always stopped. A hydrogen is bound to
    its nearest atom, whichever that is.
    """

    force: float | None = setting(30.0, "largest force on an atom, eV/Å", gt=0)
    contact: float | None = setting(
        0.6, "closest distance of two atoms, in sums of their covalent radii", gt=0
    )
    bond: float | None = setting(
        2.0,
        "largest length of a bond that is there when a `piece` begins, in sums of "
        "covalent radii; a proton that changes its partner breaks no bond",
        gt=0,
    )
    heat: float | None = setting(
        10.0,
        "largest kinetic temperature, as a multiple of the temperature that is set",
        gt=0,
    )
    surprise: float | None = setting(
        None,
        "largest surprise of a frame, as a multiple of the threshold; off by default",
        gt=0,
    )
    volume: float | None = setting(
        2.0,
        "largest factor by which a cell grows or shrinks within a `piece`, with a "
        "`pressure`",
        gt=1,
    )
    back: int = setting(
        5,
        "steps from the frame that becomes a candidate to the stop; up to twice as "
        "many",
        **COUNT,
    )
    reactive: bool = setting(
        False,
        "whether bonds may break and form: `bond` stops no walker, and frames of each "
        "set of bonds have a share of the labels, as molecules have",
    )

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

    bonds, owner (bonds,): the indices of pairs that are bonds between other atoms than
    hydrogen, and their walkers. partners (rows,): the indices of the pairs of each
    bound hydrogen with the atoms that it may be bound to, hydrogen after hydrogen;
    offsets (hydrogens + 1,) of these rows; carriers (hydrogens,): their walkers.
    """

    pairs: WalkerPairs
    bonds: Integers
    owner: Integers
    partners: Integers
    offsets: Integers
    carriers: Integers
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
    pairs = all_pairs(batch)
    relative = relative_distances(pairs, batch.positions)
    first, second = batch.numbers[pairs.first], batch.numbers[pairs.second]
    light = np.maximum(first, second) <= _NEON
    near = relative < np.where(light, _LIGHT_BOND, _HEAVY_BOND)
    bonds = np.flatnonzero(near & (np.minimum(first, second) > _HYDROGEN))
    partners, hydrogens = _hydrogen_partners(batch, pairs, relative)
    atoms, starts = np.unique(hydrogens, return_index=True)
    return GuardGeometry(
        pairs=all_pairs(batch, place),
        bonds=place(bonds),
        owner=place(pairs.walker[bonds]),
        partners=place(partners),
        offsets=place(np.append(starts, len(partners))),
        carriers=place(batch.frame_index[atoms]),
        walkers=len(batch),
    )


def _hydrogen_partners(
    batch: Batch, pairs: WalkerPairs, relative: Floats
) -> tuple[Integers, Integers]:
    """Return the pairs of bound hydrogens with possible partners, and the hydrogens.

    Both (rows,), sorted by hydrogen. A hydrogen may be bound to any other element, and
    to hydrogen only where this is its nearest atom, as in H2: two hydrogens that leave
    a molecule together are two broken bonds.
    """
    atoms = np.concatenate([pairs.first, pairs.second])
    others = np.concatenate([pairs.second, pairs.first])
    rows = np.flatnonzero(batch.numbers[atoms] == _HYDROGEN)
    rows = rows[np.argsort(atoms[rows], kind="stable")]
    atoms, others, index = atoms[rows], others[rows], rows % len(relative)
    distances = relative[index]
    light = batch.numbers[others] == _HYDROGEN
    size = len(batch.numbers)
    nearest = indexed_minima(atoms, distances, size, np.inf)
    heavy = indexed_minima(atoms[~light], distances[~light], size, np.inf)
    molecular = (nearest < heavy)[atoms]
    chosen = (nearest < _LIGHT_BOND)[atoms] & (molecular | ~light)
    return index[chosen], atoms[chosen]


def proton_transfers(before: Sequence[Walker], after: Sequence[Walker]) -> list[str]:
    """Return a phrase for each hydrogen whose nearest other element's atom changed.

    The walkers are the same ones, before and after a piece of MD.
    """
    phrases = []
    for start, end in zip(before, after, strict=True):
        symbols = [chemical_symbols[z] for z in start.frame.numbers]
        carriers = zip(_carriers(start.frame), _carriers(end.frame), strict=True)
        hydrogens = np.flatnonzero(start.frame.numbers == _HYDROGEN)
        for hydrogen, (donor, acceptor) in zip(hydrogens, carriers, strict=True):
            if donor != acceptor:
                phrases.append(
                    f"H{hydrogen} of walker {start.index} went from "
                    f"{symbols[donor]}{donor} to {symbols[acceptor]}{acceptor}"
                )
    return phrases


def transfer_note(transfers: Sequence[str]) -> str:
    """Return a phrase with the number of proton transfers and the last one, or ""."""
    if not transfers:
        return ""
    return f"{plural(len(transfers), 'proton transfer')}, the last: {transfers[-1]}"


def _carriers(frame: Frame) -> Integers:
    """Return the nearest atom of another element to each hydrogen (hydrogens,).

    Where there is no other element, each hydrogen itself.
    """
    pairs = all_pairs(pack_frames([frame]))
    table = np.full((len(frame), len(frame)), np.inf)
    relative = relative_distances(pairs, frame.positions)
    table[pairs.first, pairs.second] = table[pairs.second, pairs.first] = relative
    light = frame.numbers == _HYDROGEN
    table[:, light] = np.inf
    nearest: Integers = np.argmin(table[light], axis=1)
    return np.flatnonzero(light) if light.all() else nearest


def tripped_guards(
    geometry: GuardGeometry, guards: Guards, readings: GuardReadings
) -> dict[int, GuardTrip]:
    """Return the walkers whose guard trips, each with the first guard that does."""
    trips: dict[int, GuardTrip] = {}
    checks = _guard_checks(geometry, guards, readings)
    if not reduce(or_, (check.beyond for check in checks)).any():
        return trips
    for check in checks:
        values = to_numpy(check.values)
        for walker in np.flatnonzero(to_numpy(check.beyond)):
            reason = check.phrase.format(values[walker])
            trips.setdefault(int(walker), GuardTrip(check.guard, reason))
    return trips


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
    limit = None if guards.reactive else guards.bond
    if guards.contact is None and limit is None:
        return []
    pairs = pairs_in_cells(geometry.pairs, readings.batch)
    relative = relative_distances(pairs, readings.batch.positions)
    checks = []
    if guards.contact is not None:
        near = closest_distance(pairs, relative, geometry.walkers)
        phrase = f"atoms at {{:.2f}} of their covalent radii, below {guards.contact:g}"
        checks.append(_GuardCheck("contact", near, near < guards.contact, phrase))
    if limit is not None:
        far = _longest_bonds(geometry, relative)
        phrase = f"a bond at {{:.2f}} of its covalent radii, above {limit:g}"
        checks.append(_above_limit("bond", far, limit, phrase))
    return checks


def _longest_bonds(geometry: GuardGeometry, relative: Floats) -> Floats:
    """Return the longest bond of each walker (walkers,), 0 without one."""
    walkers = geometry.walkers
    out = widest_distance(geometry.bonds, geometry.owner, relative, walkers)
    if not len(geometry.carriers):
        return out
    bound = -segment_maxima(-relative[geometry.partners], geometry.offsets)
    far = indexed_maxima(geometry.carriers, bound, walkers, 0.0)
    longest: Floats = library(far).maximum(out, far)
    return longest


def _above_limit(guard: str, values: Floats, limit: float, phrase: str) -> _GuardCheck:
    return _GuardCheck(guard, values, values > limit, phrase)
