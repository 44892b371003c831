"""SO3LR through our graph and network, against the package's own calculator."""

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.config import load_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, TrainingData
from alloop.models.graph import to_graph
from alloop.models.network import build_network, energy_and_forces
from alloop.models.universal.pretrained_files import package_file, pickled_tensors
from alloop.models.universal.so3lr import DEGREES, Harmonics
from alloop.potentials.learned import LearnedPotential
from alloop.testing.potentials import check_forces, check_stored
from alloop.training.label_changes import select_labels
from alloop.training.optimisers import free_weights, parameter_groups
from alloop.training.stages import Schedule, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer
from tests.models.universal.shared import LAWS, check_laws, shaken_atoms

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("so3krates_torch") is None,
    reason="so3krates-torch is not installed",
)
SHIFT = -163.618118  # eV, the package's constant energy of each atom
KNOWN = dict.fromkeys((1, 6, 7, 8, 9, 15, 16, 17), -1.0)


def shaken(name: str, charge: int = 0, spin: int = 0) -> Frame:
    return from_atoms(shaken_atoms(molecule(name)), charge, spin)


@needs_package
@pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")
@pytest.mark.parametrize("long_range", [1000.0, 12.0])
def test_energies_and_forces_are_the_package_s_own(long_range: float) -> None:
    pytest.importorskip("matscipy")
    pytest.importorskip("h5py")
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    usual = torch.get_default_dtype()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = SO3LRCalculator(r_max_lr=long_range, default_dtype="float64")
        wanted = [reference(theirs, *x) for x in STATES]
    finally:
        torch.set_default_dtype(usual)  # which the package changes
    network = build_network("so3lr", {"long_range": long_range}, dtype=torch.float64)
    batch = pack_frames([shaken(*x) for x in STATES])
    ours = energy_and_forces(network, to_graph(batch, network.cutoff, torch.float64))
    energies = [energy - SHIFT * len(forces) for energy, forces in wanted]
    np.testing.assert_allclose(ours.energies.detach(), energies, atol=2e-5)
    forces = np.concatenate([forces for _, forces in wanted])
    np.testing.assert_allclose(ours.forces, forces, atol=1e-5)
    assert ours.descriptors.shape == (len(forces), 128)


STATES = (
    ("CH3CH2OH", 0, 0),
    ("CH3O", -1, 0),
    ("CH3O", 0, 1),
    ("CH3Cl", 0, 0),
    ("PH3", 0, 0),
    ("CH3SH", 0, 0),
)


def reference(calculator: Any, name: str, charge: int, spin: int) -> Any:
    frame = shaken(name, charge, spin)
    atoms = Atoms(frame.numbers, frame.positions)
    atoms.info |= {"charge": charge, "total_spin": spin / 2}
    calculator.reset()  # it does not notice another charge
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()


@needs_package
def test_the_laws_hold_in_float64_and_in_its_own_float32() -> None:
    frames = [shaken("H2O"), shaken("CO2"), shaken("CH3O", -1), shaken("CH3O", 0, 1)]
    check_laws(
        "so3lr",
        KNOWN,
        frames,
        cutoffs=(4.5, build_network("so3lr").cutoff),
        tolerances=(1e-7, 1e-3),
        far=1e-3,  # dipoles at 60 Å
        laws=(*LAWS, check_forces),
    )


@needs_package
def test_edges_beyond_the_cutoff_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they are where there are many."""
    network = build_network("so3lr", dtype=torch.float64)
    frames = [shaken("C6H6"), shaken("CH3CH2OH")]
    graph = to_graph(pack_frames(frames), network.cutoff, torch.float64)
    assert network.is_traceable(graph)
    said = energy_and_forces(network, graph)
    monkeypatch.setattr("alloop.models.universal.so3lr._CROWDED", 1)
    assert not network.is_traceable(graph)
    again = energy_and_forces(network, graph)
    torch.testing.assert_close(again.forces, said.forces, atol=1e-10, rtol=0)


@needs_package
def test_a_cell_needs_a_shorter_range() -> None:
    atoms = molecule("H2O", cell=[9.0, 9.5, 10.0], pbc=True)
    batch = pack_frames([from_atoms(atoms)])
    with pytest.raises(InputError, match=r"cutoff of at most 60 Å in a cell, got 1000"):
        LearnedPotential(build_network("so3lr"), KNOWN).predict(batch)
    settings = {"long_range": 12.0}
    network = build_network("so3lr", settings, dtype=torch.float64)
    potential, h = LearnedPotential(network, KNOWN), 1e-4

    def stretched(by: float) -> float:
        moved = atoms.copy()
        moved.set_cell(atoms.cell * (1.0 + by), scale_atoms=True)
        found = potential.predict(pack_frames([from_atoms(moved)]))
        return float(found.energies[0])

    stress = potential.predict(batch).stress
    assert stress is not None
    slope = (stretched(h) - stretched(-h)) / (2 * h)  # dE/dstrain, equal in x, y, z
    assert slope == pytest.approx(stress[0, :3].sum() * atoms.get_volume(), rel=1e-4)


@needs_package
def test_what_is_frozen_stays_so() -> None:
    free = {}
    for freeze in ("nothing", "embeddings", "body"):
        network = build_network("so3lr", {"freeze": freeze})
        weights = network.named_parameters()
        free[freeze] = {n for n, p in weights if p.requires_grad}
    assert free["body"] < free["embeddings"] < free["nothing"]
    assert {n.split(".")[1] for n in free["body"] if n.startswith("layers")} == {"2"}
    assert not any(n.startswith(("spin", "charge")) for n in free["embeddings"])


@needs_package
def test_rates_fall_from_the_readouts_to_the_embeddings() -> None:
    network = build_network("so3lr")
    names = list(free_weights(network))
    schedule = Schedule(optimiser="adamw", layer_decay=0.5)
    factors = {
        id(weight): group["factor"]
        for group in parameter_groups(network, schedule, names)
        for weight in group["params"]
    }
    found = {
        name: factors[id(network.get_parameter(name))]
        for name in ("element.weight", "spin.key", "layers.0.mix", "layers.2.mix")
    }
    assert list(found.values()) == [0.5**4, 0.5**4, 0.5**3, 0.5]
    assert factors[id(network.get_parameter("energy.0.weight"))] == 1.0


@needs_package
def test_fine_tuning_tells_charges_apart_and_starts_from_the_weights() -> None:
    """Labels: its own, with nine tenths of the forces, at two charges of a radical."""
    frames = [shaken("CH3O", -1), shaken("CH3O", 0, 1), shaken("H2O")]
    batch = pack_frames(frames)
    own = LearnedPotential(build_network("so3lr"), KNOWN).predict(batch)
    labels = LabelSet(batch, own.energies - 900.0, 0.9 * own.forces)
    (stage,) = standard_stages(6, Schedule(1e-4, warmup=2, ema=0.5, optimiser="adamw"))
    trainer = UniversalTrainer(StagedTrainer("so3lr", {"freeze": "body"}, (stage,)))
    none = select_labels(labels, np.zeros(0, np.int64))
    tuned, _ = trainer.train(TrainingData(none, labels), None, 0)
    before = np.abs(own.forces - labels.forces).mean()
    after = np.abs(tuned.predict(batch).forces - labels.forces).mean()
    assert after < 0.95 * before
    pretrained = build_network("so3lr").state_dict()
    state = tuned.network.state_dict()
    moved = {n for n, x in state.items() if not torch.equal(x, pretrained[n])}
    assert moved
    assert not any(n.startswith(("element.", "layers.0", "layers.1")) for n in moved)


def test_harmonics_of_a_degree_have_the_usual_sum_of_squares() -> None:
    """The addition theorem: Σ Y(a) Y(b) = (2l + 1)/4π P_l(a·b)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 3))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    harmonics = Harmonics()
    one, other = (harmonics(torch.tensor(x)).numpy() for x in (a, b))
    for degree in DEGREES:
        part = slice(degree**2 - 1, (degree + 1) ** 2 - 1)
        found = (one[:, part] * other[:, part]).sum(axis=1)
        legendre = np.polynomial.legendre.Legendre.basis(degree)((a * b).sum(axis=1))
        np.testing.assert_allclose(found, (2 * degree + 1) / (4 * np.pi) * legendre)


@needs_package
def test_a_stored_model_opens_without_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    potential = LearnedPotential(build_network("so3lr"), KNOWN)
    monkeypatch.setattr(
        "alloop.models.universal.so3lr._pretrained_state", lambda: pytest.fail("opened")
    )
    check_stored(potential, [shaken("H2O")])


def test_without_the_package_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: c\nstart: [{molecule: H2O}]\npotential: {kind: so3lr}\n"
        "levels: {expensive: {kind: toy}}\n"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'alloop\[so3lr\]'"):
        load_campaign(file)
    with pytest.raises(InputError, match=r"pip install 'alloop\[so3lr\]'"):
        package_file("so3krates_torch", "any", "so3lr")


class Trap:
    """An object that would run code while it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_file_that_holds_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Trap(), tmp_path / "trap.model")
    with pytest.raises(InputError, match="expected pretrained weights"):
        pickled_tensors(tmp_path / "trap.model", ())
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(InputError, match="expected pretrained weights"):
        pickled_tensors(tmp_path / "text.model", ())
    assert capsys.readouterr().out == ""


def test_elements_beyond_it_are_refused_before_anything_runs(tmp_path: Path) -> None:
    pytest.importorskip("so3krates_torch")
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: c\nstart: [{molecule: SiH4}]\npotential: {kind: so3lr}\n"
        "levels: {expensive: {kind: toy}}\n"
    )
    with pytest.raises(InputError, match=r"so3lr knows \(H, C, .*\), got Si"):
        load_campaign(file)
