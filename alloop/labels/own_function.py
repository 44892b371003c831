"""A user's function as a program: its exceptions and wrong results in one sentence.

Apart from `alloop.labels.named_code`, which is read without running anything: here the
function runs.
"""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import alloop
from alloop.core.frame import Frame
from alloop.core.levels import CODE_FOLDER, gives_forces
from alloop.core.records import Detail, Failure
from alloop.core.stress import from_any_shape
from alloop.core.units import Floats
from alloop.labels.child.scratch import disk_error
from alloop.labels.result import LabelFunction, Refused, Result, no_forces

_ALLOOP = Path(alloop.__file__).parent


def guarded_function(run: Callable[..., Any], name: str) -> LabelFunction:
    """Return a user's function whose exceptions and wrong results are refusals.

    name: its import path. Energy and forces may be anything that numpy reads as numbers
    of the right shape. Errors of the disk and of memory pass, as they are no fault of
    the function's.
    """

    def label(frame: Frame, settings: Mapping[str, Any]) -> Result:
        options = {key: value for key, value in settings.items() if key != CODE_FOLDER}
        try:
            answer = run(frame, options)
        except (Refused, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if disk_error(str(error)):
                raise
            raise Refused(Failure.CRASHED, error_place(error)) from error
        try:
            return _checked_result(answer, frame, gives_forces(settings))
        except ValueError as error:
            raise Refused(Failure.CRASHED, f"{name}: {error}") from error

    return label


def error_place(error: BaseException) -> str:
    """Return where in the user's code an exception arose, and its message.

    An example is `mine.py, line 12, in fast: KeyError: 'quality'`.
    """
    what = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '').name}, line {error.lineno}: {what}"
    calls = [
        call
        for call in traceback.extract_tb(error.__traceback__)
        if "importlib" not in call.filename
        and not Path(call.filename).is_relative_to(_ALLOOP)
    ]
    if not calls:
        return what
    near = [
        call
        for call in calls
        if Path(call.filename).parent == Path(calls[0].filename).parent
    ]
    last = near[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {what}"


def _checked_result(answer: Any, frame: Frame, has_forces: bool) -> Result:
    """Return a function's result as plain numbers; raise ValueError for another.

    has_forces: False where the level needs energies alone.
    """
    if not isinstance(answer, Result):
        raise ValueError(
            "expected `Result(energy, forces)` of alloop.labels.result, got "
            f"{_kind_of(answer)}"
        )
    energy = _numbers("an energy in eV", answer.energy)
    if energy.size != 1:
        raise ValueError(f"expected one energy in eV, got {energy.size} numbers")
    if not has_forces:
        return Result(float(energy.item()), no_forces(frame), _details(answer.details))
    expected = f"forces ({len(frame)}, 3) in eV/Å"
    forces = _numbers(expected, answer.forces)
    if forces.shape != (len(frame), 3):
        raise ValueError(f"expected {expected}, got an array of shape {forces.shape}")
    stress = None
    if answer.stress is not None:
        stress = from_any_shape(_numbers("a stress of 6 numbers", answer.stress))
        if stress is None:
            raise ValueError("expected a stress of 6 numbers in eV/Å³, got others")
    return Result(float(energy.item()), forces, _details(answer.details), stress)


def _numbers(what: str, value: Any) -> Floats:
    try:
        if value is None or isinstance(value, str):
            raise TypeError
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected {what}, got {_kind_of(value)}") from None


def _details(mapping: Any) -> dict[str, Detail]:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"expected details by name, got {_kind_of(mapping)}")
    details = {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in mapping.items()
    }
    for key, value in details.items():
        if not isinstance(value, str | float | int | bool | None):
            raise ValueError(
                f"expected a number, a text or true/false as the detail `{key}`, got "
                f"{_kind_of(value)}"
            )
    return details


def _kind_of(value: Any) -> str:
    """Return a short description of a value: `None`, `'abc'`, `tuple`."""
    if value is None or isinstance(value, str):
        return repr(value)[:60]
    return type(value).__name__
