"""Collective variables of molecules: values and gradients for a batch of walkers.

Distances, angles, torsions, coordination numbers and differences of distances, without
periodic images. Arrays are numpy's, or a device's. An angle of 0 or 180° and a torsion
of atoms in a line have no direction in which they grow: their gradients are capped, see
`Angle` and `Torsion`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from alloop.core.arrays import Place, library, on_host, segment_sums
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Booleans, Floats, Integers
from alloop.md.shapes import OpenBond, bonded_atoms, open_bonds

Unit: TypeAlias = Literal["Å", "rad", ""]
SMALLEST_SINE = 0.1  # of an angle from a line; 5.7° are rare in a bent molecule
_TINY = 1e-12  # in place of a zero that would be divided by


class CollectiveVariable(Protocol):
    """A function of the positions of a few atoms; a frozen dataclass.

    atoms: their indices in the molecule. period: of its values, 0 without one.
    """

    unit: ClassVar[Unit]
    period: ClassVar[float]

    @property
    def atoms(self) -> tuple[int, ...]:
        """The indices of the atoms in the molecule."""

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return values (rows,) and their gradients, of positions (rows, atoms, 3).

        Positions in Å; gradients (rows, atoms, 3) in the unit of the value per Å.
        """


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance of two atoms in Å."""

    atoms: tuple[int, int]
    unit: ClassVar[Unit] = "Å"
    period: ClassVar[float] = 0.0

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return distances (rows,) and gradients (rows, 2, 3)."""
        r, e = _lengths(x[:, 0] - x[:, 1])
        return r, _stacked([e, -e])


@dataclass(frozen=True, slots=True)
class DistanceDifference:
    """The first distance of three atoms less the second one, d(0, 1) - d(1, 2), in Å.

    Of a donor, its hydrogen and an acceptor it is negative before the transfer, and
    positive after it.
    """

    atoms: tuple[int, int, int]
    unit: ClassVar[Unit] = "Å"
    period: ClassVar[float] = 0.0

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return differences (rows,) and gradients (rows, 3, 3)."""
        r, e = _lengths(x[:, 0] - x[:, 1])
        s, f = _lengths(x[:, 2] - x[:, 1])
        return r - s, _stacked([e, f - e, -f])


@dataclass(frozen=True, slots=True)
class Angle:
    """The angle of three atoms in rad, with its vertex at the second one.

    The gradient is (cos θ u - v) / (r sin θ). Where sin θ is below `SMALLEST_SINE`, it
    is multiplied by sin θ over that, so that it ends at 0 at 0 and 180°.
    """

    atoms: tuple[int, int, int]
    unit: ClassVar[Unit] = "rad"
    period: ClassVar[float] = 0.0

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return angles (rows,) from 0 to π and gradients (rows, 3, 3)."""
        functions = library(x)
        r, u = _lengths(x[:, 0] - x[:, 1])
        s, v = _lengths(x[:, 2] - x[:, 1])
        cosine = _dot(u, v)
        normal = _cross(u, v)
        sine = functions.sqrt(_dot(normal, normal))
        # arccos would lose half of the digits near a line.
        angle = functions.arctan2(sine, cosine)
        cap = functions.clip(sine, SMALLEST_SINE, None)
        first = (cosine[:, None] * u - v) / (r * cap)[:, None]
        last = (cosine[:, None] * v - u) / (s * cap)[:, None]
        return angle, _stacked([first, -first - last, last])


@dataclass(frozen=True, slots=True)
class Torsion:
    """The torsion of four atoms about the middle two in rad, with IUPAC's sign.

    Its gradient grows as 1 / sin θ of the angles θ at the middle atoms. Where one of
    the sines is below `SMALLEST_SINE`, the gradient is multiplied by the square of
    their smaller one over that: at most 1 / (SMALLEST_SINE r) at an outer atom at a
    distance of r from its neighbour, and 0 in line. One factor for all atoms, so that
    a force along it turns no molecule as a whole.
    """

    atoms: tuple[int, int, int, int]
    unit: ClassVar[Unit] = "rad"
    period: ClassVar[float] = 2.0 * np.pi

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return torsions (rows,) from -π to π and gradients (rows, 4, 3).

        Blondel & Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27.
        """
        functions = library(x)
        arms = x[:, ::3] - x[:, 1:3]  # F and H of the paper, (rows, 2, 3)
        length, axis = _lengths(x[:, 1] - x[:, 2])  # of G
        normals = _cross(arms, (length[:, None] * axis)[:, None])  # A and B
        sine = -length * _dot(normals[:, 1], arms[:, 0])
        value = functions.arctan2(sine, _dot(normals[:, 0], normals[:, 1]))
        squares = _dot(normals, normals)
        # |A|² = |F|² |G|² sin²θ at the middle atom, and |B|² likewise with H.
        largest = functions.clip(_dot(arms, arms) * length[:, None] ** 2, _TINY, None)
        sines = squares / largest / SMALLEST_SINE**2
        scale = length * functions.clip(
            functions.minimum(sines[:, 0], sines[:, 1]), None, 1.0
        )
        factors = scale[:, None] / functions.clip(squares, _TINY, None)
        ends = factors[:, :, None] * normals
        along = (_dot(arms, axis[:, None]) / length[:, None])[:, :, None] * ends
        first, last = -ends[:, 0], ends[:, 1]
        middle = along[:, 1] - along[:, 0]
        return value, _stacked([first, -first - middle, middle - last, last])


@dataclass(frozen=True, slots=True)
class Coordination:
    """The number of the other atoms near the first one, without a unit.

    Σ (1 - (r / radius)^6) / (1 - (r / radius)^12), where radius is in Å: an atom at
    this distance counts one half.
    """

    atoms: tuple[int, ...]
    radius: float
    unit: ClassVar[Unit] = ""
    period: ClassVar[float] = 0.0

    def evaluate(self, x: Floats) -> tuple[Floats, Floats]:
        """Return numbers (rows,) and gradients (rows, atoms, 3)."""
        functions = library(x)
        d = x[:, 1:] - x[:, :1]
        reduced = (d * d).sum(-1) / self.radius**2
        # The ratio of polynomials, simplified: no 0/0 at the radius.
        terms = 1.0 / (1.0 + reduced**3)
        slopes = -6.0 * terms**2 * reduced**2 / self.radius**2
        near = slopes[:, :, None] * d
        gradients = functions.concatenate([-near.sum(1)[:, None], near], 1)
        return terms.sum(-1), gradients


@dataclass(frozen=True, slots=True, eq=False)
class WalkerVariables:
    """The collective variables of a batch of walkers, the same number for each.

    place brings an array to where positions and those here are kept.

    groups: kinds of variables with their rows and the shape (rows, atoms) in which
    their atoms stand in `index` (places,), the atoms of the batch. slots (rows,): where
    a row's value goes in the flat array of all values; of_places (places,): the slot of
    each place. order (places,) sorts places by their atom; touched: the atoms that
    have some, offsets: of their places. periods (walkers, variables): 0 without; used
    (walkers, variables): 1 where a walker has this variable, else 0. atom_offsets
    (walkers + 1,) of all atoms, owner (atoms,): their walkers.
    """

    groups: tuple[tuple[CollectiveVariable, slice, tuple[int, int]], ...]
    index: Integers
    slots: Integers
    of_places: Integers
    order: Integers
    touched: Integers
    offsets: Integers
    periods: Floats
    used: Floats
    atom_offsets: Integers
    owner: Integers
    place: Place

    def evaluate(self, positions: Floats) -> tuple[Floats, Floats]:
        """Return values (walkers, variables) and gradients (places, 3).

        positions (atoms, 3) in Å. A variable that a walker lacks has the value 0.
        """
        functions = library(positions)
        gathered = positions[self.index]
        values, gradients = [], []
        for variable, span, shape in self.groups:
            terms = variable.evaluate(gathered[span].reshape(*shape, 3))
            values.append(terms[0])
            gradients.append(terms[1].reshape(-1, 3))
        out = functions.zeros_like(self.used).reshape(-1)
        out[self.slots] = functions.concatenate(values)
        return out.reshape(self.used.shape), functions.concatenate(gradients)

    def forces(self, positions: Floats, gradients: Floats, slopes: Floats) -> Floats:
        """Return -Σ (dV/ds) ∇s (atoms, 3) in eV/Å.

        gradients: of `evaluate`; slopes (walkers, variables): dV/ds in eV per unit.
        """
        terms = slopes.reshape(-1)[self.of_places][:, None] * gradients
        out: Floats = library(positions).zeros_like(positions)
        # Sums of sorted rows: on a device their order is always the same.
        out[self.touched] = -segment_sums(terms[self.order], self.offsets)
        return out


def nearest_difference(difference: Floats, periods: Floats) -> Floats:
    """Return differences brought to within half a period; period 0: as they are."""
    functions = library(difference)
    # A product with the inverse, 0 where there is no period: `where` computes both of
    # its branches, and would divide by 0.
    inverse = functions.where(periods > 0.0, 1.0, 0.0)
    inverse = inverse / functions.where(periods > 0.0, periods, 1.0)
    out: Floats = difference - periods * functions.round(difference * inverse)
    return out


def walker_variables(
    batch: Batch,
    variables: Sequence[Sequence[CollectiveVariable]],
    place: Place = on_host,
) -> WalkerVariables:
    """Return the variables of a batch in numpy's arrays, those of each walker.

    place: where arrays are wanted. Raises InputError where no walker has a variable,
    where one names an atom that its walker lacks, and for periodic walkers.
    """
    if batch.pbc.any():
        raise InputError(
            "expected molecules without a cell for collective variables, got a cell"
        )
    width = max((len(row) for row in variables), default=0)
    if not width:
        raise InputError("expected a walker with a collective variable, got none")
    kinds = _rows_by_kind(batch, variables, width)
    entries = [entry for rows in kinds.values() for entry in rows]
    index = np.array([atom for atoms, _ in entries for atom in atoms])
    touched, counts = np.unique(index, return_counts=True)
    periods, used = np.zeros((2, len(batch), width))
    for walker, row in enumerate(variables):
        periods[walker, : len(row)] = [variable.period for variable in row]
        used[walker, : len(row)] = 1.0
    return WalkerVariables(
        groups=_groups(kinds),
        index=place(index),
        slots=place(np.array([slot for _, slot in entries])),
        of_places=place(np.array([slot for atoms, slot in entries for _ in atoms])),
        order=place(np.argsort(index, kind="stable")),
        touched=place(touched),
        offsets=place(np.concatenate([[0], np.cumsum(counts)])),
        periods=place(periods),
        used=place(used),
        atom_offsets=place(batch.offsets),
        owner=place(batch.frame_index),
        place=place,
    )


def _rows_by_kind(
    batch: Batch, variables: Sequence[Sequence[CollectiveVariable]], width: int
) -> dict[CollectiveVariable, list[tuple[tuple[int, ...], int]]]:
    """Return the atoms in the batch, and the slot (walker, column), of variables."""
    kinds: dict[CollectiveVariable, list[tuple[tuple[int, ...], int]]] = {}
    for walker, row in enumerate(variables):
        start, size = int(batch.offsets[walker]), int(batch.sizes[walker])
        for column, variable in enumerate(row):
            _require_atoms(variable, size)
            atoms = tuple(start + atom for atom in variable.atoms)
            slot = walker * width + column
            kinds.setdefault(_kind(variable), []).append((atoms, slot))
    return kinds


def _groups(
    kinds: Mapping[CollectiveVariable, Sequence[object]],
) -> tuple[tuple[CollectiveVariable, slice, tuple[int, int]], ...]:
    """Return each kind with its part of the index and the part's shape."""
    groups, first = [], 0
    for kind, rows in kinds.items():
        shape = (len(rows), len(kind.atoms))
        last = first + shape[0] * shape[1]
        groups.append((kind, slice(first, last), shape))
        first = last
    return tuple(groups)


_HETERO = (7, 8, 9, 15, 16, 17, 34, 35, 53)  # elements whose hydrogens are acidic
_BENT = np.radians(10.0)  # from a line: angles whose torsions are well defined


def rotatable_torsions(frame: Frame) -> tuple[Torsion, ...]:
    """Return a torsion for each bond that turns, heavy rotors first.

    Of the atoms bonded to an end the heaviest in no line with the bond is taken; a bond
    with an end that has none gives no torsion. Rotors of hydrogens alone come last,
    methyl after hydroxyl. None of a frame with a cell.
    """
    bonded = bonded_atoms(frame)
    torsions = []
    for bond in open_bonds(frame):
        if not bond.turns:
            continue
        ends = ((bond.fixed, bond.moved), (bond.moved, bond.fixed))
        outer = [_outer_atom(frame, bonded, end, other) for end, other in ends]
        if None not in outer:
            first, last = (int(atom) for atom in outer if atom is not None)
            turned = Torsion((first, bond.fixed, bond.moved, last))
            rank = (-_turned_heavy_atoms(frame, bond), int(bond.part.sum()))
            torsions.append((rank, turned))
    return tuple(turned for _, turned in sorted(torsions, key=lambda x: x[0]))


def transfer_differences(frame: Frame, reach: float) -> tuple[DistanceDifference, ...]:
    """Return a variable for each hydrogen that may go to another hetero atom.

    It is bonded to one, and the nearest other that is not bonded to this one is within
    `reach` (Å) of it. The closest comes first. None of a frame with a cell.
    """
    if any(frame.pbc):
        return ()
    x, hetero = frame.positions, np.isin(frame.numbers, _HETERO)
    bonded = bonded_atoms(frame)
    transfers = []
    for hydrogen in np.flatnonzero(frame.numbers == 1):
        partners = _neighbours(bonded, int(hydrogen))
        if len(partners) != 1 or not hetero[partners[0]]:
            continue
        donor = partners[0]
        acceptors = np.flatnonzero(hetero)
        barred = [donor, *_neighbours(bonded, donor)]
        acceptors = acceptors[~np.isin(acceptors, barred)]
        r = np.linalg.norm(x[acceptors] - x[hydrogen], axis=1)
        if len(r) and r.min() <= reach:
            atoms = (donor, int(hydrogen), int(acceptors[r.argmin()]))
            transfers.append((float(r.min()), DistanceDifference(atoms)))
    return tuple(transfer for _, transfer in sorted(transfers, key=lambda x: x[0]))


def _outer_atom(frame: Frame, bonded: Booleans, end: int, other: int) -> int | None:
    """Return the heaviest atom bonded to an end of a bond, in no line with it."""
    bent = []
    for atom in _neighbours(bonded, end):
        if atom != other:
            angle, _ = Angle((0, 1, 2)).evaluate(
                frame.positions[None, [atom, end, other]]
            )
            bent += [atom] if _BENT < angle[0] < np.pi - _BENT else []
    return max(bent, key=lambda atom: (frame.numbers[atom], -atom), default=None)


def _turned_heavy_atoms(frame: Frame, bond: OpenBond) -> int:
    """Return the number of atoms beside hydrogen that a turn of the bond moves."""
    turned = bond.part & (frame.numbers > 1)
    turned[bond.moved] = False
    return int(turned.sum())


def _neighbours(bonded: Booleans, atom: int) -> list[int]:
    return [int(other) for other in np.flatnonzero(bonded[atom])]


def _require_atoms(variable: CollectiveVariable, size: int) -> None:
    atoms = variable.atoms
    if min(atoms) < 0 or max(atoms) >= size or len(set(atoms)) < len(atoms):
        raise InputError(
            f"expected different atoms from 0 to {size - 1} for a collective variable, "
            f"got {', '.join(map(str, atoms))}"
        )


def _kind(variable: Any) -> CollectiveVariable:
    """Return the variable without its atoms: what it shares with others of its kind."""
    kind: CollectiveVariable = replace(variable, atoms=(0,) * len(variable.atoms))
    return kind


def _lengths(d: Floats) -> tuple[Floats, Floats]:
    """Return lengths (rows,) and unit vectors (rows, 3)."""
    functions = library(d)
    # Atoms in one place have no direction: their gradient is 0 then, not NaN.
    r = functions.sqrt(functions.clip(_dot(d, d), _TINY**2, None))
    return r, d / r[:, None]


def _dot(a: Floats, b: Floats) -> Floats:
    out: Floats = library(a).einsum("...i,...i->...", a, b)
    return out


def _cross(a: Floats, b: Floats) -> Floats:
    (ax, ay, az), (bx, by, bz) = ([v[..., i] for i in range(3)] for v in (a, b))
    parts = [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx]
    out: Floats = library(a).stack(parts, -1)
    return out


def _stacked(gradients: list[Floats]) -> Floats:
    out: Floats = library(gradients[0]).stack(gradients, 1)
    return out
