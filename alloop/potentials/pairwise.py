"""A potential of pair functions, linear in its coefficients and quick to fit.

E = Σ_Z n_Z e_Z + Σ_{i<j} Σ_k c_{ZZ',k} φ_k(r_ij), where φ_k is a Bessel function under
an envelope that ends with two continuous derivatives at the cutoff: the radial
functions of `alloop.models.layers`, without torch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alloop.core.batch import Batch
from alloop.core.records import Predictions
from alloop.core.stress import stress_from_virial, voigt
from alloop.core.units import Floats, Integers
from alloop.models.checkpoint import Checkpoint
from alloop.models.neighbours import neighbour_pairs
from alloop.potentials.element_table import ElementTable


class DesignMatrix(NamedTuple):
    """The matrices that map coefficients (size,) to energies in eV and forces in eV/Å.

    energies (frames, size) and forces (atoms, 3, size); virials (frames, 6, size): of
    dE/dstrain in eV, in Voigt's order.
    """

    energies: Floats
    forces: Floats
    virials: Floats


class _PairFunctions(NamedTuple):
    """Ordered pairs within the cutoff, with functions; every pair comes both ways."""

    centre: Integers  # (pairs,) atoms
    neighbour: Integers  # (pairs,) columns of the neighbour's element
    couple: Integers  # (pairs,) columns of the unordered pair of elements
    unit: Floats  # (pairs, 3) from centre to neighbour
    r: Floats  # (pairs,) Å
    phi: Floats  # (pairs, radial)
    slope: Floats  # dφ/dr (pairs, radial) 1/Å


@dataclass(frozen=True, slots=True)
class PairBasis:
    """The functions of a pair potential.

    elements: ascending atomic numbers. The coefficients are e_Z for each element, then
    `radial` numbers for each pair of elements (Z ≤ Z', in the order of
    `element_pairs`).
    """

    elements: tuple[int, ...]
    radial: int = 12
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        elements = ElementTable(dict.fromkeys(self.elements, 0.0)).values
        if self.elements != tuple(elements) or self.radial < 1:
            raise ValueError(
                f"expected ascending elements and radial functions, got {self}"
            )

    @property
    def element_pairs(self) -> tuple[tuple[int, int], ...]:
        """Unordered pairs of elements."""
        return tuple((a, b) for a in self.elements for b in self.elements if a <= b)

    @property
    def size(self) -> int:
        """The number of coefficients."""
        return len(self.elements) + len(self.element_pairs) * self.radial

    def radial_functions(self, r: Floats) -> tuple[Floats, Floats]:
        """Return φ and dφ/dr at r (pairs,) in Å, both (pairs, radial)."""
        a = np.arange(1, self.radial + 1) * np.pi / self.cutoff  # (radial,) 1/Å
        r = r[:, None]
        b = np.sin(a * r) / r  # Bessel, (pairs, radial)
        db = (a * np.cos(a * r) - b) / r
        x = r / self.cutoff
        u = (1 - x) ** 3 * (1 + 3 * x + 6 * x**2)  # envelope, (pairs, 1)
        du = -30 * x**2 * (1 - x) ** 2 / self.cutoff
        return b * u, db * u + b * du

    def element_columns(self, batch: Batch) -> Integers:
        """Return the index in `elements` of each atom's element, (atoms,).

        Raises InputError for an element that the basis lacks.
        """
        table = ElementTable({z: i for i, z in enumerate(self.elements)})
        out: Integers = table.per_atom(batch).astype(np.int64)
        return out

    def design_matrix(self, batch: Batch) -> DesignMatrix:
        """Return the rows of the least-squares problem that a trainer solves."""
        column = self.element_columns(batch)
        bonds = self.pair_functions(batch, column)
        first = len(self.elements)
        columns = first + bonds.couple[:, None] * self.radial + np.arange(self.radial)
        frame = batch.frame_index[bonds.centre][:, None]
        energies = _indexed_sums(
            (len(batch), self.size), (frame, columns), bonds.phi / 2
        )
        energies += _indexed_sums(
            (len(batch), self.size), (batch.frame_index, column), 1.0
        )
        axis = 3 * bonds.centre[:, None, None] + np.arange(3)[:, None]
        forces = _indexed_sums(
            (3 * len(batch.numbers), self.size),
            (axis, columns[:, None, :]),
            bonds.unit[:, :, None] * bonds.slope[:, None, :],
        )
        outer = voigt(bonds.unit[:, :, None] * bonds.unit[:, None, :])  # (pairs, 6)
        places = 6 * frame[:, :, None] + np.arange(6)[:, None]
        virials = _indexed_sums(
            (6 * len(batch), self.size),
            (places, columns[:, None, :]),
            outer[:, :, None] * (bonds.r[:, None] * bonds.slope / 2)[:, None, :],
        )
        return DesignMatrix(
            energies,
            forces.reshape(-1, 3, self.size),
            virials.reshape(-1, 6, self.size),
        )

    def pair_functions(self, batch: Batch, column: Integers) -> _PairFunctions:
        """Return the pairs within the cutoff and their functions.

        column is the result of `element_columns`.
        """
        pairs = neighbour_pairs(batch, self.cutoff)
        i, j = pairs.centres, pairs.neighbours
        apart = batch.positions[j] + pairs.shifts - batch.positions[i]  # (pairs, 3) Å
        r = np.sqrt(np.einsum("pd,pd->p", apart, apart))
        near = r < self.cutoff
        i, j, r = i[near], j[near], r[near]
        low, high = np.minimum(column[i], column[j]), np.maximum(column[i], column[j])
        n = len(self.elements)
        couple = low * n - low * (low - 1) // 2 + high - low  # row-major upper triangle
        unit = apart[near] / r[:, None]
        phi, slope = self.radial_functions(r)
        return _PairFunctions(
            centre=i,
            neighbour=column[j],
            couple=couple,
            unit=unit,
            r=r,
            phi=phi,
            slope=slope,
        )


class PairwisePotential:
    """A pair potential with its coefficients (size,) in eV."""

    def __init__(self, basis: PairBasis, coefficients: Floats) -> None:
        self.basis = basis
        self.coefficients: Floats = np.array(coefficients, dtype=np.float64)
        if self.coefficients.shape != (basis.size,):
            raise ValueError(
                f"expected {basis.size} coefficients, got {self.coefficients.shape}"
            )
        self._radial = self.coefficients[len(basis.elements) :].reshape(
            -1, basis.radial
        )  # (couples, radial)

    @property
    def cutoff(self) -> float:
        """The distance in Å beyond which atoms do not interact."""
        return self.basis.cutoff

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å) and the stress of cells (eV/Å³).

        Descriptors are an atom's sums of φ_k for each element of its neighbours,
        (atoms, elements * radial). Raises InputError for an element that the basis
        lacks.
        """
        column = self.basis.element_columns(batch)
        bonds = self.basis.pair_functions(batch, column)
        c = self._radial[bonds.couple]  # (pairs, radial)
        pull = np.einsum("pk,pk->p", c, bonds.slope)  # dE/dr (pairs,) eV/Å
        atoms, per_atom = len(batch.numbers), self._atom_energies(bonds, column)
        return Predictions(
            energies=_indexed_sums((len(batch),), (batch.frame_index,), per_atom),
            forces=_indexed_sums(
                (atoms, 3),
                (bonds.centre[:, None], np.arange(3)),
                pull[:, None] * bonds.unit,
            ),
            descriptors=self._descriptors(bonds, atoms) if descriptors else None,
            stress=_pair_stress(batch, bonds, pull) if batch.pbc.any() else None,
        )

    def atom_energies(self, batch: Batch) -> Floats:
        """Return the energy of each atom (atoms,) in eV; a frame's sum to its energy.

        Raises InputError for an element that the basis lacks.
        """
        column = self.basis.element_columns(batch)
        return self._atom_energies(self.basis.pair_functions(batch, column), column)

    def checkpoint(self) -> Checkpoint:
        """Return the settings and tensors that rebuild this potential exactly."""
        basis = self.basis
        settings = {
            "elements": list(basis.elements),
            "radial": basis.radial,
            "cutoff": basis.cutoff,
        }
        return Checkpoint("pairwise", settings, {"coefficients": self.coefficients})

    def _atom_energies(self, bonds: _PairFunctions, column: Integers) -> Floats:
        c = self._radial[bonds.couple]  # (pairs, radial)
        halves = np.einsum("pk,pk->p", c, bonds.phi) / 2
        sums = _indexed_sums((len(column),), (bonds.centre,), halves)
        out: Floats = self.coefficients[column] + sums
        return out

    def _descriptors(self, bonds: _PairFunctions, atoms: int) -> Floats:
        radial, elements = self.basis.radial, len(self.basis.elements)
        columns = bonds.neighbour[:, None] * radial + np.arange(radial)
        index = (bonds.centre[:, None], columns)
        return _indexed_sums((atoms, elements * radial), index, bonds.phi)


def from_checkpoint(checkpoint: Checkpoint) -> PairwisePotential:
    """Return the potential that `PairwisePotential.checkpoint` described."""
    settings = checkpoint.settings
    basis = PairBasis(
        tuple(settings["elements"]), settings["radial"], settings["cutoff"]
    )
    return PairwisePotential(basis, checkpoint.tensors["coefficients"])


def _pair_stress(batch: Batch, bonds: _PairFunctions, pull: Floats) -> Floats:
    """Return the stress (frames, 6) in eV/Å³; pull is dE/dr (pairs,) in eV/Å."""
    outer = bonds.unit[:, :, None] * bonds.unit[:, None, :]
    virial = (pull * bonds.r / 2)[:, None, None] * outer
    owner = batch.frame_index[bonds.centre][:, None, None]
    index = (owner, np.arange(3)[:, None], np.arange(3))
    return stress_from_virial(batch, _indexed_sums((len(batch), 3, 3), index, virial))


def _indexed_sums(
    shape: tuple[int, ...], index: tuple[Integers, ...], values: Floats | float
) -> Floats:
    """Return zeros of this shape with the values added at the index.

    All arguments are broadcast.
    """
    *places, weights = np.broadcast_arrays(*index, values)
    flat = np.ravel_multi_index(tuple(places), shape).ravel()
    size = int(np.prod(shape))
    sums = np.bincount(flat, weights.ravel(), minlength=size)
    return np.asarray(sums, dtype=np.float64).reshape(shape)
