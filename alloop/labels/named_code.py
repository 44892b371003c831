"""Code that a level names and alloop does not bring: what can be said of it unread.

Importing a module runs it, and so may making a calculator: only a run does either.
"""

import ast
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from alloop.core.levels import Level

# Calculators of ASE that compute by themselves; others start programs that they, their
# arguments or the user's settings name.
_ARITHMETIC = frozenset(
    f"ase.calculators.{name}"
    for name in (
        *("acn.ACN", "eam.EAM", "emt.EMT", "lj.LennardJones"),
        *("morse.MorsePotential", "tip3p.TIP3P", "tip4p.TIP4P"),
    )
)
_FUNCTION = "a function (frame, settings) -> Result of your own"
_CALCULATOR = "the import path of an ASE calculator class"


def named_code(level: Level) -> str | None:
    """The import path whose code a label of this level runs; None where all of it is
    alloop's, or that of the programs that alloop requires."""
    if level.kind == "ase":
        path = str(level.settings["calculator"])
        return None if path in _ARITHMETIC else path
    return level.kind if ":" in level.kind else None


def unread_problems(level: Level) -> list[str]:
    """What is wrong with the path of a level's code, found without importing it.

    One sentence each: a module that is not there or is Python's own, a name that the
    module's text does not bind. ASE's own modules are not foreign and not looked at.
    """
    path = named_code(level)
    if path is None:
        return []
    wanted = _CALCULATOR if level.kind == "ase" else _FUNCTION
    module, name = _parts(path)
    problem = _of_module(module, name)
    return [f"expected {wanted}, got `{path}`: {problem}"] if problem else []


def _parts(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(":" if ":" in path else ".")
    return module, name


def _of_module(module: str, name: str) -> str | None:
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        return "that is no import path"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return f"{module} is Python's own and makes no labels"
    spec = _found(module.split("."))
    if spec is None:
        return f"there is no module {module}"
    names = _bound(spec)
    return None if names is None or name in names else f"{module} has no {name}"


def _found(parts: Sequence[str]) -> ModuleSpec | None:
    """A module's whereabouts; unlike importlib's, this imports no package above it."""
    spec: ModuleSpec | None = None
    places: Any = None
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        specs = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = next((each for each in specs if each is not None), None)
        if spec is None:
            return None
        places = spec.submodule_search_locations
        if places is None and end < len(parts):
            return None
    return spec


def _bound(spec: ModuleSpec) -> set[str] | None:
    """Names that a module's text binds at its top; None where that cannot be told."""
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
