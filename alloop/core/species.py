"""The domain of a model: compositions, charges and spins that it was trained on.

A network gives an energy for any input. Energies of another charge, another spin or of
a fragment mean nothing where no such label was learned, so they are refused unless they
are asked for explicitly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import gcd
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from alloop.core.atoms import hill_formula
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Booleans

BONDED = 1.3  # summed covalent radii; hydrogen bonds lie above 1.6
_SHOWN = 5  # species in a sentence
_TELLING = 3  # atoms beside hydrogen, of which groups alone do not tell the bonds


@dataclass(frozen=True, slots=True, order=True)
class Species:
    """A composition with its charge in e and its spin (2S).

    formula: Hill's; for a cell that of the smallest unit, since cells differ in size.
    fits: True if the spin is possible with the number of electrons, which some levels
    do not require; always True for a cell, whose size is arbitrary.
    """

    formula: str
    charge: int = 0
    spin: int = 0
    periodic: bool = False
    fits: bool = True

    def __str__(self) -> str:
        cell = " in a cell" if self.periodic else ""
        return f"{self.formula}{cell} (charge {self.charge}, 2S {self.spin})"

    @property
    def state(self) -> tuple[int, int, bool]:
        """The charge, the spin and `fits`."""
        return self.charge, self.spin, self.fits


@dataclass(frozen=True, slots=True)
class Domain:
    """The species that a model was trained on."""

    species: tuple[Species, ...]

    @classmethod
    def of(cls, *batches: Batch) -> "Domain":
        """Return the domain of a model that learned from these frames."""
        kinds = {kind for batch in batches for kind in species(batch)}
        return cls(tuple(sorted(kinds)))

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> "Domain":
        """Return the domain that has these `rows`."""
        return cls(tuple(Species(*row) for row in rows))

    @property
    def rows(self) -> list[list[Any]]:
        """JSON values: formula, charge, spin, periodic, fits of each species."""
        return [[x.formula, x.charge, x.spin, x.periodic, x.fits] for x in self.species]

    def refusal(self, batch: Batch) -> str | None:
        """Return a sentence on why the model should not be used here, or None.

        A model of several molecules may be used for another molecule of their elements,
        in a state that some of them had: see `strange`.
        """
        outside = [x for x in species(batch) if not self._allowed(x)]
        if not outside:
            return None
        return (
            f"expected what the model was trained on, {_listed(self.species)}, got "
            f"{_listed(outside)}; train it on such labels first, or ask for it by name "
            "(`outside=True`, `--outside`)"
        )

    def strange(self, batch: Batch) -> str | None:
        """Return a sentence on allowed species that the model never saw, or None."""
        new = [x for x in species(batch) if x not in self.species and self._allowed(x)]
        if not new:
            return None
        return (
            f"the model was never trained on {_listed(new)}, only on other molecules "
            f"of these elements: {_listed(self.species)}"
        )

    def require(self, batch: Batch) -> None:
        """Raise InputError for frames that `refusal` refuses."""
        why = self.refusal(batch)
        if why is not None:
            raise InputError(why)

    def _allowed(self, kind: Species) -> bool:
        if kind in self.species:
            return True
        kinds = {(x.formula, x.periodic) for x in self.species}
        if len(kinds) < 2 or (kind.formula, kind.periodic) in kinds:
            return False
        return kind.state in {x.state for x in self.species}


def species(batch: Batch) -> list[Species]:
    """Return the species of a batch, each once, in order of first appearance."""
    seen: dict[bytes, Species] = {}
    states = np.stack([batch.charges, batch.spins, batch.pbc.any(axis=1)], axis=1)
    for index, span in enumerate(batch.atom_slices()):
        key = np.sort(batch.numbers[span]).tobytes() + states[index].tobytes()
        if key not in seen:
            seen[key] = _species(batch.frame(index))
    return list(dict.fromkeys(seen.values()))


def bonded_species(frame: Frame) -> str:
    """Return a name of the bonds of a molecule, as `CH·N` of HCN, `C·N + H` apart.

    The parts that bonds hold together, each by its atoms with the hydrogens that these
    carry; two frames have one name if they are the same molecules, whatever the order
    of atoms. A digest follows where other bonds would give the same words. Empty for
    a frame with a cell.
    """
    if any(frame.pbc):
        return ""
    joined = _bonds(frame)
    parts = [_part_name(frame, joined, atoms) for atoms in _parts(joined)]
    return " + ".join(sorted(parts))


def _bonds(frame: Frame) -> Booleans:
    """Return True for bonded atoms (atoms, atoms)."""
    arms = frame.positions[:, None] - frame.positions
    radii = covalent_radii[frame.numbers]
    near: Booleans = np.linalg.norm(arms, axis=2) < BONDED * (radii[:, None] + radii)
    np.fill_diagonal(near, False)
    return near


def _parts(joined: Booleans) -> list[list[int]]:
    """Return the atoms that bonds hold together, part by part."""
    left, parts = set(range(len(joined))), []
    while left:
        part, edge = set(), {min(left)}
        while edge:
            part |= edge
            edge = {int(x) for a in edge for x in np.flatnonzero(joined[a])} - part
        parts.append(sorted(part))
        left -= part
    return parts


def _part_name(frame: Frame, joined: Booleans, atoms: Sequence[int]) -> str:
    symbols = {atom: chemical_symbols[frame.numbers[atom]] for atom in atoms}
    heavy = [atom for atom in atoms if symbols[atom] != "H"]
    if not heavy:
        return f"H{len(atoms) if len(atoms) > 1 else ''}"
    words = []
    for atom in heavy:
        count = sum(symbols.get(int(x)) == "H" for x in np.flatnonzero(joined[atom]))
        words.append(f"{symbols[atom]}{'H' * bool(count)}{count if count > 1 else ''}")
    name = "·".join(sorted(words))
    return name if len(heavy) < _TELLING else f"{name} {_digest(frame, joined, atoms)}"


def _digest(frame: Frame, joined: Booleans, atoms: Sequence[int]) -> str:
    """Return four digits that tell bonds apart (Weisfeiler and Leman, 1968)."""
    marks = {atom: str(frame.numbers[atom]) for atom in atoms}
    for _ in atoms:
        around = {
            atom: ",".join(sorted(marks[int(x)] for x in np.flatnonzero(joined[atom])))
            for atom in atoms
        }
        marks = {
            atom: sha256(f"{marks[atom]}({around[atom]})".encode()).hexdigest()[:16]
            for atom in atoms
        }
    return sha256(",".join(sorted(marks.values())).encode()).hexdigest()[:4]


def _species(frame: Frame) -> Species:
    periodic = any(frame.pbc)
    electrons = int(frame.numbers.sum()) - frame.charge
    return Species(
        formula=_unit(frame) if periodic else hill_formula(frame),
        charge=frame.charge,
        spin=frame.spin,
        periodic=periodic,
        fits=periodic or (electrons - frame.spin) % 2 == 0,
    )


def _unit(frame: Frame) -> str:
    elements, counts = np.unique(frame.numbers, return_counts=True)
    counts = counts // max(gcd(*counts.tolist()), 1)
    numbers = np.repeat(elements, counts)
    return hill_formula(Frame(numbers, np.zeros((len(numbers), 3))))


def _listed(kinds: Sequence[Species]) -> str:
    shown = ", ".join(map(str, kinds[:_SHOWN]))
    more = len(kinds) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
