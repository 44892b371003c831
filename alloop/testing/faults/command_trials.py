"""Trials of single commands: death, or an error of the disk, at each of their changes.

A `Scene` is a folder with all that the commands read. Each trial hits a command in a
copy of it. Whatever the command was to write is then whole or not there, whatever it
read is as it was, and the same command, repeated, ends with the same result.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ase.io import write

from alloop.cli import main
from alloop.core.atoms import to_atoms
from alloop.core.errors import AlloopError
from alloop.files.ase_files import DATABASES, database_rows
from alloop.files.targets import PAGES
from alloop.history.column_check import check_columns
from alloop.history.reader import read_history
from alloop.store.journal import FOLDER, STAGING
from alloop.testing.faults.comparison import Trial, campaign_contents
from alloop.testing.faults.system_calls import KILL, Ending, FaultServer
from alloop.testing.faults.toy_campaign import write_campaign

_NETWORK = "{kind: painn, channels: 4, layers: 1, cutoff: 3.0}"
_STAGES = "{kind: asteroid, bias: plain, teacher: 4, pretrain: 6, finetune: 4}"
_TRAIN = ("--cheap", "cheap.xyz", "--expensive", "exp.xyz")
_SMALL = ("--potential", _NETWORK, "--training", _STAGES, "--quiet")
_LABEL = ("label", "start.xyz", "--level", "{kind: toy}", "--workers", "1", "--quiet")
_MD = ("md", "pair.model", "start.xyz", "--steps", "400", "--walkers", "2", "--quiet")
_VOLATILE = re.compile(r"(_?cpu_seconds|ctime|mtime|unique_id)=\S+|\d+(\.\d+)? s\b")
_DONE = ("there already", "exists already", "is excluded already")
# So that states of trainings are saved at each step, and figures are left blank.
PRELUDE = """
from markupsafe import Markup
from alloop.report.sections import (
    error_figures, residual_section, run_figures, shift_figures,
)
for module in (error_figures, residual_section, run_figures, shift_figures):
    module.draw_svg = lambda *_, **__: Markup("<svg/>")
import ase.db, ase.io.extxyz, ase.io.trajectory, zarr.codecs, zarr.storage
import alloop.campaign, alloop.config.load, alloop.store_copies.repair
import alloop.jobs.label_job, alloop.jobs.md_job, alloop.potentials.restore
from alloop.training.state_folder import StateFolder
StateFolder.should_save = lambda self: True
"""


@dataclass(frozen=True, slots=True)
class CommandCase:
    """A command with its arguments, and the files or stores that it writes."""

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The command and the ending of its output."""
        return f"{self.arguments[0]} {Path(self.outputs[0]).suffix}"


CASES = (
    CommandCase(("run", "toy.yaml", "--quiet"), ("toy.zarr", "toy.html")),
    CommandCase(
        ("train", *_TRAIN, *_SMALL, "--out", "new.model"),
        ("new.model", "new.model.json"),
    ),
    CommandCase(
        (*_LABEL, "--out", "l.xyz"),
        ("l.xyz", "l.xyz.failures.csv"),
    ),
    CommandCase(
        (*_LABEL, "--out", "l.db"),
        ("l.db",),
    ),
    CommandCase((*_MD, "--out", "w.extxyz"), ("w.extxyz",)),
    CommandCase((*_MD, "--out", "w.db"), ("w.db",)),
    CommandCase((*_MD, "--out", "w.traj"), ("w.traj",)),
    CommandCase(
        ("refine", "net.model", "start.xyz", "--radius", "3.2", "--out", "r.model"),
        ("r.model",),
    ),
    CommandCase(("export", "old.zarr", "e.xyz"), ("e.xyz",)),
    CommandCase(("export", "old.zarr", "e.db"), ("e.db",)),
    CommandCase(
        ("export", "old.zarr", "e.xyz", "--level", "both"),
        ("e-cheap.xyz", "e-expensive.xyz"),
    ),
    CommandCase(("export", "old.zarr", "--model", "e.model"), ("e.model",)),
    CommandCase(("fork", "old.zarr", "f.zarr"), ("f.zarr",)),
    CommandCase(
        ("doctor", "damaged.zarr", "--repair", "f.zarr"), ("f.zarr", "f.zarr.lost.txt")
    ),
    CommandCase(("report", "old.zarr", "--out", "r.html"), ("r.html",)),
    CommandCase(("exclude", "old.zarr", "FRAME", "--reason", "odd"), ("old.zarr",)),
    CommandCase(("init", "new", "--cluster", "slurm"), ("new.yaml", "new.slurm.sh")),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder with all that the commands read, and a server that runs them."""

    template: Path
    scratch: Path
    server: FaultServer

    def copy(self, name: str) -> Path:
        """Return a fresh copy of the folder, always at the same path."""
        place = self.scratch / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.template, place)
        return place

    def run(
        self, folder: Path, case: CommandCase, *fault: Any, **options: Any
    ) -> Ending:
        """Run the command of a case in a copy."""
        frame = (folder / "frame").read_text()
        words = [frame if word == "FRAME" else word for word in case.arguments]
        return self.server.run(folder, words, *fault, **options)


def build_template(folder: Path, store: Path, *, network: bool = True) -> None:
    """Make the files that the commands read: stores, labels, models, structures.

    store: that of a finished toy campaign. network: train one too, for `refine`.
    """
    write_campaign(folder)
    old = Path(shutil.copytree(store, folder / "old.zarr"))
    frames = read_history(old).label_index.frames
    (folder / "frame").write_text(min(frames))
    write(folder / "start.xyz", [to_atoms(frames[x]) for x in sorted(frames)[:2]])
    _run("export", old, folder / "exp.xyz")
    _run("export", old, folder / "cheap.xyz", "--level", "cheap")
    _run("export", old, "--model", folder / "pair.model")
    damaged = Path(shutil.copytree(old, folder / "damaged.zarr"))
    (file,) = (damaged / FOLDER).glob("00000000-*")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    if network:
        words = [folder / x if x.endswith(".xyz") else x for x in (*_TRAIN, *_SMALL)]
        _run("train", *words, "--out", folder / "net.model")


def _run(*words: object) -> None:
    if code := main([str(word) for word in words]):
        raise RuntimeError(f"alloop {words} ended with {code}")


def command_trials(
    scene: Scene,
    case: CommandCase,
    error: int = KILL,
    *,
    lasting: bool = False,
    numbers: Iterable[int] | None = None,
) -> Iterator[Trial]:
    """Yield a trial for each change of the folder, or for those with these numbers.

    error: an errno, or `KILL`; lasting: all later changes fail too. numbers below 0
    count from the end.
    """
    expected, calls = _undisturbed(scene, case)
    for given in count() if numbers is None else numbers:
        number = given if given >= 0 else calls + given
        folder = scene.copy("hit")
        ending = scene.run(folder, case, number, error, lasting=lasting)
        if ending.calls >= 0 and ending.calls <= number:
            return
        problem = _ending_problem(ending, error)
        problem = problem or _half_problem(scene, folder, case, expected)
        if not problem and ending.code != 0:
            again = scene.run(folder, case)
            problem = _again_problem(folder, case, again, expected)
        name = f"{case.name} {'killed' if error == KILL else f'errno {error}'}"
        yield Trial(name, f"call {number}", problem, number=number)


def _undisturbed(scene: Scene, case: CommandCase) -> tuple[dict[str, Any], int]:
    """Return what the command makes, and the number of its changes."""
    folder = scene.copy("hit")
    ending = scene.run(folder, case)
    if ending.code:
        raise RuntimeError(f"{case.name} ended with {ending.code}: {ending.errors}")
    return output_contents(folder, case.outputs), ending.calls


def _ending_problem(ending: Ending, error: int) -> str:
    """Return what is wrong with the end of a command that was hit."""
    if error == KILL:
        return "" if ending.code == -9 else f"it ended with {ending.code}"
    if ending.code == 0:  # it could do without
        return ""
    if ending.code not in (2, 3) or "Traceback" in ending.errors:
        return f"it ended with {ending.code}: {ending.errors[-400:]}"
    said = [x for x in ending.errors.splitlines() if not x.startswith("warning: ")]
    return "" if len(said) == 1 else f"expected one sentence: {ending.errors[-400:]}"


def _half_problem(
    scene: Scene, folder: Path, case: CommandCase, expected: dict[str, Any]
) -> str:
    """Return which file is half, or harmed, after a fault; "" if none is."""
    for name in case.outputs:
        place = folder / name
        if place.is_dir() or not place.exists():
            continue  # stores are journals: see `output_contents` at the end
        found = _content(place)
        grows = case.arguments[0] == "md" and place.suffix == ".extxyz"
        if found != (expected[name][: len(found)] if grows else expected[name]):
            return f"{name} is half"
    for path in scene.template.rglob("*"):
        inner = path.relative_to(scene.template)
        mine = not any(str(inner).startswith(x) for x in case.outputs)
        if path.is_file() and mine and STAGING not in inner.parts:
            there = folder / inner
            if inner.name != "lock" and (
                not there.is_file() or there.read_bytes() != path.read_bytes()
            ):
                return f"{inner} was changed"
    return ""


def _again_problem(
    folder: Path, case: CommandCase, again: Ending, expected: dict[str, Any]
) -> str:
    """Return what is wrong after the same command was repeated."""
    done = again.code == 2 and any(text in again.errors for text in _DONE)
    if again.code and not done:
        return f"repeated, it ended with {again.code}: {again.errors[-400:]}"
    found = output_contents(folder, case.outputs)
    wrong = [name for name in expected if found.get(name) != expected[name]]
    return f"repeated, it made another {', '.join(wrong)}" if wrong else ""


def output_contents(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what the outputs hold, without times, costs and random names."""
    return {x: _content(folder / x) for x in names if (folder / x).exists()}


def _content(path: Path) -> Any:
    if path.is_dir():
        return _store_content(path)
    if path.suffix in DATABASES:
        return [_row_content(atoms) for atoms in database_rows(path)]
    if path.suffix in (".model", ".traj"):
        return path.read_bytes()
    if path.suffix in PAGES:
        return path.read_text().rstrip().endswith("</html>")
    if path.suffix == ".json":
        return _json_content(json.loads(path.read_text()))
    return _VOLATILE.sub("", path.read_text())


def _row_content(atoms: Any) -> str:
    info = {k: v for k, v in atoms.info.items() if k not in ("cpu_seconds", "details")}
    return repr((atoms.numbers.tolist(), atoms.positions.tolist(), sorted(info)))


def _json_content(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _json_content(v) for k, v in value.items() if "seconds" not in k}
    return value


def _store_content(store: Path) -> Any:
    try:
        history = read_history(store)
        damage = [str(each) for each in check_columns(store)]
    except AlloopError as error:
        return str(error)
    kept = {"exclusions": repr(history.state.excluded), "damage": damage}
    return campaign_contents(history) | kept
