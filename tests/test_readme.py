"""What the README shows is what happens."""

import doctest
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The part of a clone that the examples touch."""
    for folder in ("campaigns", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.mark.usefixtures("clone")
def test_the_examples_give_the_output_that_stands_there() -> None:
    text = "".join(blocks("pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    runner.run(test)
    assert test.examples
    assert runner.failures == 0


def test_the_first_two_commands_install_run_and_test() -> None:
    run, check = blocks("bash")[:2]
    assert run.strip().count("\n") == check.strip().count("\n") == 0
    assert "-c constraints.txt" in run
    assert "alloop run campaigns/water.yaml" in run
    assert "pytest" in check


def test_names_of_machines_and_work_stay_out_of_the_text() -> None:
    assert not re.search(r"(^|[^A-Za-z.])/(root|home|work)/", README)
