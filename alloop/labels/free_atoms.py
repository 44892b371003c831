"""Energies of free atoms at a level of theory, as references for a training."""

from collections.abc import Iterable

import numpy as np
from ase.data import ground_state_magnetic_moments

from alloop.core.atoms import chemical_symbol
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Unlabelled
from alloop.core.roles import Labeller


def free_atom(number: int) -> Frame:
    """Return the neutral atom with the spin (2S) of its ground state in ASE's table.

    Raises InputError if that spin is not known.
    """
    moments = ground_state_magnetic_moments
    moment = moments[number] if number < len(moments) else np.nan
    if not np.isfinite(moment):
        raise InputError(
            f"the ground state's spin of {chemical_symbol(number)} is not known"
        )
    return Frame(np.array([number]), np.zeros((1, 3)), spin=round(moment))


def free_atom_energies(labeller: Labeller, numbers: Iterable[int]) -> dict[str, float]:
    """Return energies in eV by chemical symbol; InputError if an atom gets no label."""
    energies: dict[str, float] = {}
    for number in sorted(set(numbers)):
        label = labeller.label(free_atom(number))
        if isinstance(label, Unlabelled):
            why = label.message or str(label.failure)
            raise InputError(f"no label for the atom {chemical_symbol(number)}: {why}")
        energies[chemical_symbol(number)] = label.energy
    return energies
