"""The benchmark of published residuals."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from alloop.core.errors import InputError
from benchmarks.accuracy.exploration.bias_residuals import main, set_row


def test_mean_spread_and_slope_of_known_residuals(tmp_path: Path) -> None:
    frames = []
    for energy in (-4.0, -2.0, 0.0, 2.0):
        atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
        atoms.info["mlip_energy"] = energy - 0.02 + 0.1 * energy
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    write(tmp_path / "a.extxyz", frames, format="extxyz")
    row = set_row(tmp_path / "a.extxyz", "U", -16.2, None)
    assert row["frames"] == 4
    assert row["slope"] == pytest.approx(0.1)
    expected = 1e3 * np.array([-0.42, -0.22, -0.02, 0.18]) / 2
    assert row["mean"] == pytest.approx(expected.mean())
    assert row["std"] == pytest.approx(expected.std())


def test_files_of_another_system_are_shown_and_mistakes_are_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*options: str) -> str:
        arguments = ["bias_residuals", "--data", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        main()
        return capsys.readouterr().out

    with pytest.raises(SystemExit, match="expected files NAME_eval__SET"):
        run()
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    atoms.info["mlip_energy"] = 0.5
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    write(tmp_path / "Water_eval__Periodic_U.extxyz", [atoms], format="extxyz")
    shown = run("--system", "Water")
    assert "Water: energies" in shown
    assert "-250.00" in shown  # meV an atom
    assert "-16.2" not in shown  # which is printed for the other system
    atoms.calc = None
    write(tmp_path / "Water_eval__Periodic_FT1.extxyz", [atoms], format="extxyz")
    with pytest.raises(SystemExit, match="expected an `energy` in each frame"):
        run()
    with pytest.raises(SystemExit, match="expected files Oil_eval__SET"):
        run("--system", "Oil")
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    write(tmp_path / "ChClCA_eval__Periodic_U.extxyz", [atoms], format="extxyz")
    with pytest.raises(SystemExit, match=r"expected the published frames .*N-10pts"):
        run("--system", "ChClCA")


def test_a_file_without_model_energies_is_refused(tmp_path: Path) -> None:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    write(tmp_path / "a.extxyz", atoms, format="extxyz")
    with pytest.raises(InputError, match="mlip_energy"):
        set_row(tmp_path / "a.extxyz", "U", None, None)
    with pytest.raises(InputError, match="found none"):
        set_row(tmp_path / "b.extxyz", "U", None, None)
