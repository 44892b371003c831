"""The model in TorchSim: parity of a mixed batch, relaxation, MD."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.species import Domain
from alloop.engines.evaluator import Evaluator, Watch
from alloop.generation import Generation
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from tests.engines.conftest import Model

pytest.importorskip("vesin_torch")
ts = pytest.importorskip("torch_sim")
from alloop.engines.torchsim_model import AlloopModel  # noqa: E402


def model_of(model: Model, **options: object) -> AlloopModel:
    watch = Watch(action="ignore")
    return AlloopModel(Evaluator(model.generation, watch, **options))


def test_a_batch_equals_the_calculator(water_model: Model) -> None:
    model = model_of(water_model)
    systems = [water_model.atoms, water_model.far]
    state = ts.initialize_state(systems, model.device, model.dtype)
    found = model(state)
    for index, atoms in enumerate(systems):
        atoms = atoms.copy()
        atoms.calc = water_model.generation.calculator()
        energy = float(found["energy"][index])
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        part = found["forces"][3 * index : 3 * index + 3].numpy()
        np.testing.assert_allclose(part, atoms.get_forces(), atol=1e-5)
        surprise = atoms.calc.get_property("surprise", atoms)
        assert float(found["surprise"][index]) == pytest.approx(surprise, rel=1e-6)


def test_its_relaxation_and_integrators_run(water_model: Model) -> None:
    model = model_of(water_model)
    systems = [water_model.atoms, water_model.far]
    start = model(ts.initialize_state(systems, model.device, model.dtype))["energy"]
    relaxed = ts.optimize(
        system=systems, model=model, optimizer=ts.optimizers.fire, max_steps=20
    )
    assert (relaxed.energy < start).all()
    moved = ts.integrate(
        system=systems,
        model=model,
        integrator=ts.nve,
        n_steps=5,
        temperature=300,
        timestep=0.0005,
    )
    assert np.isfinite(moved.energy.numpy()).all()


def test_another_molecule_is_refused(water_model: Model) -> None:
    model = model_of(water_model)
    state = ts.initialize_state([molecule("H2O2")], model.device, model.dtype)
    with pytest.raises(InputError, match="trained on"):
        model(state)


def argon_model() -> tuple[Evaluator, list[Atoms]]:
    """A network for cells of argon, and three cells of unlike sizes."""
    cells = [bulk("Ar", "fcc", a=5.3).repeat(n) for n in (1, 2, (1, 1, 3))]
    rng = np.random.default_rng(1)
    for atoms in cells:
        strain = np.eye(3) + rng.normal(0.0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.05, (len(atoms), 3))
    network = build_network("schnet", {"channels": 8, "cutoff": 4.5}, 1, torch.float64)
    potential = LearnedPotential(network, {18: -10.0})
    domain = Domain.of(pack_frames([from_atoms(atoms) for atoms in cells]))
    generation = Generation(potential, None, None, {}, domain)
    return Evaluator(generation, Watch(action="ignore")), cells


def test_stress_of_cells_is_the_calculator_s() -> None:
    evaluator, cells = argon_model()
    model = AlloopModel(evaluator, compute_stress=True)
    found = model(ts.initialize_state(cells, model.device, model.dtype))
    for index, atoms in enumerate(cells):
        atoms = atoms.copy()
        atoms.calc = evaluator.generation.calculator()
        right = atoms.get_stress(voigt=False)
        assert np.abs(right).max() > 1e-4
        np.testing.assert_allclose(found["stress"][index], right, atol=1e-8)
        energy = float(found["energy"][index])
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_batches_that_torchsim_cuts_give_the_same(water_model: Model) -> None:
    model = model_of(water_model)
    systems = [water_model.atoms.copy() for _ in range(7)]
    for index, atoms in enumerate(systems):
        atoms.positions[1] *= 1.0 + 0.01 * index
    cut = ts.BinningAutoBatcher(  # two molecules at a time
        model=model,
        max_memory_scaler=7.0,
        memory_scales_with=model.memory_scales_with,
    )
    options = {"integrator": ts.nve, "n_steps": 3, "temperature": 0.0}
    options |= {"timestep": 0.0005, "model": model}
    whole = ts.integrate(system=systems, **options)
    before = model.evaluator.calls
    parts = ts.integrate(system=systems, autobatcher=cut, **options)
    assert model.evaluator.calls - before >= 4 * 3
    np.testing.assert_allclose(parts.positions, whole.positions, atol=1e-9)
    np.testing.assert_allclose(parts.energy, whole.energy, atol=1e-9)
