"""Trials of single commands: death, or an error of the disk, at each of their changes.

A `Scene` is a folder with all that the commands read. Each trial hits a command in a
copy of it. Whatever the command was to write is then whole or not there, whatever it
read is as it was, and the same command, repeated, ends with the same result.

A small library of C stands before the C library (LD_PRELOAD) in a fork server, so that
it counts the calls of everything in a process: Python, SQLite, Zarr, safetensors. A
call that is hit in the middle of a write leaves half of its bytes. The counted calls
create, write, sync, rename, link, truncate or remove something beneath one folder.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
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
from benchmarks.durability.comparison import Trial, campaign_contents
from benchmarks.durability.processes import ForkServer
from benchmarks.durability.toy_campaign import write_campaign

# --- faults of system calls ----------------------------------------------------------

KILL = 0  # in the place of an errno
_LAST = 2**62
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long first = -1, last = -1, count;
static int code;

void fault_arm(const char *path, long from, long until, int error) {
  snprintf(folder, sizeof folder, "%s/", path);
  first = from; last = until; code = error; count = 0;
}
long fault_count(void) { return count; }

static int beneath(const char *path) {
  return first >= 0 && !strncmp(path, folder, strlen(folder));
}
static int counted(void) {
  long number = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
  return number >= first && number <= last;
}
static void name_of(int handle, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  path[size < 0 ? 0 : size] = 0;
}
static void full_name(int at, const char *name, char *path) {
  if (name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return; }
  char base[PATH_MAX];
  if (at == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
  else name_of(at, base);
  if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) path[0] = 0;
}
static int fails(void) {
  if (!code) { kill(getpid(), SIGKILL); for (;;) pause(); }
  errno = code;
  return -1;
}
static int hit(int at, const char *name) {
  char path[PATH_MAX];
  if (first < 0) return 0;
  full_name(at, name, path);
  return beneath(path) && counted();
}
static int hit_handle(int handle) {
  char path[PATH_MAX];
  if (first < 0) return 0;
  name_of(handle, path);
  return beneath(path) && counted();
}
#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (!hit_handle(handle)) return real(handle, data, size);
  off_t where = lseek(handle, 0, SEEK_CUR);
  if (size > 1) real(handle, data, size / 2);
  if (where >= 0) lseek(handle, where, SEEK_SET); /* as after a real error */
  return fails();
}
#define PWRITE(name, offset) \
  ssize_t name(int handle, const void *data, size_t size, offset where) { \
    REAL(ssize_t, name, int, const void *, size_t, offset); \
    if (!hit_handle(handle)) return real(handle, data, size, where); \
    if (size > 1) real(handle, data, size / 2, where); \
    return fails(); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
#define HANDLE(name) \
  int name(int handle) { \
    REAL(int, name, int); \
    return hit_handle(handle) ? fails() : real(handle); \
  }
HANDLE(fsync)
HANDLE(fdatasync)
#define CUT(name, type, offset, test) \
  int name(type what, offset size) { \
    REAL(int, name, type, offset); \
    return test ? fails() : real(what, size); \
  }
CUT(ftruncate, int, off_t, hit_handle(what))
CUT(ftruncate64, int, off64_t, hit_handle(what))
CUT(truncate, const char *, off_t, hit(AT_FDCWD, what))
CUT(truncate64, const char *, off64_t, hit(AT_FDCWD, what))
#define ONE(name) \
  int name(const char *path) { \
    REAL(int, name, const char *); \
    return hit(AT_FDCWD, path) ? fails() : real(path); \
  }
ONE(unlink)
ONE(rmdir)
#define TWO(name) \
  int name(const char *old, const char *path) { \
    REAL(int, name, const char *, const char *); \
    return hit(AT_FDCWD, path) ? fails() : real(old, path); \
  }
TWO(rename)
TWO(link)
int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  return hit(AT_FDCWD, path) ? fails() : real(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t);
  return hit(at, path) ? fails() : real(at, path, mode);
}
int unlinkat(int at, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  return hit(at, path) ? fails() : real(at, path, flags);
}
int renameat(int from, const char *old, int at, const char *path) {
  REAL(int, renameat, int, const char *, int, const char *);
  return hit(at, path) ? fails() : real(from, old, at, path);
}
int linkat(int from, const char *old, int at, const char *path, int flags) {
  REAL(int, linkat, int, const char *, int, const char *, int);
  return hit(at, path) ? fails() : real(from, old, at, path, flags);
}
#define CHANGING (O_CREAT | O_TRUNC)
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    va_list rest; va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest); \
    int failing = (flags & CHANGING) && hit(AT_FDCWD, path); \
    return failing ? fails() : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(int, name, int, const char *, int, ...); \
    va_list rest; va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest); \
    int failing = (flags & CHANGING) && hit(at, path); \
    return failing ? fails() : real(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)
"""
_COMMAND = """
import contextlib, io, os, sys
from benchmarks.durability.command_trials import perform_order
{prelude}
def work(line):
    perform_order(line)
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a process: exit code (-9 if killed), what it printed, calls counted.

    calls: -1 where it was killed.
    """

    code: int
    output: str
    errors: str
    calls: int


def build_library(folder: Path) -> Path | None:
    """Compile the library; None where there is no C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    source, library = folder / "faults.c", folder / "faults.so"
    source.write_text(_SOURCE)
    options = ["-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run([compiler, *options], capture_output=True, check=False)
    return None if done.returncode else library


class FaultServer:
    """A server of processes that run `alloop` commands and are hit by faults.

    library: see `build_library`. prelude: Python lines that its process runs first.
    """

    def __init__(self, library: Path, prelude: str = "") -> None:
        script = _COMMAND.format(prelude=f"import alloop.cli.app\n{prelude}")
        self._server = ForkServer(script, LD_PRELOAD=str(library))

    def run(
        self,
        folder: Path,
        arguments: Sequence[str],
        fault: int | None = None,
        error: int = KILL,
        lasting: bool = False,
    ) -> Ending:
        """Run a command in a folder and return its end.

        fault: number of the change of the folder, from 0, that is hit, None for none;
        error: an errno, or `KILL`; lasting: all later changes fail too.
        """
        notes = folder.with_name(f"{folder.name}.notes")
        notes.mkdir(exist_ok=True)
        for file in notes.iterdir():
            file.unlink()
        begin = _LAST if fault is None else fault
        end = _LAST if lasting else begin
        order = {"folder": str(folder), "arguments": list(arguments)}
        faults = {"begin": begin, "end": end, "error": error, "notes": str(notes)}
        self._server.spawn(json.dumps({**order, **faults}))
        code = os.waitstatus_to_exitcode(self._server.wait())
        texts = {
            x: (notes / x).read_text() if (notes / x).exists() else ""
            for x in ("output", "errors", "calls")
        }
        calls = int(texts["calls"] or -1)
        return Ending(code, texts["output"], texts["errors"], calls)

    def close(self) -> None:
        """End the server."""
        self._server.close()


def perform_order(line: str) -> None:
    """Run the command that a line of JSON describes, and end the process."""
    order: dict[str, Any] = json.loads(line)
    notes = Path(order["notes"])
    for number, name in ((1, "output"), (2, "errors")):
        handle = os.open(notes / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
    os.chdir(order["folder"])
    from alloop.cli import main

    library = ctypes.CDLL(None)
    path = order["folder"].encode()
    numbers = (ctypes.c_long(order[x]) for x in ("begin", "end"))
    library.fault_arm(path, *numbers, order["error"])
    try:
        code = main(order["arguments"])
    except BaseException:  # noqa: BLE001 - a traceback is what a trial looks for
        import traceback

        traceback.print_exc()
        code = 99
    library.fault_count.restype = ctypes.c_long
    (notes / "calls").write_text(str(library.fault_count()))
    os._exit(code)


# --- trials --------------------------------------------------------------------------

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
    descriptor_map, error_sections, generation_sections, run_sections, shift_report,
    side_by_side, surprise_sections,
)
for module in (
    descriptor_map, error_sections, generation_sections, run_sections, shift_report,
    side_by_side, surprise_sections,
):
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
    for index in count() if numbers is None else numbers:
        number = index if index >= 0 else calls + index
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
        content = _content(place)
        grows = case.arguments[0] == "md" and place.suffix == ".extxyz"
        if content != (expected[name][: len(content)] if grows else expected[name]):
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
    contents = output_contents(folder, case.outputs)
    wrong = [name for name in expected if contents.get(name) != expected[name]]
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
        damage = [str(line) for line in check_columns(store)]
    except AlloopError as error:
        return str(error)
    checks = {"exclusions": repr(history.state.labels.excluded), "damage": damage}
    return campaign_contents(history) | checks
