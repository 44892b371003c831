"""Compiled force calls: the same physics, other batches untouched, honest refusals."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.models import compilation
from alloop.models.neighbours import SMALL
from alloop.models.network import build_network
from alloop.potentials import compiled
from alloop.potentials.analytic import Morse
from alloop.potentials.compiled import CompiledPotential, compiled_for
from alloop.potentials.learned import LearnedPotential

REFERENCES = {1: -13.6, 6: -1029.0, 8: -2041.0}


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No code of another test's, and none for another test."""
    before = compiled._codes.copy()
    compiled._codes.clear()
    yield
    compiled._codes.clear()
    compiled._codes.update(before)


def small(kind: str = "egnn", seed: int = 0) -> LearnedPotential:
    network = build_network(kind, {"channels": 8, "layers": 1}, seed=seed)
    return LearnedPotential(network, REFERENCES, scale=2.0)


def waters(count: int = 2) -> Batch:
    return pack_frames([from_atoms(molecule("H2O"))] * count)


def moved(batch: Batch, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return batch.with_positions(batch.positions + 0.1 * rng.standard_normal((6, 3)))


def fast(potential: LearnedPotential, batch: Batch) -> CompiledPotential:
    found, why = compiled_for(potential, batch)
    assert why is None
    assert isinstance(found, CompiledPotential)
    return found


def agree(potential: CompiledPotential, batch: Batch) -> None:
    own = potential.potential.predict(batch, descriptors=True)
    said = potential.predict(batch, descriptors=True)
    assert said.descriptors is not None
    assert own.descriptors is not None
    np.testing.assert_allclose(said.energies, own.energies, rtol=0, atol=1e-5)
    np.testing.assert_allclose(said.forces, own.forces, rtol=0, atol=1e-5)
    np.testing.assert_allclose(said.descriptors, own.descriptors, rtol=0, atol=1e-5)
    assert potential.predict(batch).descriptors is None


def made_again(*_: object, **__: object) -> compilation.Code:
    pytest.fail("code was made again")


def test_code_agrees_with_the_network_and_new_weights_run_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = fast(small(), waters())
    for seed in range(3):
        agree(first, moved(waters(), seed))
    monkeypatch.setattr(compiled, "compile_function", made_again)
    second = fast(small(seed=1), waters())
    agree(second, moved(waters()))
    there = moved(waters())
    assert not np.allclose(first.predict(there).forces, second.predict(there).forces)
    again = first.predict(there)
    np.testing.assert_array_equal(again.forces, first.predict(there).forces)


def test_other_batches_are_predicted_as_ever(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setattr(
        compiled, "compile_function", lambda function, *_, **__: function
    )
    potential = fast(small(), waters())
    ions = replace(waters(), charges=np.array([1, 0]))
    for batch in (waters(3), pack_frames([]), ions):
        own = potential.potential.predict(batch)
        np.testing.assert_array_equal(potential.predict(batch).forces, own.forces)


def test_large_batches_are_computed_in_parts_of_whole_frames(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    shapes: list[int] = []

    def watched(function: compilation.Code, *_: object, **__: object) -> Any:
        def run(positions: Any, *given: Any) -> Any:
            shapes.append(len(positions))
            return function(positions, *given)

        return run

    monkeypatch.setattr(compiled, "compile_function", watched)
    monkeypatch.setattr(compiled, "_PAIRS_ON_CPU", 30)
    names = ["H2O", "CH3OH", "H", "H2O", "CH4", "H"]
    batch = pack_frames([from_atoms(molecule(name)) for name in names])
    potential = fast(small(), batch)
    shapes.clear()
    agree(potential, batch)
    assert shapes[: len(shapes) // 2] == [9, 4, 6]
    alone = fast(small(), waters())
    shapes.clear()
    agree(alone, waters())
    assert set(shapes) == {6}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["egnn", "painn"])
def test_code_agrees_for_every_size_of_network(kind: str) -> None:
    network = build_network(kind, {"channels": 32, "layers": 3})
    potential = LearnedPotential(network, REFERENCES)
    frames = [from_atoms(molecule(name)) for name in ("CH3OH", "H2O", "C6H6")]
    batch = pack_frames(frames)
    rng = np.random.default_rng(3)
    there = batch.with_positions(batch.positions + 0.1 * rng.standard_normal((21, 3)))
    agree(fast(potential, batch), there)


def test_what_cannot_be_compiled_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    crystal = pack_frames([from_atoms(bulk("Cu"))])
    network = small()
    for potential, batch, reason in (
        (Morse(), waters(), "only learned"),
        (network, pack_frames([]), "no frames"),
    ):
        found, why = compiled_for(potential, batch)
        assert found is potential
        assert why is not None
        assert reason in why
    with pytest.raises(InputError, match="got Cu"):
        compiled_for(
            network, pack_frames([replace(crystal.frame(0), pbc=(False,) * 3)])
        )
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "C++ compiler" in str(compiled_for(network, waters())[1])


def test_code_that_strays_is_not_used(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    def frozen(
        function: compilation.Code, example: list[object], **_: object
    ) -> compilation.Code:
        said = function(*example)  # a network that looks at the positions while traced
        return lambda *_: said

    monkeypatch.setattr(compiled, "compile_function", frozen)
    found, why = compiled_for(small(), waters())
    assert not isinstance(found, CompiledPotential)
    assert "strays" in str(why)


def chain(carbons: int) -> Frame:
    """Return a bent alkane, longer than the cutoff."""
    rows = []
    for number in range(carbons):
        angle = 0.5 * number
        centre = np.array([4.0 * np.cos(angle), 4.0 * np.sin(angle), 0.7 * number])
        up = centre + np.array([0.0, 0.0, 1.0])
        rows += [(6, centre), (1, up), (1, 1.2 * centre + 0.3)]
    numbers, positions = zip(*rows, strict=True)
    return Frame(np.array(numbers), np.array(positions, np.float64))


def test_pairs_of_larger_molecules_follow_the_atoms() -> None:
    """The code knows other numbers of pairs, as atoms come and go."""
    potential = small("painn")
    batch = pack_frames([chain(12), chain(9), from_atoms(molecule("H2O"))])
    assert batch.sizes.max() > SMALL
    code = fast(potential, batch)
    edges = [part.inputs.graph.edge_index.shape[1] for part in code._parts]
    assert sum(edges) < (batch.sizes * (batch.sizes - 1)).sum()
    agree(code, batch)
    rng = np.random.default_rng(1)
    for scale in (0.9, 1.0, 0.1, 1.5):  # far beyond the skin, and within it
        shaken = scale * batch.positions + 0.02 * rng.standard_normal((66, 3))
        agree(code, batch.with_positions(shaken))
    assert edges != [part.inputs.graph.edge_index.shape[1] for part in code._parts]


def test_pairs_are_listed_anew_when_an_atom_has_moved_half_of_the_skin() -> None:
    batch = pack_frames([chain(12)])
    code = fast(small("painn"), batch)
    before = code._parts[0].inputs
    limit = 0.5 * compiled._SKIN
    for shift, same in ((0.98 * limit, True), (1.02 * limit, False)):
        moved_positions = batch.positions.copy()
        moved_positions[5, 1] += shift
        agree(code, batch.with_positions(moved_positions))
        assert (code._parts[0].inputs is before) == same


def test_a_network_without_general_code_lists_all_pairs_of_a_larger_molecule(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    def alone(function: Any, example: Any, *, any_length: Any = ()) -> Any:
        if any_length:
            raise compilation.NotCompiled("no general code")
        return compilation.compile_function(function, example)

    monkeypatch.setattr(compiled, "compile_function", alone)
    batch = pack_frames([chain(7)])
    code = fast(small(), batch)
    assert code._parts[0].inputs.graph.edge_index.shape[1] == 21 * 20
    agree(code, batch.with_positions(1.1 * batch.positions))
    large, why = compiled_for(small(), pack_frames([chain(22)]))
    assert isinstance(large, LearnedPotential)
    assert why == "force calls are not compiled: no general code"


def test_cells_are_compiled_with_their_stress_and_may_change() -> None:
    """The pairs follow atoms and cells; a frame without a cell may be among them."""
    oxide = from_atoms(bulk("CO", "rocksalt", a=4.3).repeat((2, 1, 1)))
    alone = replace(oxide, cell=np.zeros((3, 3)), pbc=(False,) * 3)
    batch = pack_frames([oxide, alone, oxide])
    potential = small("painn")
    code = fast(potential, batch)
    rng = np.random.default_rng(2)
    strain = np.eye(3) + 0.05 * rng.standard_normal((3, 3))
    for stretch in (np.eye(3), strain, 0.8 * strain, np.eye(3)):
        shaken = batch.positions @ stretch + 0.1 * rng.standard_normal((12, 3))
        moved_cells = batch.with_cells(shaken, batch.cells @ stretch)
        agree(code, moved_cells)
        ours, plain = code.predict(moved_cells), potential.predict(moved_cells)
        assert ours.stress is not None
        assert plain.stress is not None
        assert np.isnan(ours.stress[1]).all()
        np.testing.assert_allclose(ours.stress, plain.stress, rtol=0, atol=1e-6)
