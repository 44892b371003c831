"""Labels made in this process: checks, the program, then checks of its result."""

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.labels.child.memory import peak_mb, reset_peak
from alloop.labels.child.scratch import STARTED_IN
from alloop.labels.composite import SUM, sum_parts
from alloop.labels.gate import refuse_frame, refuse_result
from alloop.labels.named_code import code_folder
from alloop.labels.own_function import error_place, guarded_function
from alloop.labels.programs import PROGRAMS, outside_code, program_of
from alloop.labels.result import LabelFunction, Refused, Result, no_forces
from alloop.labels.slope_check import confirm_slope


@dataclass(frozen=True, slots=True)
class DirectLabeller:
    """A labeller in this process, for cheap, well-behaved programs and for tests."""

    level: Level

    def label(self, frame: Frame) -> Label | Unlabelled:
        """Return the label, or the reason why there is none."""
        return label_frame(self.level, frame)


def label_frame(level: Level, frame: Frame) -> Label | Unlabelled:
    """Label a frame; return refusals, but let other exceptions of a program pass."""
    run = level_program(level)
    if level.kind not in PROGRAMS:
        run = guarded_function(run, level.kind)
    reset_peak()
    started = time.process_time()
    outcome = _run_program(run, level, frame)
    cost = time.process_time() - started  # s, without child processes
    details = {**outcome.details, "peak_mb": peak_mb()}
    if isinstance(outcome, Refused):
        failure, message = outcome.failure, outcome.message
        return Unlabelled(
            frame=frame.id,
            level=level.id,
            failure=failure,
            message=message,
            cpu_seconds=cost,
            details=details,
        )
    energy, forces, stress = outcome.energy, outcome.forces, outcome.stress
    return Label(
        frame=frame.id,
        level=level.id,
        energy=energy,
        forces=forces,
        cpu_seconds=cost,
        details=details,
        stress=stress,
    )


def level_program(level: Level) -> LabelFunction:
    """Return the function that makes the labels of a level; imports its module.

    The folder of a level's own code is looked through last, so that nothing in it takes
    the place of an installed package.
    """
    if level.kind == SUM:  # slow imports, which no label's time includes
        for _, part in sum_parts(level.settings):
            level_program(part)
    folder = code_folder(level)
    if folder and outside_code(level) and folder not in sys.path:
        sys.path.append(folder)
    return cast("LabelFunction", import_function(program_of(level).run))


def import_function(path: str) -> Callable[..., Any]:
    """Return the function at `package.module:name`; InputError if there is none."""
    module, _, name = path.partition(":")
    try:
        with _without_configuration():
            home = import_module(module)
        return cast("Callable[..., Any]", getattr(home, name))
    except (Exception, SystemExit) as error:
        text = (
            f"expected a kind of label ({', '.join(PROGRAMS)}) or the path "
            f"`package.module:function` of one, got {path!r}: {error}"
        )
        if _came_from_import(error):
            text = f"expected {module} to be importable; {error_place(error)}"
        raise InputError(text) from error


def _came_from_import(error: BaseException) -> bool:
    """Return True if an exception arose in a module's code, not in the look for it."""
    if isinstance(error, SyntaxError):
        return True
    return any(call.name == "<module>" for call in extract_tb(error.__traceback__))


@contextmanager
def _without_configuration() -> Iterator[None]:
    """Keep PySCF from running a `.pyscf_conf.py` of the folder or the user on import.

    A child has a configuration file of its own; here one without settings stands in.
    """
    if STARTED_IN in os.environ:
        yield
        return
    key, before = "PYSCF_CONFIG_FILE", os.environ.get("PYSCF_CONFIG_FILE")
    os.environ[key] = str(Path(__file__).parent / "pyscf" / "__init__.py")
    try:
        yield
    finally:
        os.environ.pop(key)
        os.environ.update({} if before is None else {key: before})


def takes(function: Callable[..., Any], many: int) -> bool:
    """Return True if the function can be called with `many` positional arguments.

    A callable without a signature counts as one that can.
    """
    try:
        inspect.signature(function).bind(*range(many))
    except TypeError:
        return False
    except ValueError:
        return callable(function)
    return True


def _run_program(run: LabelFunction, level: Level, frame: Frame) -> Result | Refused:
    try:
        refuse_frame(frame, level)
        result = run(frame, level.settings)
        if not level.has_forces:
            result = replace(result, forces=no_forces(frame), stress=None)
        refuse_result(frame, result, level)
        result = confirm_slope(run, level, frame, result)
    except Refused as refused:
        return refused
    except MemoryError as error:
        return Refused(Failure.MEMORY, f"an allocation failed: {error}")
    return result
