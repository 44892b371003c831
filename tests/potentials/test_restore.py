"""Checkpoints find their potential, and torch stays away where it is not needed."""

import subprocess
import sys

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.models.checkpoint import Checkpoint
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.potentials.restore import restore_potential
from tests.models.kinds import LEAST


@pytest.mark.parametrize("kind", sorted(LEAST))
def test_networks_are_restored_as_learned_potentials(kind: str) -> None:
    potential = LearnedPotential(build_network(kind, LEAST[kind]), {1: 0.0})
    restored = restore_potential(potential.checkpoint())
    assert isinstance(restored, LearnedPotential)
    assert restored.network.kind == kind


def test_a_pair_potential_is_restored() -> None:
    basis = PairBasis((1, 8), radial=3)
    coefficients = np.arange(float(basis.size))
    restored = restore_potential(PairwisePotential(basis, coefficients).checkpoint())
    assert isinstance(restored, PairwisePotential)
    assert restored.basis == basis
    np.testing.assert_array_equal(restored.coefficients, coefficients)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="got 'nequip'; use a newer alloop"):
        restore_potential(Checkpoint("nequip", {}, {}))


def test_pair_potentials_oracles_and_laws_do_not_import_torch() -> None:
    code = """
import sys
import numpy as np
import alloop.testing, alloop.potentials.ase_calculator
import alloop.potentials.labeller_potential
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.potentials.restore import restore_potential
basis = PairBasis((1,))
restore_potential(PairwisePotential(basis, np.zeros(basis.size)).checkpoint())
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
