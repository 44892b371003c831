"""What the documentation shows is what happens."""

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import pytest
import yaml

import alloop
from alloop.cli import main

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = {
    "python_api.py": "energy drift",
    "own_level.py": "12 expensive labels to learn from",
    "read_store.py": "largest force component",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of a clone that the examples touch."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("campaigns", "configs", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def test_the_examples_in_the_pages_give_the_output_that_stands_there(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    found = {page: _examples(page) for page in PAGES if _examples(page)}
    first = ROOT / "docs" / "guide" / "exporting.md"  # makes the store others read
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for page in sorted(found, key=lambda page: page != first):
        test = doctest.DocTestParser().get_doctest(
            found[page], {}, page.name, str(page), 0
        )
        runner = doctest.DocTestRunner(optionflags=flags)
        runner.run(test)
        assert test.examples
        assert runner.failures == 0, page
    assert first in found


def test_every_example_is_tested() -> None:
    assert {x.name for x in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(clone: Path, name: str) -> None:
    if not (clone / "runs" / "toy.zarr").exists():
        _python(clone, "-m", "alloop", "run", "campaigns/toy.yaml", "--quiet")
    arguments = ["../runs/toy.zarr"] if name == "read_store.py" else []
    shown = _python(clone / "examples", name, *arguments)
    assert EXAMPLES[name] in shown


def test_the_schema_for_editors_is_valid_json_and_knows_all_top_level_keys() -> None:
    schema = json.loads(_python(ROOT, "-m", "alloop", "schema"))
    assert {"name", "start", "levels", "budget", "extends"} <= set(schema["properties"])


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    page = (ROOT / "docs" / "design" / "architecture.md").read_text()
    tree = re.search(r"^```text\nalloop/\n(.*?)^```", page, re.M | re.S)
    assert tree is not None
    named = {line.split()[0].rstrip("/") for line in tree.group(1).splitlines()}
    packages = {x.parent.name for x in (ROOT / "alloop").glob("*/__init__.py")}
    modules = {x.name for x in (ROOT / "alloop").glob("[a-z]*.py")}
    assert named == packages | modules


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+\.\w+)(?:#[^)]*)?\)", page.read_text()):
            if "generated" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def _examples(page: Path) -> str:
    return "".join(re.findall(r"^```pycon\n(.*?)^```", page.read_text(), re.M | re.S))


def _python(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SMALL = {
    **{"validation": {"frames": 8, "each": 2, "spacing": 5, "examination": 4}},
    **{"seeds": {"cheap": 12, "expensive": 4, "temperature": 400}},
    **{"explore": {"walkers": 2, "batch": 2, "steps": 20, "piece": 10, "stride": 5}},
    **{"potential": {"kind": "pairwise"}, "training": {"every": 4}},
    **{"budget": {"cheap": 20, "expensive": 8}, "cluster": {"kind": "inline"}},
    **{"limits": {"isolate": False}},
}
CHEAP_LEVELS = {
    "'b3lyp/def2-svp'": "'{kind: toy, stiffness: 0.95, stretch: 0.01}'",
    "'ccsd(t)/cc-pvdz'": "'{kind: toy}'",
}


@pytest.mark.slow
def test_the_commands_of_your_own_molecule_lead_to_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cheap levels and a small budget in place of those of the page."""
    monkeypatch.chdir(tmp_path)
    water = ase.build.molecule("H2O")
    ase.io.write("mol.xyz", water)
    commands = _commands(ROOT / "docs" / "guide" / "own_molecule.md")
    for command in commands:
        for real, cheap in CHEAP_LEVELS.items():
            command = command.replace(real, cheap)
        assert main(shlex.split(command)[1:]) == 0, command
        if command.startswith("alloop init"):
            file = Path("mol.yaml")
            file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | SMALL))
    frames = ase.io.read("labels.xyz", index=":")
    assert len(frames) == 8
    water.calc = alloop.load("mol.model").calculator()
    assert abs(water.get_forces()).max() < 5


def _commands(page: Path) -> list[str]:
    """Return the lines of the `bash` blocks of a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line]
