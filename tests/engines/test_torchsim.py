"""The model in TorchSim: parity of a mixed batch, relaxation, MD."""

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.errors import InputError
from alloop.engines.evaluator import Evaluator, Watch
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
