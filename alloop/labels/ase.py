"""Labels by any ASE calculator, named by its import path.

Common exceptions of a calculator, and results that are not valid labels, become named
failures. Exceptions of other classes end the child process, which is reported as a
crash.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from subprocess import SubprocessError
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, SCFError

from alloop.core.atoms import to_atoms
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.text import nearest_word
from alloop.core.units import Floats
from alloop.labels.child.scratch import started_in
from alloop.labels.result import Refused, Result

# Exceptions that calculators raise for a frame they cannot do. ASE's own errors are
# RuntimeErrors; external programs that are missing or fail raise OSError or
# SubprocessError.
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError),
    *(RuntimeError, SubprocessError, TypeError, ValueError),
)

_LONGEST = 1000  # characters of a path


def label_with_ase(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return the calculator's energy and forces; its exceptions become Refused.

    The energy is the one whose gradient the forces are: the free energy if the
    calculator smears electrons. A fully periodic frame also gets its stress, if the
    calculator provides it.
    """
    text = json.dumps(_placed_arguments(settings["arguments"]), sort_keys=True)
    try:
        calculator = _make_calculator(settings["calculator"], text)
        _reset_calculator(calculator)
        atoms = to_atoms(frame)
        atoms.calc = calculator
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        details = {"program": settings["program"]}
        return Result(_free_energy(atoms), forces, details, _stress(atoms))
    except SCFError as error:
        raise Refused(Failure.NOT_CONVERGED, _error_text(error)) from error
    except (NotImplementedError, ImportError) as error:
        raise Refused(Failure.UNSUPPORTED, _error_text(error)) from error
    except _FAULTS as error:
        raise Refused(Failure.CRASHED, _error_text(error)) from error


def problems(settings: Mapping[str, Any], _elements: Sequence[str]) -> list[str]:
    """Return what is wrong with the calculator's import path or its arguments."""
    try:
        factory = _calculator_class(settings["calculator"])
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return [
            "expected the import path of an ASE calculator class such as "
            f"ase.calculators.lj.LennardJones, got {settings['calculator']!r}: {error}"
        ]
    arguments = _placed_arguments(settings["arguments"])
    strange = _unknown_arguments(factory, arguments)
    if strange:
        return strange
    try:
        factory(**arguments)
    except (ImportError, *_FAULTS) as error:
        return [f"{settings['calculator']} refuses its arguments: {_error_text(error)}"]
    return []


def _placed_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with paths of files as absolute ones.

    A text is such a path if it has an ending or a folder, and names a file as seen from
    where the command was started: labels are made in another folder.
    """
    folder = started_in()
    return {
        key: str(folder / value)
        if isinstance(value, str)
        and ("." in value or "/" in value)
        and len(value) < _LONGEST
        and (folder / value).is_file()
        else value
        for key, value in arguments.items()
    }


def _unknown_arguments(
    factory: Callable[..., Calculator], arguments: Mapping[str, Any]
) -> list[str]:
    """Return a sentence for each argument that the calculator would silently ignore."""
    named = inspect.signature(factory).parameters
    defaults = getattr(factory, "default_parameters", {})
    if not defaults and any(p.kind is p.VAR_KEYWORD for p in named.values()):
        return []
    names = [*named, *defaults]
    return [_nearest_key(key, names) for key in arguments if key not in names]


def _nearest_key(key: str, names: list[str]) -> str:
    close = nearest_word(key, names)
    hint = f"did you mean {close!r}?" if close else f"it takes {', '.join(names)}"
    return f"the calculator has no argument {key!r}; {hint}"


def _calculator_class(path: str) -> Callable[..., Calculator]:
    """Return the calculator class at a path; TypeError if it is something else."""
    module, _, name = path.rpartition(".")
    calculator = getattr(import_module(module), name)
    if not (isinstance(calculator, type) and issubclass(calculator, BaseCalculator)):
        raise TypeError(f"{name} is no class of ASE calculators")
    return cast("Callable[..., Calculator]", calculator)


@lru_cache(maxsize=4)
def _make_calculator(path: str, arguments: str) -> Calculator:
    return _calculator_class(path)(**json.loads(arguments))


def _reset_calculator(calculator: Calculator) -> None:
    """Drop results of the last frame, so that labels do not depend on earlier ones."""
    reset = getattr(calculator, "reset", None)
    if reset is not None:
        reset()


def _free_energy(atoms: Atoms) -> float:
    """Return the free energy in eV if the calculator gives it, else the energy."""
    energy = float(atoms.get_potential_energy())
    results = getattr(atoms.calc, "results", {})
    return float(results.get("free_energy", energy))


def _stress(atoms: Atoms) -> Floats | None:
    properties = getattr(atoms.calc, "implemented_properties", ())
    if not all(atoms.pbc) or "stress" not in properties:
        return None
    try:
        return np.asarray(atoms.get_stress(voigt=True), dtype=np.float64)
    except NotImplementedError:
        return None


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
