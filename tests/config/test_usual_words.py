"""What users of other programs write is understood, or answered with the right key."""

from pathlib import Path

import pytest

from alloop.config import ConfigError, parse_campaign
from alloop.config.sections.clusters import BatchSystem

TOY = """
name: toy
start: [{molecule: H2O}]
levels: {cheap: {kind: toy, stiffness: 0.9}, expensive: {kind: toy}}
"""
LEVELS = "name: x\nstart: [{molecule: H2O}]\nlevels: "
JOBS = "cluster: {kind: slurm, walltime: 4 h, labels: {memory: 1 GB}}\n"


def problems(text: str, base: Path) -> dict[str, str]:
    """What is wrong with a configuration, by path."""
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, base)
    return {problem.path: problem.text for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("4:00:00", 4 * 3600),
        ("1-00:00:00", 86400),
        ("2-03:30:05", 2 * 86400 + 3 * 3600 + 30 * 60 + 5),
        ("24 hours", 86400),
        ("1 hour", 3600),
        ("90 minutes", 5400),
        ("2 days", 2 * 86400),
        ("30 sec", 30),
        ("24 h", 86400),
        ("1 d", 86400),
        ("600", 600),
    ],
)
def test_a_time_is_read_as_schedulers_and_people_write_it(
    tmp_path: Path, written: str, seconds: float
) -> None:
    text = TOY + JOBS.replace("4 h", written) + f"limits: {{walltime: {written}}}\n"
    plan = parse_campaign(text, tmp_path).plan
    assert isinstance(plan.cluster, BatchSystem)
    assert (plan.cluster.walltime, plan.limits.walltime) == (seconds, seconds)


@pytest.mark.parametrize("written", ["4:00", "1-00", "-4 h", "3 weeks", "4h30"])
def test_a_time_that_could_mean_two_things_is_refused(
    tmp_path: Path, written: str
) -> None:
    found = problems(TOY + f"limits: {{walltime: {written}}}\n", tmp_path)
    assert "expected a " in found["limits.walltime"]
    assert f"got `{written}`" in found["limits.walltime"]


def test_the_words_of_slurm_are_answered_with_the_keys(tmp_path: Path) -> None:
    found = problems(TOY + "cluster: {time: 4:00:00, partition: x}\n", tmp_path)
    assert "`walltime: 4 h` with a `kind:` of `slurm`, `pbs`" in found["cluster.time"]
    assert "`queue: NAME` with a `kind:` of `slurm`" in found["cluster.partition"]
    text = JOBS.replace("walltime", "mem: 4G, time")
    found = problems(TOY + text, tmp_path)
    assert "`labels: {memory: 16 GB}`" in found["cluster.mem"]
    assert found["cluster.time"] == "no such key; here it is `walltime: 4 h`"


def test_a_gpu_is_cuda(tmp_path: Path) -> None:
    assert "did you mean `cuda`?" in problems(TOY + "device: gpu\n", tmp_path)["device"]


@pytest.mark.parametrize("section", ["explore", "seeds", "validation"])
def test_heat_that_leaves_no_bond_is_told(tmp_path: Path, section: str) -> None:
    wrong = problems(TOY + f"{section}: {{temperature: 1e9}}\n", tmp_path)
    assert "at most 100000" in wrong[f"{section}.temperature"]
    text = TOY + f"{section}: {{temperature: 9000}}\n"
    told = parse_campaign(text, tmp_path).warnings
    assert f"{section}.temperature: 9000 K breaks most bonds" in told[0]
    assert parse_campaign(TOY, tmp_path).warnings == ()


def test_a_scheduler_that_is_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (told,) = parse_campaign(TOY + JOBS, tmp_path).warnings
    assert "`sbatch` is not on this machine" in told
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert parse_campaign(TOY + JOBS, tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("cheap", "expensive", "reverse"),
    [
        ("ccsd(t)/cc-pvdz", "hf/sto-3g", True),
        ("b3lyp/def2-svp", "gfn2-xtb", True),
        ("mp2/cc-pvdz", "pbe/def2-svp", True),
        ("hf/cc-pvtz", "hf/sto-3g", True),
        ("b3lyp/def2-tzvp", "b3lyp/def2-svp", True),
        ("hf/sto-3g", "hf/cc-pvtz", False),
        ("pbe/cc-pvtz", "pbe/def2-tzvp", False),
        ("hf/sto-3g", "b3lyp/def2-svp", False),
        ("pbe/def2-svp", "hf/def2-svp", False),
        ("gfn1-xtb", "gfn2-xtb", False),
        ("b3lyp/def2-svp", "ccsd(t)/cc-pvdz", False),
    ],
)
def test_levels_in_reverse_are_told(
    tmp_path: Path, cheap: str, expensive: str, reverse: bool
) -> None:
    text = f"{LEVELS}{{cheap: {cheap}, expensive: {expensive}}}\n"
    warnings = parse_campaign(text, tmp_path).warnings
    assert any("exchange them" in x for x in warnings) == reverse


@pytest.mark.parametrize("basis", ["CBS", "CBS(3,4)"])
def test_a_basis_set_limit_is_no_basis(tmp_path: Path, basis: str) -> None:
    text = f"{LEVELS}{{expensive: 'ccsd(t)/{basis}'}}\n"
    told = problems(text, tmp_path)["levels.expensive"]
    assert "limit of a series" in told
    assert "crenbs" not in told
