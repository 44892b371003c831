"""The command `infrared`: a spectrum on a model that learned dipoles, refusals."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from alloop.cli import main
from alloop.core.atoms import to_atoms
from alloop.core.batch import pack_frames
from alloop.core.species import Domain
from alloop.generation import Generation, to_bytes
from alloop.jobs import infrared_job
from alloop.potentials.dipoles import DipolePotential
from alloop.potentials.learned import LearnedPotential
from tests.models.kinds import small
from tests.potentials.test_dipoles import REFERENCES, fitted, waters

FLAT = 1e-6  # eV a unit of the network: molecules keep their shape for a while
SHORT = ["--picoseconds", "0.1", "--temperature", "1", "--walkers", "2", "--quiet"]


@pytest.fixture
def water(tmp_path: Path) -> Path:
    path = tmp_path / "water.xyz"
    write(path, to_atoms(waters(1)[0]))
    return path


def model_file(folder: Path, potential: LearnedPotential) -> Path:
    domain = Domain.of(pack_frames(waters(2)))
    file = folder / "water.model"
    file.write_bytes(to_bytes(Generation(potential, None, None, {}, domain))[1])
    return file


def dipolar() -> DipolePotential:
    flat = LearnedPotential(small("tensor-painn"), REFERENCES, FLAT)
    return DipolePotential(flat, fitted().head)


def test_a_spectrum_is_shown_and_written(
    water: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(infrared_job, "_SETTLING", 5.0)  # nothing binds these atoms
    model, out = model_file(tmp_path, dipolar()), tmp_path / "spectrum.csv"
    picture = tmp_path / "spectrum.svg"
    files = ["--out", str(out), "--picture", str(picture)]
    command = ["infrared", str(water), "--model", str(model), *SHORT, *files]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "bands, cm⁻¹:" in said
    table = np.genfromtxt(out, delimiter=",", names=True)
    assert table["wavenumber_per_cm"][0] == 0.0
    assert table["wavenumber_per_cm"][-1] == pytest.approx(8339.1, abs=1.0)  # 2 fs
    assert (table["absorption_km_per_mol_cm"] >= 0.0).all()
    assert picture.read_text().startswith("<?xml")
    assert main(command) == 2  # it is there
    assert "--force" in capsys.readouterr().err


def test_a_model_without_dipoles_is_refused_in_one_sentence(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = LearnedPotential(small("tensor-painn"), REFERENCES, FLAT)
    model = model_file(tmp_path, plain)
    assert main(["infrared", str(water), "--model", str(model), *SHORT]) == 2
    err = capsys.readouterr().err
    assert "expected a model that has learned dipoles" in err
    assert len(err.strip().splitlines()) == 1


def test_vibrations_have_intensities_on_such_a_model(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_file(tmp_path, dipolar())
    command = ["vibrations", str(water), "--model", str(model), "--no-relax", "--quiet"]
    assert main(command) == 0
    assert "km/mol" in capsys.readouterr().out


def test_two_structures_are_refused(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(water, [to_atoms(frame) for frame in waters(2)])
    model = model_file(tmp_path, dipolar())
    assert main(["infrared", str(water), "--model", str(model), *SHORT]) == 2
    assert "expected one structure" in capsys.readouterr().err
