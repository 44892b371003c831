"""What `alloop init --cluster` writes: a campaign, and a script that goes on and on."""

import stat
import subprocess
from pathlib import Path

import pytest

from alloop.cli import main
from alloop.cli.prepare_commands import job_script
from alloop.config import load_campaign
from alloop.workers.batch_systems import BATCH_SYSTEMS

ALLOOP = """#!/bin/bash
test "$3" = status && { test -e told && cat told; exit 0; }
echo "$@" >> calls
trap 'exit 3' USR1
test -e endless && { touch ready; while :; do sleep 0.05; done; }
exit $(cat code)
"""


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_init_writes_a_campaign_for_a_batch_system_and_its_job_script(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine", "--example", "toy", "--cluster", system]) == 0
    setup = load_campaign(Path("mine.yaml"))
    assert setup.cluster.kind == system
    script = Path(f"mine.{system}.sh").read_text()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert script.startswith("#!/bin/bash\n")
    assert "alloop run mine.yaml" in script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script whose alloop and sbatch only say what they are told."""
    tmp_path = tmp_path / "a $(touch hit) 'b' \"c\""
    tmp_path.mkdir()
    for name, text in (
        ("python", ALLOOP),
        ("sbatch", "#!/bin/sh\necho $@ >> sent\n"),
    ):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "job.sh").write_text(
        job_script("slurm", "a.yml", str(tmp_path / "python"))
    )
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    env = {"PATH": f"{folder}:/usr/bin:/bin"}
    pipe = subprocess.PIPE
    command = ["bash", "job.sh"]
    return subprocess.Popen(command, cwd=folder, env=env, stderr=pipe, text=True)


@pytest.mark.parametrize(("code", "sent"), [(0, False), (3, True), (2, False)])
def test_only_a_run_that_stopped_early_is_submitted_again(
    folder: Path, code: int, sent: bool
) -> None:
    (folder / "code").write_text(str(code))
    process = start(folder)
    _, errors = process.communicate(timeout=20)
    assert (folder / "sent").exists() == sent
    assert process.returncode == (0 if sent else code)
    assert ("fix the cause" in errors) == (code == 2)
    assert (folder / "calls").read_text() == "-m alloop run a.yml --quiet\n"
    assert not [*folder.parent.rglob("hit")]


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        ('{"state": "paused", "notice": {"text": "paused: 10 failed"}}', False),
        ('{"state": "stopped", "notice": null}', False),
        ('{"state": "paused", "notice": {"text": "the time is over"}}', True),
    ],
)
def test_a_run_that_paused_for_a_cause_waits_for_somebody_to_mend_it(
    folder: Path, told: str, sent: bool
) -> None:
    (folder / "code").write_text("3")
    (folder / "told").write_text(told)
    process = start(folder)
    _, errors = process.communicate(timeout=20)
    assert (folder / "sent").exists() == sent
    assert ("fix the cause" in errors) != sent


def test_a_script_of_lsf_submits_itself_as_standard_input(folder: Path) -> None:
    (folder / "code").write_text("3")
    stand_in = folder / "bsub"
    stand_in.write_text("#!/bin/sh\ncat > sent\n")
    stand_in.chmod(0o755)
    text = job_script("lsf", "a.yml", str(folder / "python"))
    (folder / "a.lsf.sh").write_text(text)
    env = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run(["bash"], input=text, text=True, cwd=folder, env=env, check=True)
    assert (folder / "sent").read_text() == text


def test_a_script_of_pbs_goes_to_its_folder_whatever_that_is_called(
    folder: Path,
) -> None:
    (folder / "code").write_text("0")
    text = job_script("pbs", "a b.yml", str(folder / "python"))
    env = {"PATH": "/usr/bin:/bin", "PBS_O_WORKDIR": str(folder)}
    subprocess.run(["bash"], input=text, text=True, cwd="/", env=env, check=True)
    assert (folder / "calls").read_text() == "-m alloop run a b.yml --quiet\n"


def test_a_name_that_would_be_an_option_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--cluster", "pbs", "--", "-rf"]) == 2
    assert not [*tmp_path.iterdir()]


def test_a_warning_reaches_alloop_and_its_clean_end_is_awaited(folder: Path) -> None:
    (folder / "endless").touch()
    process = start(folder)
    try:
        while not (folder / "ready").exists():
            assert process.poll() is None
        process.send_signal(10)  # SIGUSR1
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert (folder / "sent").read_text() == "a.slurm.sh\n"
