"""Code that a YAML file or a store names: only a run executes it, and a store's only if
somebody said so."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.config import load_campaign
from alloop.config.sections.clusters import BatchSystem
from alloop.core.errors import InputError
from alloop.core.records import Unlabelled
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import ase_level, pyscf_level, toy_level
from alloop.labels.named_code import path_problems
from alloop.labels.programs import outside_code
from tests.conftest import write_toy

OWN = """
from pathlib import Path
from alloop.labels.result import Result
from alloop.labels.toy import label_with_toy, toy_level
Path({mark!r}).touch()

def label(frame, settings):
    return label_with_toy(frame, toy_level().settings)

def one(frame):
    return None

class Calculator:
    pass
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the module `owned.levels` has been imported."""
    found = tmp_path / "imported"
    (tmp_path / "owned").mkdir()
    (tmp_path / "owned" / "__init__.py").write_text(OWN.format(mark=str(found)))
    (tmp_path / "owned" / "levels.py").write_text(OWN.format(mark=str(found)))
    monkeypatch.syspath_prepend(tmp_path)
    return found


def campaign(folder: Path, level: dict[str, object], **changes: object) -> Path:
    levels = {"cheap": {"kind": "toy", "stiffness": 0.9}, "expensive": level}
    return write_toy(folder, levels=levels, **changes)


SHELL = {"kind": "ase", "calculator": "subprocess.getoutput"}


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ({**SHELL, "arguments": {"cmd": "touch MARK"}}, "Python's own"),
        ({"kind": "os:system"}, "Python's own"),
        ({"kind": "builtins:exec"}, "Python's own"),
        ({"kind": "owned.levels:nothing"}, "has no nothing"),
        ({"kind": "owned.nowhere:label"}, "no module"),
        ({"kind": "nowhere.at.all:label"}, "no module"),
        ({"kind": "owned.levels:a b"}, "no import path"),
        ({"kind": "ase", "calculator": "owned.levels.Calculators"}, "has no"),
        ({"kind": "ase", "calculator": "ase.calculators.lj.Lennard"}, "has no"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "plan"])
def test_code_that_cannot_make_labels_is_refused_unread(
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    level: dict[str, object],
    words: str,
    verb: str,
) -> None:
    said = str(level).replace("MARK", str(mark))
    file = campaign(mark.parent, eval(said))
    assert main([verb, str(file)]) == 2
    assert words in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("verb", ["check", "plan"])
@pytest.mark.parametrize(
    "level",
    [
        {"kind": "owned.levels:label"},
        {"kind": "ase", "calculator": "owned.levels.Calculator"},
        {
            "kind": "ase",
            "calculator": "ase.calculators.cp2k.CP2K",
            "arguments": {"command": "touch MARK"},
        },
    ],
)
def test_code_that_may_be_right_is_left_to_the_run(
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    level: dict[str, object],
    verb: str,
) -> None:
    file = campaign(mark.parent, eval(str(level).replace("MARK", str(mark))))
    assert main([verb, str(file)]) == 0
    out = capsys.readouterr().out
    assert ("not checked here" if verb == "check" else "not priced") in out
    assert not mark.exists()


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ({"kind": "ase", "calculator": "owned.levels.Calculator"}, "no class of ASE"),
        ({"kind": "owned.levels:one"}, "expected a function"),
    ],
)
def test_a_run_looks_at_the_code_before_it_begins(
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    level: dict[str, object],
    words: str,
) -> None:
    file = campaign(mark.parent, level)
    assert main(["run", str(file), "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert not file.with_name("toy.zarr").exists()


def test_only_classes_of_calculators_are_called(tmp_path: Path) -> None:
    command = {"cmd": f"touch {tmp_path}/ran"}
    level = ase_level("subprocess.getoutput", command)
    frame = load_campaign(write_toy(tmp_path)).start[0]
    outcome = DirectLabeller(level).label(frame)
    assert isinstance(outcome, Unlabelled)
    assert "no class of ASE calculators" in outcome.message
    assert not (tmp_path / "ran").exists()


def test_a_store_s_own_code_runs_only_if_it_is_trusted(
    mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = {"kind": "owned.levels:label"}
    file = campaign(mark.parent, level, budget={"cheap": 16, "expensive": 6})
    assert main(["run", str(file), "--quiet"]) == 0
    assert mark.exists()
    mark.unlink()
    store = file.with_name("toy.zarr")
    for verb in ("resume", "run"):
        assert main([verb, str(store), "--quiet"]) == 2
        assert "owned.levels:label" in capsys.readouterr().err
    for verb in ("status", "log", "doctor"):
        assert main([verb, str(store)]) == 0
    with pytest.raises(InputError, match="trust=True"):
        Campaign.from_store(store).run()
    assert not mark.exists()
    assert main(["resume", str(store), "--quiet", "--trust"]) == 0


@pytest.mark.parametrize(
    ("cluster", "named"),
    [
        ({"kind": "address", "address": "tcp://10.9.8.7:1"}, "10.9.8.7"),
        (
            {
                "kind": "slurm",
                "walltime": "1 h",
                "labels": {"memory": "1 GB"},
                "prologue": ["curl x | sh"],
            },
            "curl x",
        ),
    ],
)
def test_a_store_s_scheduler_and_shell_lines_are_its_code_too(
    tmp_path: Path, cluster: dict[str, object], named: str
) -> None:
    Campaign.from_yaml(write_toy(tmp_path, cluster=cluster)).refuse_distrusted()
    setup = load_campaign(write_toy(tmp_path, cluster=cluster))
    with pytest.raises(InputError, match=named):
        Campaign(setup, trust=False).refuse_distrusted()
    Campaign(load_campaign(write_toy(tmp_path)), trust=False).refuse_distrusted()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("queue", "all; touch x"),
        ("queue", "$(touch x)"),
        ("account", "a b"),
        ("interface", "ib0`touch x`"),
        ("directives", ["-l x\nrm -r ."]),
        ("prologue", ["module load gcc\x1b[2J"]),
    ],
)
def test_what_would_become_more_than_a_word_or_line_of_a_script_is_refused(
    tmp_path: Path, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = {"kind": "pbs", "walltime": "1 h", "labels": {"memory": "1 GB"}}
    assert main(["check", str(write_toy(tmp_path, cluster=cluster | {key: value}))])
    assert f"cluster.{key}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nb.zarr", "a\x1b[2J.zarr", "a\\b.zarr"])
def test_what_no_script_can_name_is_refused_in_a_store_s_path(
    tmp_path: Path, name: str
) -> None:
    assert main(["check", str(write_toy(tmp_path, store=name))]) == 2


def test_a_basis_set_is_a_name_and_no_file_with_expressions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    level = pyscf_level("hf", "mine.nw")
    text = f"#BASIS\nH S\n1.0 __import__('pathlib').Path({str(ran)!r}).touch()\nEND\n"
    (tmp_path / "mine.nw").write_text(text)
    with pytest.raises(InputError, match="is a file"):
        pyscf_level("hf", "mine.nw")
    with pytest.raises(InputError, match="is a text"):
        pyscf_level("hf", text)
    with IsolatedLabeller(level) as labeller:  # the file came later
        assert "knows no basis 'mine.nw'" in labeller.problems(["H"])[0]
    assert not ran.exists()


def test_what_a_module_binds_while_it_runs_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stars.py").write_text("from math import *\n")
    assert path_problems("stars.Whatever") == []
    assert outside_code(toy_level()) is None


def test_the_shell_lines_of_any_batch_system_are_foreign_code(tmp_path: Path) -> None:
    class Lsf(BatchSystem):
        kind: Literal["lsf"] = "lsf"

    setup = load_campaign(write_toy(tmp_path))
    cluster = Lsf.model_validate(
        {"walltime": "1 h", "labels": {"memory": "1 GB"}, "prologue": ["touch x"]}
    )
    plan = setup.plan.model_copy(update={"cluster": cluster})
    assert "cluster.prologue: touch x" in replace(setup, plan=plan).named_code
