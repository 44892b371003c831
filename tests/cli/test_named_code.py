"""Which commands execute the code that files name: an audit hook sees all of them.

The hook of Python reports imports, executed sources, started programs, unpickled names
and opened libraries of the process that runs the command; the named code itself leaves
a mark, whatever process runs it.
"""

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.io import write

from benchmarks.durability.processes import ForkServer
from tests.conftest import TOY, write_toy

OWN = """
from pathlib import Path
from alloop.labels.toy import label_with_toy, toy_level
Path({mark!r}).touch()

def label(frame, settings):
    return label_with_toy(frame, toy_level().settings)
"""
SERVER = """
import json, os, sys
from pathlib import Path
import ase.db, ase.io.extxyz, ase.io.trajectory, zarr.codecs, zarr.storage
import alloop.campaign, alloop.cli.app, alloop.report.sections.page
import alloop.jobs.md_job, alloop.jobs.train_job, alloop.store_copies.repair
from alloop.cli import main

def work(line):
    order = json.loads(line)
    folder, seen = Path(order["folder"]), []
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)

    def audit(event, args):
        if event == "pickle.find_class":
            seen.append(f"unpickled {args[0]}.{args[1]}")
        elif event in ("import", "exec", "ctypes.dlopen", "os.system",
                       "os.exec", "os.posix_spawn", "subprocess.Popen"):
            told = repr(args[:1] if event == "import" else args[:2])  # no search path
            if "owned" in told or "MARK" in told or str(folder) in told:
                seen.append(f"{event} {told[:200]}")

    sys.addaudithook(audit)
    code = main(order["arguments"])
    (folder / "seen.json").write_text(json.dumps([code, seen]))
    os._exit(0)
"""


class Trap:
    """An object that makes a file while it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


class Place:
    """A folder of files that name code, and a server that runs commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, folder / "MARK"
        (folder / "owned.py").write_text(OWN.format(mark=str(self.mark)))
        self.server = ForkServer(SERVER, PYTHONPATH=str(folder))
        self._write_files()

    def _write_files(self) -> None:
        named = {"kind": "owned:label"}
        levels = {"cheap": {"kind": "toy", "stiffness": 0.9}, "expensive": named}
        shell = {
            "kind": "ase",
            "calculator": "ase.calculators.cp2k.CP2K",
            "arguments": {"command": f"touch {self.mark}"},
        }
        job = {
            "kind": "slurm",
            "walltime": "1 h",
            "labels": {"memory": "1 GB"},
            "prologue": [f"touch {self.mark}"],
        }
        each = {"cheap": levels["cheap"], "expensive": shell}
        small = {"levels": levels, "budget": {"cheap": 16, "expensive": 6}}
        write_toy(self.folder, **small)
        tree = {**yaml.safe_load(TOY), "levels": each, "cluster": job}
        (self.folder / "shell.yaml").write_text(yaml.safe_dump(tree))
        (self.folder / "level.yaml").write_text(yaml.safe_dump(named))
        (self.folder / "water.xyz").write_text(
            "3\n\nO 0 0 0.1\nH 0 0.8 -0.5\nH 0 -0.8 -0.5\n"
        )
        bent = molecule("H2O")
        bent.set_angle(1, 0, 2, 125.0, indices=[2])
        write(self.folder / "other.xyz", bent)
        trap = Trap(self.mark)
        pickled = pickle.dumps(trap)
        for name in ("trap.model", "trap.pckl"):
            (self.folder / name).write_bytes(pickled)
        old = b"PickleTrajectory" + pickle.dumps({"positions": trap}, 2)
        (self.folder / "trap.traj").write_bytes(old)
        np.savez(
            self.folder / "trap.npz", E=np.array([trap], object), allow_pickle=True
        )

    def run(self, command: str) -> tuple[int, list[str], str]:
        """Run a command; return its code, what the hook saw, and what it said."""
        for name in ("said", "seen.json", "MARK"):
            (self.folder / name).unlink(missing_ok=True)
        words = ["{kind: owned:label}" if x == "LEVEL" else x for x in command.split()]
        order = {"folder": str(self.folder), "arguments": words}
        self.server.spawn(json.dumps(order))
        assert self.server.wait() == 0
        code, seen = json.loads((self.folder / "seen.json").read_text())
        return code, seen, (self.folder / "said").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("named"))
    with closing(found.server):
        code, seen, said = found.run("run toy.yaml --quiet")
        assert code == 0, said
        assert any(x.startswith("exec") and "owned.py" in x for x in seen)
        assert found.mark.exists()
        assert found.run("export toy.zarr labels.xyz --level cheap")[0] == 0
        copytree(found.folder / "toy.zarr", found.folder / "damaged.zarr")
        yield found


@pytest.mark.parametrize(
    "command",
    [
        "label water.xyz --level LEVEL --out l.xyz --workers 1 --quiet",
        "label water.xyz --level level.yaml --out k.xyz --workers 1 --quiet",
        "atoms H --level LEVEL",
        "md LEVEL water.xyz --steps 2 --out w.traj --quiet",
        "diagnose LEVEL water.xyz --training labels.xyz",
        "path water.xyz other.xyz --store toy.zarr --no-relax --level LEVEL",
        "resume toy.zarr --trust --quiet",
    ],
)
def test_these_commands_execute_the_code_of_a_level(place: Place, command: str) -> None:
    if command.startswith("resume"):
        place.run("fork toy.zarr f.zarr --at 1")
        command = command.replace("toy.zarr", "f.zarr")
    code, _, said = place.run(command)
    assert (code, place.mark.exists()) == (0, True), said


@pytest.mark.parametrize(
    "command",
    [
        *("check toy.yaml", "plan toy.yaml", "check shell.yaml", "plan shell.yaml"),
        *("status toy.yaml", "status toy.zarr --all", "log toy.zarr", "schema"),
        *("report toy.zarr", "doctor toy.zarr", "doctor damaged.zarr --repair r.zarr"),
        *("export toy.zarr e.xyz", "export toy.zarr --model e.model", "stop toy.zarr"),
        *("why toy.zarr 0", "exclude toy.zarr 0 --reason odd", "fork toy.zarr g.zarr"),
        *("resume toy.zarr --quiet", "run toy.zarr --quiet", "train toy.zarr --out t"),
        *("md toy.zarr water.xyz --steps 2 --out x.traj", "refine toy.zarr water.xyz"),
        *("score water.xyz --store toy.zarr", "diagnose toy.zarr water.xyz"),
        *("init --from water.xyz new", "version", "doctor"),
        "path water.xyz other.xyz --store toy.zarr --no-relax --out band.xyz",
        "path water.xyz trap.traj --model trap.model",
        "md trap.model water.xyz --steps 2 --out y.traj",
        *("score trap.traj --store toy.zarr", "score trap.npz --store toy.zarr"),
        *("label trap.traj --level {kind:toy} --out o", "export trap.model o.xyz"),
        *("train --expensive trap.npz --out u.model", "refine trap.model water.xyz"),
        *("train --expensive trap.pckl --out u.model", "diagnose trap.model water.xyz"),
    ],
)
def test_no_other_command_executes_what_a_file_names(
    place: Place, command: str
) -> None:
    code, seen, said = place.run(command)
    assert (seen, place.mark.exists()) == ([], False), said
    assert "Traceback" not in said
    assert code in (0, 1, 2, 3, 4)
