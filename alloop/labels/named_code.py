"""Code outside alloop that a level names, and checks of it without importing it.

Importing a module runs it, and creating a calculator may run code too, so both are left
to a run.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from alloop.core.levels import CODE_FOLDER, Level, installed_version, make_level

# Calculators of ASE that do their own arithmetic; others start programs that are named
# by their code, their arguments or the user's settings.
_ARITHMETIC = frozenset(
    f"ase.calculators.{name}"
    for name in (
        *("acn.ACN", "eam.EAM", "emt.EMT", "lj.LennardJones"),
        *("morse.MorsePotential", "tip3p.TIP3P", "tip4p.TIP4P"),
    )
)


def ase_level(calculator: str, arguments: Mapping[str, Any] | None = None) -> Level:
    """Return a level of the ASE calculator at an import path, with its arguments."""
    settings = {
        "title": calculator.rpartition(".")[2],
        "program": installed_version(calculator.partition(".")[0]),
        "calculator": calculator,
        "arguments": dict(arguments or {}),
    }
    return make_level("ase", settings)


def calculator_code(settings: Mapping[str, Any]) -> str | None:
    """Return the import path of a level's calculator, None if ASE's own arithmetic."""
    path = str(settings["calculator"])
    return None if path in _ARITHMETIC else path


def code_folder(level: Level) -> str:
    """Return the folder where a level's code may lie besides Python's, "" for none."""
    return str(level.settings.get(CODE_FOLDER, ""))


def lies_in(path: object, folder: Path) -> bool:
    """Return True if a folder holds the module that an import path begins with."""
    if not isinstance(path, str) or not set(path) & {":", "."}:
        return False
    top = path.partition(":")[0].partition(".")[0]
    if not top.isidentifier():
        return False
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def path_problems(path: str, folder: str = "") -> list[str]:
    """Return what is wrong with the import path of outside code, without importing it.

    One sentence each: a module that is missing or belongs to Python's standard library,
    or a name that the module's source does not bind. `package.module:name` is a
    function, `package.module.Name` a calculator. folder: see `code_folder`.
    """
    expected = (
        "a function (frame, settings) -> Result of your own"
        if ":" in path
        else "the import path of an ASE calculator class"
    )
    module, name = _parts(path)
    problem = _of_module(module, name, folder)
    return [f"expected {expected}, got `{path}`: {problem}"] if problem else []


def _parts(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(":" if ":" in path else ".")
    return module, name


def _of_module(module: str, name: str, folder: str) -> str | None:
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        return "that is no import path"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return f"{module} is Python's own and makes no labels"
    spec = _found(module.split("."), folder)
    if spec is None:
        return (
            f"there is no module {module}, beside the file that names it or where "
            "Python looks"
        )
    names = _bound(spec)
    return None if names is None or name in names else f"{module} has no {name}"


def _found(parts: Sequence[str], folder: str) -> ModuleSpec | None:
    """Return a module's spec, or None; the folder is the last place to look.

    Unlike `importlib.util.find_spec`, this does not import the parent packages.
    """
    spec: ModuleSpec | None = None
    places: Any = None
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        specs = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = next((candidate for candidate in specs if candidate is not None), None)
        if spec is None and folder and end == 1:
            spec = PathFinder.find_spec(name, [folder])
        if spec is None:
            return None
        places = spec.submodule_search_locations
        if places is None and end < len(parts):
            return None
    return spec


def _bound(spec: ModuleSpec) -> set[str] | None:
    """Return the names that a module's source binds, or None if they are unknown."""
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        names |= _binds(node)
    return None if names & {"*", "__getattr__", "globals", "setattr"} else names


def _binds(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name.partition(".")[0] for alias in aliases}
    return set()
