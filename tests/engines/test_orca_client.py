"""The client for ORCA: its request and answer, as ORCA would write and read them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from alloop.core.units import BOHR, HARTREE
from alloop.engines.orca_client import OrcaRequest, main
from tests.engines.conftest import Model
from tests.engines.test_server import place

__all__ = ["place"]


def request(folder: Path, model: Model, *more: str, charge: int = 0) -> Path:
    """Write what ORCA writes before it calls its external program."""
    write(folder / "job_EXT.xyz", model.atoms, format="xyz")
    path = folder / "job_EXT.extinp.tmp"
    lines = ["job_EXT.xyz # xyz filename", f"{charge} # charge", "1 # multiplicity"]
    lines += ["1 # NCores", "1 # do gradient", *more]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_engrad(path: Path) -> tuple[float, np.ndarray]:
    """Read as ORCA does: numbers in order, comments left out."""
    lines = [x for x in path.read_text().splitlines() if not x.startswith("#")]
    count, energy, *gradient = lines
    return float(energy), np.array(gradient, float).reshape(int(count), 3)


def test_orca_gets_energy_and_gradient(
    water_model: Model, place: Path, tmp_path: Path
) -> None:
    path = request(tmp_path, water_model)
    code = "import sys; from alloop.engines.orca_client import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(path), str(place)]
    subprocess.run(command, check=True, cwd=tmp_path)
    energy, gradient = read_engrad(tmp_path / "job_EXT.engrad")
    atoms = water_model.atoms.copy()
    atoms.calc = water_model.generation.calculator()
    assert energy * HARTREE == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    forces = -gradient * HARTREE / BOHR
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)


@pytest.mark.parametrize(
    ("more", "charge", "sentence"),
    [
        (("charges.pc",), 0, "without point charges, ORCA sent charges.pc"),
        ((), 1, "trained on"),
    ],
    ids=["point charges", "charge"],
)
def test_what_a_model_cannot_do_ends_the_call_with_a_sentence(
    water_model: Model,
    place: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    charge: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = request(tmp_path, water_model, *more, charge=charge)
    assert main([str(path), str(place)]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "job_EXT.engrad").exists()


def test_a_call_by_hand_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    assert "Ext_Params" in capsys.readouterr().err
    path = tmp_path / "x.extinp.tmp"
    path.write_text("nothing\n")
    assert main([str(path), "s"]) == 1
    assert "expected ORCA's request" in capsys.readouterr().err


def test_a_request_without_a_gradient_is_read(
    water_model: Model, tmp_path: Path
) -> None:
    path = request(tmp_path, water_model)
    path.write_text(path.read_text().replace("1 # do gradient", "0 # do gradient"))
    assert not OrcaRequest.of_file(path).gradient
