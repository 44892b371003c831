"""Models of other packages as levels, by their ASE calculators.

They are skipped without mace-torch and sevenn, which exclude each other's e3nn.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.records import Label
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import check_level
from alloop.labels.named_code import ase_level

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages


def compare(path: str, arguments: dict[str, Any], atoms: Atoms, own: Any) -> Label:
    """Return the label of a level after comparing it with the calculator itself."""
    level = ase_level(path, arguments)
    assert not check_level(level, sorted(set(atoms.get_chemical_symbols())))
    label = DirectLabeller(level).label(from_atoms(atoms))
    assert isinstance(label, Label), label
    atoms.calc = own
    assert label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(label.forces, atoms.get_forces(), atol=1e-4)
    return label


def test_a_mace_file_is_a_level(tmp_path: Path) -> None:
    pytest.importorskip("mace", reason="mace-torch is not installed")
    import torch
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(0)
    network = modules.ScaleShiftMACE(
        r_max=4.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=1,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=3,
        hidden_irreps=o3.Irreps("4x0e + 4x1o"),
        MLP_irreps=o3.Irreps("4x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(3),
        avg_num_neighbors=4.0,
        atomic_numbers=[1, 6, 8],
        correlation=2,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    file = tmp_path / "tiny.model"
    torch.save(network.double(), file)
    arguments = {"model_paths": str(file), "device": "cpu", "default_dtype": "float64"}
    own = MACECalculator(**arguments)
    path = "mace.calculators.MACECalculator"
    label = compare(path, arguments, molecule("CH3CH2OH"), own)
    assert np.abs(label.forces).max() > 0.01


def test_sevennet_s_own_weights_are_a_level_with_stress() -> None:
    pytest.importorskip("sevenn", reason="sevenn is not installed")
    from sevenn.calculator import SevenNetCalculator

    salt = bulk("NaCl", "rocksalt", a=5.7, cubic=True)
    salt.rattle(0.05, seed=2)
    arguments = {"model": "7net-0", "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = SevenNetCalculator(**arguments)
    path = "sevenn.calculator.SevenNetCalculator"
    label = compare(path, arguments, salt, own)
    assert label.stress is not None
    np.testing.assert_allclose(label.stress, salt.get_stress(), atol=1e-5)
