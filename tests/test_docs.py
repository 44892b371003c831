"""What the documentation shows is what happens."""

import ast
import doctest
import json
import os
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import yaml

import alloop
from alloop.cli import main

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
GALLERY = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))


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


def test_the_store_is_read_without_alloop(clone: Path) -> None:
    if not (clone / "runs" / "toy.zarr").exists():
        _python(clone, "-m", "alloop", "run", "campaigns/toy.yaml", "--quiet")
    shown = _python(clone / "examples", "read_store.py", "../runs/toy.zarr")
    assert "largest force component" in shown


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_an_example_of_the_gallery_shows_a_picture_and_asserts_what_it_says(
    path: Path,
) -> None:
    """The build of the documentation runs it, and fails where it does."""
    tree = ast.parse(path.read_text())
    assert any(isinstance(node, ast.Assert) for node in tree.body), path.name
    calls = {ast.unparse(x.func) for x in ast.walk(tree) if isinstance(x, ast.Call)}
    assert "plt.show" in calls
    title, line = (ast.get_docstring(tree) or "").splitlines()[:2]
    assert set(line) == {"="}
    assert len(line) == len(title)


def test_the_documentation_runs_all_examples_and_stops_at_an_error() -> None:
    code = "import json, conf; print(json.dumps(conf.sphinx_gallery_conf))"
    settings = json.loads(_python(ROOT / "docs", "-c", code))
    assert (ROOT / "docs" / settings["examples_dirs"]).samefile(GALLERY[0].parent)
    assert settings["abort_on_example_error"]
    assert "sphinx-build -W" in (ROOT / "README.md").read_text()
    here = {path.name for path in (ROOT / "examples").rglob("*.py")}
    scripts = {x.name for x in (ROOT / "examples").glob("*.py")}  # test_examples.py
    assert here == {x.name for x in GALLERY} | scripts | {"springs.py"}
    assert len(GALLERY) >= 8


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


def test_the_reference_has_all_that_alloop_exports() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    objects = {getattr(alloop, name) for name in alloop.__all__ if name[0] != "_"}
    pages = re.findall(r"auto(?:class|function):: ([\w.]+)", page)
    shown = {pydoc.locate(path) for path in pages}
    for path in re.findall(r"automodule:: ([\w.]+)", page):
        shown |= {x for x in vars(import_module(path)).values() if callable(x)}
    assert objects <= shown
    assert None not in shown


def test_importing_alloop_loads_no_torch_and_shows_its_names() -> None:
    code = "import sys, alloop; print('torch' in sys.modules, *dir(alloop))"
    loaded, *names = _python(ROOT, "-c", code).split()
    assert loaded == "False"
    assert set(names) == set(alloop.__all__)


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


def test_the_folders_for_other_trainers_hold_what_the_store_holds(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands of the page."""
    monkeypatch.chdir(clone)
    if not Path("runs/toy.zarr").exists():
        assert main(["run", "campaigns/toy.yaml", "--quiet"]) == 0
    for command in _commands(ROOT / "docs" / "guide" / "other_trainers.md"):
        assert main(shlex.split(command)[1:]) == 0, command
    printed = capsys.readouterr().out
    campaign = alloop.Campaign.from_yaml("campaigns/toy.yaml")
    free_atoms = {}
    for folder, atoms_in_file in (("toy-mace", 2), ("toy-nequip", 0)):
        for split in ("train", "validation", "test"):
            known = campaign.dataset("expensive", split=split)
            found = ase.io.read(f"{folder}/{split}.xyz", index=":")
            if split == "train":
                single, found = found[:atoms_in_file], found[atoms_in_file:]
                assert {x.info["config_type"] for x in single} <= {"IsolatedAtom"}
                free_atoms |= {str(x.symbols): x.info["REF_energy"] for x in single}
            assert len(found) == len(known)
            for one, other in zip(found, known, strict=True):
                assert one.info["REF_energy"] == other.info["REF_energy"]
                np.testing.assert_allclose(
                    one.arrays["REF_forces"], other.arrays["REF_forces"], atol=1e-8
                )
        line = re.search(r"```bash\n(.*?)\n", Path(folder, "README.md").read_text())
        assert line is not None
        assert " ".join(line.group(1).split()) in " ".join(printed.split())
    words = shlex.split(Path("toy-mace/README.md").read_text().split("```bash")[1])
    (given,) = (x for x in words if x.startswith("--E0s="))
    assert ast.literal_eval(given[6:]) == {1: free_atoms["H"], 8: free_atoms["O"]}
    settings = yaml.safe_load(Path("toy-nequip/config.yaml").read_text())
    shifts = settings["training_module"]["model"]["per_type_energy_shifts"]
    assert shifts == free_atoms
    assert settings["model_type_names"] == ["H", "O"]
    again = ["export", "runs/toy.zarr", "toy-mace", "--for", "mace"]
    assert main(again) == 2


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


def test_the_reference_has_a_page_for_each_section_of_a_campaign_file(
    tmp_path: Path,
) -> None:
    _python(
        ROOT / "docs", "-c", f"import reference_pages as r; {_WRITE}", str(tmp_path)
    )
    index = (tmp_path / "campaign_file.md").read_text()
    listed = set(re.findall(r"^campaign_file_\w+$", index, re.M))
    pages = {x.stem for x in tmp_path.glob("campaign_file_*.md")}
    assert listed == pages >= {"campaign_file_levels", "campaign_file_explore"}
    assert "`timestep`" in (tmp_path / "campaign_file_explore.md").read_text()
    assert max(len(x.read_text()) for x in tmp_path.glob("campaign_file*")) < 20_000


_WRITE = "import sys, pathlib; r.write(pathlib.Path(sys.argv[1]))"


NEW_PAGES = ("own_molecule", "using_the_model", "other_trainers", "glossary")


@pytest.mark.parametrize("page", NEW_PAGES)
def test_every_page_of_the_way_to_a_model_has_a_picture(page: str) -> None:
    text = (ROOT / "docs" / "guide" / f"{page}.md").read_text()
    assert re.search(r"!\[[^\]]+\]\(\.\./images/[\w.]+\)", text)


def test_pictures_are_small_used_and_drawn_by_a_script_or_by_hand() -> None:
    text = "".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    script = (ROOT / "docs" / "pictures.py").read_text()
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 150_000
        assert f"images/{picture.name}" in text
        assert picture.suffix == ".svg" or picture.name in script + _WATER
    drawn = {"panel.svg", "path.svg", "report.png", "watch.png", "watch_narrow.png"}
    assert drawn <= set(re.findall(r'"(\w+\.(?:svg|png))"', script))


_WATER = "water_learning_curve.png"  # of the report of campaigns/water.yaml


def test_the_files_for_slurm_are_those_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Init and check are run; of sbatch, that its script exists and is a valid one."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("mol.xyz", ase.build.molecule("H2O"))
    page = (ROOT / "docs" / "guide" / "clusters.md").read_text()
    (block,) = re.findall(r"```text\n(alloop init --from.*?)```", page, re.S)
    make, check, submit = block.splitlines()
    assert main(shlex.split(make)[1:]) == 0
    assert main(shlex.split(check)[1:]) == 0
    program, script = submit.split()
    assert program == "sbatch"
    assert Path(script).read_text().startswith("#!")
    assert "#SBATCH" in Path(script).read_text()
    subprocess.run(["bash", "-n", script], check=True)
    example = ROOT / "campaigns" / "slurm_methanol.yaml"
    assert "campaigns/slurm_methanol.yaml" in page
    assert yaml.safe_load(example.read_text())["cluster"]


def test_formulas_are_formulas() -> None:
    for page in PAGES:
        text = re.sub(
            r"```.*?```|`[^`]*`|\$\$?[^$]+\$\$?", "", page.read_text(), flags=re.S
        )
        assert not re.search(r"sqrt\(|√∫|\bexp\(|\^\(-", text), page
