"""Checks that every implementation of a role must pass, for our tests and for yours.

Each check is a function that raises AssertionError with a sentence. `check_potential`
runs all checks of a potential that depends on nothing but its atoms; one with an outer
field, say, passes only some of them, which can be run one by one. Tolerances are in eV
and eV/Å, relative to the largest force where that is above 1 eV/Å: 1e-6 suits float64,
1e-3 float32.
"""

from alloop.testing.potentials import (
    check_atom_energies,
    check_batching,
    check_cutoff,
    check_far_molecules,
    check_forces,
    check_permutation,
    check_potential,
    check_predictions,
    check_reflection,
    check_rotation,
    check_stored,
    check_stress,
    check_translation,
)
from alloop.testing.roles import (
    check_fitted_scorer,
    check_labeller,
    check_scorer,
    check_selector,
    check_trainer,
)

__all__ = [
    "check_atom_energies",
    "check_batching",
    "check_cutoff",
    "check_far_molecules",
    "check_fitted_scorer",
    "check_forces",
    "check_labeller",
    "check_permutation",
    "check_potential",
    "check_predictions",
    "check_reflection",
    "check_rotation",
    "check_scorer",
    "check_selector",
    "check_stored",
    "check_stress",
    "check_trainer",
    "check_translation",
]
