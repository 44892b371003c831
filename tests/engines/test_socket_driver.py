"""The driver of programs that wait on a socket: ASE's SocketIOCalculator, i-PI."""

import subprocess
import sys
import uuid
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write

from alloop.cli import main
from alloop.core.errors import InputError
from alloop.engines.evaluator import Evaluator
from alloop.engines.socket_driver import drive
from tests.conftest import skip_without, wait_for
from tests.engines.conftest import Model, ipi_input

FIELD = """
  <ffsocket name='alloop' mode='unix' pbc='false'><address>{name}</address></ffsocket>
"""


@pytest.fixture
def name() -> str:
    return f"alloop-{uuid.uuid4().hex[:8]}"


def test_ase_s_socket_calculator_gets_the_calculator_s_numbers(
    water_model: Model, name: str
) -> None:
    evaluator = Evaluator.of_file(water_model.file)
    atoms = water_model.atoms.copy()
    with SocketIOCalculator(unixsocket=name) as calculator:
        thread = Thread(target=drive, args=(evaluator, water_model.atoms, name))
        thread.start()
        atoms.calc = calculator
        energies, forces = [], []
        for shift in (0.0, 0.01):
            atoms.positions[1] += shift
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
    thread.join()
    plain = water_model.atoms.copy()
    plain.calc = water_model.generation.calculator()
    for energy, force, shift in zip(energies, forces, (0.0, 0.01), strict=True):
        plain.positions[1] += shift
        assert energy == pytest.approx(plain.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(force, plain.get_forces(), atol=1e-5)
    assert evaluator.calls == 2


@pytest.mark.slow
def test_i_pi_moves_beads_by_a_socket(
    water_model: Model, tmp_path: Path, name: str
) -> None:
    skip_without("ipi")
    atoms = water_model.atoms.copy()
    atoms.cell = np.eye(3) * 50.0
    start = tmp_path / "start.xyz"
    write(start, atoms, format="extxyz")
    text = ipi_input(FIELD.format(name=name), start, beads=2)
    (tmp_path / "input.xml").write_text(text)
    program = Path(sys.executable).with_name("i-pi")
    with subprocess.Popen([program, "input.xml"], cwd=tmp_path) as i_pi:
        wait_for(Path(f"/tmp/ipi_{name}").exists)
        write(tmp_path / "molecule.xyz", water_model.atoms, format="extxyz")
        command = ["serve", str(water_model.file), "--connect", name]
        assert main([*command, "--template", str(tmp_path / "molecule.xyz")]) == 0
        assert i_pi.wait(60) == 0
    rows = np.loadtxt(tmp_path / "run.out")
    assert len(rows) == 5
    assert np.ptp(rows[:, 2]) < 1e-4  # hartree, of the conserved energy


@pytest.mark.filterwarnings(  # ASE leaves a socket open that nobody answers
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_nobody_waits_is_a_sentence(
    water_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = Evaluator.of_file(water_model.file)
    for address in ("alloop-nobody", "127.0.0.1:9"):
        with pytest.raises(InputError, match="expected a program that waits at"):
            drive(evaluator, water_model.atoms, address)
    assert main(["serve", str(water_model.file), "--connect", "x"]) == 2
    assert "give one of the two" in capsys.readouterr().err
