"""The scripts of `examples/`: short, and run on campaigns of toy levels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from alloop.campaign import Campaign
from tests.conftest import skip_without, write_toy

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def output(name: str, *arguments: object, folder: Path | None = None) -> str:
    """What a script prints; it must succeed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def methanol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a toy campaign on methanol."""
    folder = tmp_path_factory.mktemp("methanol")
    Campaign.from_yaml(write_toy(folder, start=[{"molecule": "CH3OH"}])).run()
    return folder / "toy.zarr"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [x for x in SCRIPTS if x.name != "read_store.py"],
    ids=lambda path: path.name,
)
def test_scripts_import_what_they_need_and_have_help(script: Path) -> None:
    text = script.read_text()
    for package in ("openmm", "openmmml", "ipi", "pymbar"):
        if f"from {package}" in text:
            skip_without(package)
    assert "usage:" in output(script.name, "--help")


def test_the_splitting_of_ammonia_on_a_toy_level(tmp_path: Path) -> None:
    Campaign.from_yaml(write_toy(tmp_path, start=[{"molecule": "NH3"}])).run()
    said = output("ammonia_splitting.py", tmp_path / "toy.zarr")
    levels = said.partition("levels ")[2].split(" cm")[0].split(", ")
    assert len(levels) == 5
    assert sorted(levels, key=float) == levels


@pytest.mark.slow
def test_the_fundamentals_of_formaldehyde_on_a_toy_level(tmp_path: Path) -> None:
    bent = molecule("H2CO")  # of Morse pairs, it is not planar
    bent.rattle(0.2, seed=1)
    write(tmp_path / "start.xyz", bent)
    Campaign.from_yaml(write_toy(tmp_path, start=[{"file": "start.xyz"}])).run()
    direct = EXAMPLES.parent / "benchmarks/results/showcases/formaldehyde_direct.json"
    arguments = (tmp_path / "toy.zarr", "--direct", direct)
    said = output("formaldehyde_fundamentals.py", *arguments)
    rows = [line.split() for line in said.splitlines()[1:7]]
    assert [row[3] for row in rows] == ["1167", "1249", "1500", "1746", "2782", "2843"]
    for _, harmonic, fundamental, measured, difference in rows:
        assert float(fundamental) != float(harmonic)
        away = float(fundamental) - float(measured)
        assert away == pytest.approx(float(difference), abs=0.11)
    assert "directly: 313 expensive labels" in said


@pytest.mark.slow
def test_the_torsion_of_methanol_on_a_toy_level(methanol: Path) -> None:
    skip_without("pymbar")
    said = output("methanol_torsion.py", methanol, "--steps", 500)
    assert abs(float(said.split()[2])) < 5.0


@pytest.mark.slow
def test_methanol_in_a_box_of_water(methanol: Path, tmp_path: Path) -> None:
    skip_without("openmmml")
    file = Campaign.from_store(methanol).export_model(tmp_path / "toy.model")
    said = output(
        "methanol_in_water.py", file, "--picoseconds", 0, "--box", 2.1, folder=tmp_path
    )
    atoms = int(said.split()[0])
    assert (atoms - 6) % 3 == 0
    assert atoms > 600
