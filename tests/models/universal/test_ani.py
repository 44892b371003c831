"""ANI-1x against numbers that torchani itself gave.

The constants were printed, with torchani 2.2.4 and setuptools < 81, by

    from torchani import neurochem, AEVComputer
    constants = neurochem.Constants(FOLDER + "/rHCNO-5.2R_16-3.5A_a4-8.params")
    models = neurochem.load_model_ensemble(constants.species, FOLDER + "/train", 8)
    aev = AEVComputer(**constants).double()

in FOLDER = torchani/resources/ani-1x_8x, as `models.double()[k](aev((species, x)))` for
species 0 to 3 (H, C, N, O), in hartree.
"""

import importlib.util

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import HARTREE
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.models.settings import pretrained
from alloop.models.universal.ani import ANI
from alloop.potentials.learned import LearnedPotential
from tests.models.universal.shared import check_laws, shaken_atoms

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("torchani") is None, reason="torchani is not installed"
)
WATER = [[0.0, 0.0, 0.119262], [0.0, 0.763239, -0.477047], [0.0, -0.763239, -0.477047]]
HCN = [[0.0, 0.0, -0.511747], [0.0, 0.0, 0.664461], [0.0, 0.0, -1.580746]]
PUBLISHED = {  # hartree, of each member
    "OHH": (
        WATER,
        [
            *(0.007990397160292699, 0.008195424662810376, 0.008571254091503746),
            *(0.007757702011920455, 0.0072613161933918, 0.007963854404438645),
            *(0.008121088554327357, 0.007037475669772434),
        ],
    ),
    "CNH": (
        HCN,
        [
            *(-0.00109134552661635, -0.0018794210560075311, 0.0009914377830799097),
            *(-0.004251992858744509, -0.0007742700704965566, 0.0019053439161343354),
            *(0.0016032377396258714, -0.004226767178147465),
        ],
    ),
}
FORCE_ON_N = -0.08321138020361912  # hartree/Å, along the bond of HCN, the mean
KNOWN = dict.fromkeys((1, 6, 7, 8), -1.0)


def shaken(name: str) -> Frame:
    return from_atoms(shaken_atoms(molecule(name)))


@needs_package
def test_energies_of_each_member_are_torchani_s() -> None:
    frames = [from_atoms(Atoms(x, places)) for x, (places, _) in PUBLISHED.items()]
    graph = to_graph(pack_frames(frames), 5.2, torch.float64)
    network = build_network("ani", dtype=torch.float64)
    assert isinstance(network, ANI)
    wanted = np.array([x for _, x in PUBLISHED.values()]).T * HARTREE
    found = network.member_energies(graph).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    mean = energy_and_forces(network, graph)
    np.testing.assert_allclose(mean.energies.detach(), wanted.mean(0), atol=2e-6)
    assert float(mean.forces[4, 2]) == pytest.approx(FORCE_ON_N * HARTREE, abs=1e-5)
    fourth = build_network("ani", {"member": 4}, dtype=torch.float64)
    alone = energy_and_forces(fourth, graph).energies.detach()
    np.testing.assert_allclose(alone, wanted[3], atol=2e-6)


@needs_package
def test_the_laws_hold_in_float64_and_in_its_own_float32() -> None:
    frames = [shaken(x) for x in ("H2O", "HCN", "CH3CONH2")]
    check_laws("ani", KNOWN, frames, cutoffs=(3.5, 5.2), tolerances=(1e-7, 1e-3))


@needs_package
def test_forces_are_minus_the_gradient_in_the_limit() -> None:
    """Its surface bends on a short scale, so that the law's own steps are too long."""
    network = build_network("ani", dtype=torch.float64)
    potential = LearnedPotential(network, KNOWN)
    h = 1e-5  # Å
    batch = pack_frames([shaken("CH3CONH2")])
    u = np.random.default_rng(1).normal(size=batch.positions.shape)
    ends = (batch.with_positions(batch.positions + t * h * u) for t in (-1.0, 1.0))
    low, high = (potential.predict(end).energies[0] for end in ends)
    slope = (high - low) / (2 * h)
    forces = potential.predict(batch).forces
    assert slope == pytest.approx(-(forces * u).sum(), abs=1e-4)


@needs_package
def test_the_body_can_be_frozen_and_a_wrong_setting_is_refused() -> None:
    free = [
        name
        for name, x in build_network("ani", {"freeze": "body"}).named_parameters()
        if x.requires_grad
    ]
    assert {name.split(".")[1] for name in free} == {"2", "3"}
    with pytest.raises(InputError, match="freeze of ani to be nothing or body"):
        build_network("ani", {"freeze": "head"})


def test_charges_spins_and_other_elements_are_refused_in_a_sentence() -> None:
    weights = pretrained("ani")
    assert weights is not None
    weights.require(pack_frames([shaken("H2O")]))
    water = Frame(np.array([8, 1, 1]), np.array(WATER), 1, 1)
    with pytest.raises(InputError, match=r"charge 0 and spin 0 of H2O.*got \(1, 1\)"):
        weights.require(pack_frames([water]))
    with pytest.raises(InputError, match=r"ani knows \(H, C, N, O\), got Cl"):
        weights.require(pack_frames([shaken("CH3Cl")]))
