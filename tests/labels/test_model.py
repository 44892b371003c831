"""A trained model as a level: its own numbers, in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

import alloop
from alloop.config import parse_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.labels.child.labeller import IsolatedLabeller, LabelChild
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import check_level, model_level, pyscf_level
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.workers import tasks

MODEL = {"channels": 8, "layers": 1, "radial": 6, "cutoff": 4.0}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in a file, as a campaign exports one."""
    torch.manual_seed(3)
    potential = LearnedPotential(
        build_network("painn", MODEL, dtype=torch.float64), {1: -13.0, 8: -2000.0}
    )
    return _saved(potential, tmp_path_factory.mktemp("models") / "net.model")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A pair potential in a file: needs no torch."""
    basis = PairBasis((1, 8))
    coefficients = np.random.default_rng(1).normal(0, 0.3, basis.size)
    return _saved(PairwisePotential(basis, coefficients), tmp_path / "pairs.model")


def _saved(potential: object, file: Path) -> Path:
    file.write_bytes(to_bytes(Generation(potential, None, None, {}))[1])
    return file


def frame(name: str = "H2O", seed: int = 1) -> Frame:
    atoms = molecule(name)
    atoms.rattle(0.05, seed=seed)
    return from_atoms(atoms)


def test_labels_are_what_the_opened_file_predicts_whatever_came_before(
    network: Path,
) -> None:
    opened = alloop.load(network)
    with IsolatedLabeller(model_level(network)) as labeller:
        for seed, name in ((1, "H2O"), (2, "H2O2"), (1, "H2O")):
            record = labeller.label(frame(name, seed))
            assert isinstance(record, Label), record
            said = opened.predict(pack_frames([frame(name, seed)]))
            assert record.energy == pytest.approx(said.energies[0], rel=1e-14)
            np.testing.assert_allclose(record.forces, said.forces, atol=1e-12)
            direct = DirectLabeller(model_level(network)).label(frame(name, seed))
            assert (direct.energy, direct.forces.tobytes()) == (
                record.energy,
                record.forces.tobytes(),
            )


def test_what_a_model_was_not_trained_on_gets_no_label_unless_asked_for(
    tmp_path: Path,
) -> None:
    basis = PairBasis((1, 8))
    potential = PairwisePotential(basis, np.zeros(basis.size))
    domain = Domain.of(pack_frames([frame()]))
    file = tmp_path / "water.model"
    known = Generation(potential, None, None, {}, domain)
    file.write_bytes(to_bytes(known)[1])
    ion = from_atoms(molecule("H2O"), charge=1, spin=1)
    assert isinstance(DirectLabeller(model_level(file)).label(frame()), Label)
    refused = DirectLabeller(model_level(file)).label(ion)
    assert isinstance(refused, Unlabelled)
    assert refused.failure is Failure.UNSUPPORTED
    asked = DirectLabeller(model_level(file, outside=True)).label(ion)
    assert isinstance(asked, Label)


def test_a_pair_potential_is_a_level_without_torch(pairs: Path) -> None:
    record = DirectLabeller(model_level(pairs)).label(frame())
    assert isinstance(record, Label), record
    assert np.array_equal(
        record.forces, alloop.load(pairs).predict(pack_frames([frame()])).forces
    )


def test_the_file_s_content_is_the_level(pairs: Path, network: Path) -> None:
    level = model_level(pairs)
    moved = pairs.rename(pairs.with_name("moved.model"))
    assert model_level(moved).id == level.id != model_level(network).id
    assert model_level(moved).title == "model moved.model"
    record = DirectLabeller(level).label(frame())
    assert isinstance(record, Unlabelled)
    assert "No such file" in record.message


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"no model", "expected an alloop model file"), (None, "has changed since")],
)
def test_a_file_that_is_not_the_model_is_refused_before_it_runs(
    pairs: Path, child: LabelChild, content: bytes | None, word: str
) -> None:
    level = model_level(pairs)
    pairs.write_bytes(content or pairs.read_bytes() + b"x")
    level = level if content is None else model_level(pairs)
    assert word in check_level(level, ["H"], child.labeller(level))[0]
    record = DirectLabeller(level).label(frame())
    assert record.failure is Failure.UNSUPPORTED
    assert word in record.message


def test_elements_that_the_model_never_saw_are_refused(
    pairs: Path, child: LabelChild
) -> None:
    level = model_level(pairs)
    labeller = child.labeller(level)  # checking brings no torch into a shared child
    assert check_level(level, ["H", "O"], labeller) == []
    problems = check_level(level, ["H", "C"], labeller)
    assert problems == ["the model was trained on H, O, it knows no C"]
    record = DirectLabeller(level).label(frame("CH4"))
    assert record.failure is Failure.UNSUPPORTED
    with pytest.raises(InputError, match="No such file"):
        model_level(pairs.with_name("none.model"))


def test_a_model_and_quantum_chemistry_never_share_a_process(
    pairs: Path, tmp_path: Path
) -> None:
    text = "name: x\nstart: [{molecule: H2O}]\nlevels: {expensive: {kind: toy}}"
    kit = parse_campaign(text, tmp_path).worker_settings
    try:
        levels = (model_level(pairs), pyscf_level("hf", "sto-3g"))
        model, quantum = (tasks.labeller_for(kit, level) for level in levels)
        other = tasks.labeller_for(kit, pyscf_level("hf", "3-21g"))
        assert isinstance(model.label(frame()), Label)
        assert isinstance(quantum.label(frame()), Label)
        assert isinstance(model, IsolatedLabeller)
        assert isinstance(quantum, IsolatedLabeller)
        assert isinstance(other, IsolatedLabeller)
        assert model.child.pid != quantum.child.pid
        assert other.child.pid == quantum.child.pid
    finally:
        tasks.close_labellers()
