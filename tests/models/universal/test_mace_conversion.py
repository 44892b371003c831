"""Conversion of files of mace-torch, where it is installed: block by block."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from alloop.cli.app import run_command
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.jobs.convert_job import convert_model
from alloop.models.network import build_network
from alloop.models.universal.converted import read_converted
from alloop.potentials.learned import LearnedPotential
from tests.models.universal.mace_reference import calculator, frames, small_mace

pytest.importorskip("mace", reason="mace-torch is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the package

BLOCK = "RealAgnostic{}InteractionBlock"
CASES: dict[str, dict[str, Any]] = {
    "residual, order 3": {"correlation": 3},
    "first without": {"interaction_cls_first": BLOCK.format("")},
    "density": {
        "interaction_cls_first": BLOCK.format("Density"),
        "interaction_cls": BLOCK.format("DensityResidual"),
        "distance_transform": "Soft",
    },
    "degree 3": {"max_ell": 3, "hidden_irreps": "4x0e + 4x1o + 4x2e"},
    "scalars": {"hidden_irreps": "4x0e", "pair_repulsion": True},
    "last readout": {"use_last_readout_only": True, "heads": ["a", "b"]},
}


def saved(model: Any, folder: Path) -> Path:
    file = folder / "own.model"
    torch.save(model, file)
    return file


def both(model: Any, file: Path, head: str = "") -> tuple[Any, LearnedPotential]:
    """The package's calculator and the converted potential."""
    out = file.with_suffix(".alloop")
    convert_model(file, out, "MIT", force=True)
    network = build_network(
        "mace", {"path": str(out), "head": head}, dtype=torch.float64
    )
    return calculator(model, head), LearnedPotential(network, network.references)


def compare(theirs: Any, own: LearnedPotential, atoms: Atoms, atol: float) -> None:
    theirs.reset()
    atoms.calc = theirs
    said = own.predict(pack_frames([from_atoms(atoms)]), descriptors=True)
    assert said.energies[0] == pytest.approx(atoms.get_potential_energy(), abs=atol)
    np.testing.assert_allclose(said.forces, atoms.get_forces(), rtol=0, atol=10 * atol)
    described = theirs.get_descriptors(atoms)
    np.testing.assert_allclose(said.descriptors, described, rtol=0, atol=atol)
    if atoms.pbc.all():
        assert said.stress is not None
        np.testing.assert_allclose(
            said.stress[0], atoms.get_stress(), rtol=0, atol=atol
        )


@pytest.mark.parametrize("name", CASES)
def test_each_block_is_the_package_s_own(name: str, tmp_path: Path) -> None:
    from e3nn import o3

    changes = dict(CASES[name])
    if "hidden_irreps" in changes:
        changes["hidden_irreps"] = o3.Irreps(changes["hidden_irreps"])
    model = small_mace(**changes)
    theirs, own = both(model, saved(model, tmp_path), (changes.get("heads") or [""])[0])
    for number in (3, 11, 21, 22):
        compare(theirs, own, frames()[number], 1e-6)


def test_a_model_in_float32_is_compared_in_float64(tmp_path: Path) -> None:
    model = small_mace().float()
    theirs, own = both(model, saved(model, tmp_path))
    compare(theirs, own, frames()[3], 1e-6)


def test_the_command_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(small_mace(heads=["a", "b"]), tmp_path)
    out = tmp_path / "own.alloop"
    command = ["convert", str(file), "--out", str(out)]
    assert run_command(command) == 2
    assert "add `--licence MIT`" in capsys.readouterr().err
    assert run_command([*command, "--licence", "CC BY-NC 4.0"]) == 0
    said = capsys.readouterr()
    assert "4 elements, heads a, b" in said.out
    assert "CC BY-NC 4.0, which forbids commercial use" in said.out
    model = read_converted(out).settings
    assert model["source"] == "own.model"
    assert model["program"] == "mace-torch 0.3.16"
    known = file.rename(tmp_path / "mace-mpa-0-medium.model")
    assert run_command(["convert", str(known), "--out", str(out), "--force"]) == 0
    assert "licence of the weights: MIT\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"radial_type": "gaussian"}, "radial functions GaussianBasis"),
        ({"hidden_irreps": "4x0e + 4x1e"}, "features"),
    ],
)
def test_other_networks_are_refused_in_a_sentence(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    from e3nn import o3

    if "hidden_irreps" in changes:
        changes = {**changes, "hidden_irreps": o3.Irreps(changes["hidden_irreps"])}
    file = saved(small_mace(**changes), tmp_path)
    with pytest.raises(InputError, match=sentence):
        convert_model(file, tmp_path / "own.alloop", "MIT")
    assert not (tmp_path / "own.alloop").exists()


def test_what_is_no_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "own.model"
    for content in (b"", b"not a pickle"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be opened"):
            convert_model(file, tmp_path / "own.alloop", "MIT")
    torch.save({"weights": torch.ones(2)}, file)
    with pytest.raises(InputError, match="got a dict"):
        convert_model(file, tmp_path / "own.alloop", "MIT")
