"""How a command begins: quickly, ready to be stopped, and not ended by side issues."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from alloop.cli import main
from alloop.config import load_campaign
from alloop.config.yaml_text import ConfigError, parse_yaml
from alloop.core.errors import Interrupted
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.levels import pyscf_level
from tests.conftest import write_toy

HEAVY = {
    *("torch", "torch_geometric", "pyscf", "matplotlib", "distributed", "scipy"),
    *("zarr", "pandas", "jinja2", "safetensors"),
}
COMMANDS = """
import json, sys
from alloop.cli import main

loaded = {}
for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
    loaded[command[0]] = sorted(json.loads(sys.argv[2]) & sys.modules.keys())
print("LOADED", json.dumps(loaded))
""".replace("json.loads(sys.argv[2])", "set(json.loads(sys.argv[2]))")


def test_quick_commands_load_nothing_that_is_slow(tmp_path: Path) -> None:
    file = write_toy(tmp_path)
    store = str(file.with_name("toy.zarr"))
    assert main(["run", str(file), "--quiet"]) == 0
    fresh = str(write_toy(tmp_path / "fresh"))
    commands = [["--help"], ["version"], ["check", fresh], ["status", store]]
    commands.append(["log", store, "--last", "3"])
    script = [COMMANDS, json.dumps(commands), json.dumps(sorted(HEAVY))]
    done = subprocess.run(
        [sys.executable, "-c", *script], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.rpartition("LOADED ")[2])
    assert set(loaded) == {"--help", "version", "check", "status", "log"}
    assert not any(loaded.values())


def begin(file: Path, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alloop", "run", str(file), "--quiet"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **env}
    )


def test_ctrl_c_is_heard_while_the_workers_start(tmp_path: Path) -> None:
    file = write_toy(tmp_path, cluster={"kind": "local", "workers": 2})
    process = begin(file)
    me = psutil.Process(process.pid)
    while not any("--multiprocessing-fork" in x.cmdline() for x in me.children()):
        assert process.poll() is None
        time.sleep(0.01)
    before = [me, *me.children(recursive=True)]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 3, errors
    assert "continue with" in out
    assert "Traceback" not in errors
    assert not psutil.wait_procs(before, timeout=5)[1]
    assert main(["run", str(write_toy(tmp_path)), "--quiet"]) == 0


@pytest.mark.parametrize("moment", [0.0, 0.1])
def test_ctrl_c_is_heard_while_a_command_is_imported(
    tmp_path: Path, moment: float
) -> None:
    endless = {"cheap": 1_000_000, "expensive": 100_000}  # it must not end by itself
    process = begin(write_toy(tmp_path, budget=endless))
    maps = Path(f"/proc/{process.pid}/maps")
    while "pydantic_core" not in maps.read_text():  # typer's, before any command
        time.sleep(0.005)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGINT)  # the import of a library may swallow one
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors


INTERRUPTED = """
import sys
import alloop.cli, alloop.cli.app

def interrupted(arguments):
    exec("raise KeyboardInterrupt")

alloop.cli.app.run_command = interrupted
sys.exit(alloop.cli.main([]))
"""


def test_an_interrupt_inside_exec_ends_with_the_code_of_the_command(
    tmp_path: Path,
) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", "interrupted"]
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, check=False)
    assert done.returncode == 3


DYING = """
import os, signal, sys
if "--multiprocessing-fork" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_dies_while_it_starts_is_named_in_one_sentence(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING)
    file = write_toy(tmp_path, cluster={"kind": "local", "workers": 1})
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = begin(file, PYTHONPATH=path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "a worker process ended while it was started" in errors
    assert "Traceback" not in errors
    assert main(["run", str(write_toy(tmp_path)), "--quiet"]) == 0


def test_a_child_that_is_killed_during_a_check_is_no_mistake_of_the_user() -> None:
    with IsolatedLabeller(pyscf_level("hf", "sto-3g")) as labeller:

        def kill() -> None:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                if (pid := labeller.child.pid) is not None:
                    for process in psutil.Process(pid).children():
                        process.kill()
                        return

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(Interrupted, match="could not be checked") as stopped:
            labeller.problems(["H"])
        killer.join()
    assert stopped.value.exit_code == 3


def test_what_lies_beside_a_campaign_cannot_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache, a log and a report that cannot be written are told once each."""
    (tmp_path / "taken").write_text("a file")
    file = write_toy(tmp_path, cache="taken/labels")
    for suffix in (".html", ".log"):
        (tmp_path / "toy").with_suffix(suffix).mkdir()
    assert main(["run", str(file), "--quiet"]) == 0
    said = capsys.readouterr()
    warnings = [x for x in said.err.splitlines() if x.startswith("warning: ")]
    words = ("label cache", "no log", "no report")
    for word in words:
        assert sum(word in warning for warning in warnings) == 1, said.err
    assert len(warnings) == len(words)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{BOMB}start: *a39\n", "aliases"),
        ("start: &a [*a]\n", "no end"),
        ("start: &a {b: *a}\n", "no end"),
        ("start: " + "[" * 3000, "inside each other"),
    ],
)
def test_a_text_that_never_ends_is_refused_at_once(text: str, words: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError, match=words):
        parse_yaml(text, "it")
    assert time.process_time() - begun < 20


def test_aliases_that_save_typing_are_fine() -> None:
    text = "a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}\n"
    same = {"b": [1, 2]}
    assert parse_yaml(text, "it") == {"a": same, "c": same, "d": {**same, "e": 3}}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("explore", "walkers"),
        ("explore", "batch"),
        ("budget", "expensive"),
        ("budget", "cheap"),
        ("seeds", "cheap"),
        ("validation", "frames"),
        ("cluster", "workers"),
    ],
)
def test_a_count_that_no_machine_could_serve_is_refused(
    tmp_path: Path, section: str, key: str
) -> None:
    kind = {"kind": "local"} if section == "cluster" else {}
    file = write_toy(tmp_path, **{section: {**kind, key: 10**9}})
    with pytest.raises(ConfigError, match=rf"{section}.{key}: expected .* at most"):
        load_campaign(file)
