"""Conversion of checkpoints of sevenn: the published ones, and small ones."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alloop.cli.app import run_command
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.jobs.convert_job import convert_model
from alloop.models.network import build_network
from alloop.models.universal.converted import read_converted
from alloop.models.universal.sevennet_conversion import PUBLISHED, published_checkpoint
from alloop.potentials.learned import LearnedPotential
from tests.models.universal.mace_reference import frames
from tests.models.universal.sevennet_reference import (
    CONFIG,
    HEADS,
    predictions,
    small_sevennet,
)

pytest.importorskip("sevenn", reason="sevenn is not installed", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the package

CASES: dict[str, dict[str, Any]] = {
    "as SevenNet-0": {},
    "one width, degree 3": {"irreps_manual": False, "channel": 4, "lmax": 3},
    "products with elements": {"self_connection_type": "nequip"},
    "another envelope": {
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6}
    },
    "vectors of any length": {"_normalize_sph": False},
    "one scale": {"scale": 0.7, "shift": -2.0},
    "heads": HEADS,
    "heads in the readout alone": {
        **HEADS,
        "use_modal_self_inter_intro": False,
        "use_modal_self_inter_outro": False,
    },
}
SOME = [frames()[n] for n in (3, 11, 21, 22)]


def converted(checkpoint: Any, folder: Path, head: str = "") -> LearnedPotential:
    file, out = folder / "own.pth", folder / "own.alloop"
    torch.save(checkpoint, file)
    convert_model(file, out, "MIT", force=True)
    settings = {"path": str(out), "head": head}
    network = build_network("sevennet", settings, dtype=torch.float64)
    return LearnedPotential(network, network.references)


def compare(own: LearnedPotential, theirs: dict[str, Any]) -> None:
    said = own.predict(pack_frames([from_atoms(x) for x in SOME]))
    np.testing.assert_allclose(said.energies, theirs["energies"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(said.forces, theirs["forces"], rtol=0, atol=1e-9)
    cells = own.predict(pack_frames([from_atoms(x) for x in SOME[2:]]))
    assert cells.stress is not None
    np.testing.assert_allclose(cells.stress, theirs["stress"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_the_package_s_own(name: str, tmp_path: Path) -> None:
    model, checkpoint = small_sevennet(**CASES[name])
    head = "rough" if "heads" in name else ""
    own = converted(checkpoint, tmp_path, head)
    theirs = predictions(model, SOME, head)
    assert np.abs(theirs["forces"]).max() > 1e-3
    compare(own, theirs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_the_package_s_own(name: str, tmp_path: Path) -> None:
    """These are of versions that ordered products and signed couplings otherwise."""
    from sevenn.util import load_checkpoint

    out = tmp_path / "own.alloop"
    model = convert_model(Path(name), out)
    head = "R2SCAN" if len(model["heads"]) > 1 else ""
    settings = {"path": str(out), "head": head}
    network = build_network("sevennet", settings, dtype=torch.float64)
    theirs = predictions(load_checkpoint(name).build_model(), SOME, head)
    compare(LearnedPotential(network, network.references), theirs)
    assert model["licence"] == {"name": "MIT", "non_commercial": False}
    assert len(model["elements"]) == 89


def test_a_checkpoint_of_before_april_2024(tmp_path: Path) -> None:
    """Its modules have other names, and its harmonics grow with the distance."""
    from sevenn.util import load_checkpoint

    file = published_checkpoint("7net-0")
    assert file is not None
    old = file.parents[1] / "SevenNet_0__22May2024" / file.name
    convert_model(old, tmp_path / "own.alloop", "MIT")
    settings = {"path": str(tmp_path / "own.alloop")}
    network = build_network("sevennet", settings, dtype=torch.float64)
    theirs = predictions(load_checkpoint(str(old)).build_model(), SOME)
    compare(LearnedPotential(network, network.references), theirs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"is_parity": True}, "is_parity: True"),
        ({"act_radial": "relu"}, "act_radial: relu"),
        ({"irreps_manual": ["6x0o", "6x0e"]}, "features 6x0o"),
        ({"cutoff": "far"}, "cannot read"),
        ({"radial_basis": {"radial_basis_name": "other"}}, "functions other"),
    ],
)
def test_what_alloop_has_not_is_a_sentence(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    _, checkpoint = small_sevennet()
    checkpoint["config"] = {**CONFIG, **change}
    with pytest.raises(InputError, match=sentence):
        converted(checkpoint, tmp_path)


class Code:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("mark"),))


def test_a_checkpoint_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with code in it is no checkpoint, and needs mace-torch."""
    monkeypatch.chdir(tmp_path)
    _, checkpoint = small_sevennet()
    Path("own.pth").write_bytes(pickle.dumps({**checkpoint, "more": Code()}))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="mace-torch"):
        convert_model(Path("own.pth"), Path("own.alloop"), "MIT")
    assert not Path("mark").exists()


def test_a_name_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"7net-9 is not there; .*7net-0, 7net-l3i5"):
        convert_model(Path("7net-9"), tmp_path / "own.alloop")


def test_the_command_takes_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["convert", "7net-0", "--out", "own.alloop"]) == 0
    out, err = capsys.readouterr()
    assert "89 elements" in out
    assert "MIT" in out
    assert "pickle" not in out + err
    assert read_converted("own.alloop").kind == "sevennet"
