"""Faults of system calls: a real SIGKILL, or an error, at the n-th change of a folder.

A small library of C stands before the C library (LD_PRELOAD) in a fork server, so that
it counts the calls of everything in a process: Python, SQLite, Zarr, safetensors. A
call that is hit in the middle of a write leaves half of its bytes. The counted calls
create, write, sync, rename, link, truncate or remove something beneath one folder.
"""

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.testing.faults.fork_server import ForkServer

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
from alloop.testing.faults.system_calls import perform_order
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
        env = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        self._server = ForkServer(script, env)

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
