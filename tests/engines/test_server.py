"""The server: parity by its client, refusals as sentences, a private folder."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.engines.evaluator import Evaluator, Watch
from alloop.engines.server import ModelServer, call_server
from tests.engines.conftest import Model


@pytest.fixture
def place(water_model: Model, tmp_path: Path) -> Iterator[Path]:
    socket = tmp_path / "private" / "model.sock"
    evaluator = Evaluator.of_file(water_model.file, watch=Watch(action="stop"))
    with ModelServer(socket, evaluator) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield socket
        server.shutdown()
        thread.join()
    assert not socket.exists()


def test_many_calls_equal_the_calculator(water_model: Model, place: Path) -> None:
    atoms = water_model.atoms.copy()
    atoms.calc = water_model.generation.calculator()
    for _ in range(2):
        found = call_server(place, atoms.numbers, atoms.positions)
        assert found[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(found[1], atoms.get_forces(), atol=1e-5)
        surprise = atoms.calc.get_property("surprise", atoms)
        assert found[2]["surprise"] == pytest.approx(surprise, rel=1e-6)


def test_what_it_refuses_is_a_sentence_and_it_goes_on(
    water_model: Model, place: Path
) -> None:
    atoms = water_model.atoms
    with pytest.raises(InputError, match="trained on"):
        call_server(place, atoms.numbers, atoms.positions, charge=1, spin=1)
    with pytest.raises(InputError, match="does not trust"):
        call_server(place, atoms.numbers, water_model.far.positions)
    assert call_server(place, atoms.numbers, atoms.positions)[0] < 0.0


def test_only_its_user_can_open_it(water_model: Model, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    evaluator = Evaluator.of_file(water_model.file)
    with pytest.raises(InputError, match="700"):
        ModelServer(shared / "model.sock", evaluator)
    with pytest.raises(InputError, match="alloop serve"):
        call_server(tmp_path / "none.sock", [1], np.zeros((1, 3)))
