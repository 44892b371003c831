"""The three notations of a level: a mapping, a short name, a YAML file of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.config.yaml_text import Tree, parse_yaml, read_yaml_text
from alloop.core.errors import InputError
from alloop.core.levels import CODE_FOLDER
from alloop.core.text import nearest_word
from alloop.labels.levels import level_mapping
from alloop.labels.named_code import lies_in

BASE = "level"  # in a mapping: the name or file that its other keys override
_SUFFIXES = (".yaml", ".yml")


def place_levels(tree: Tree, folder: Path) -> Tree:
    """Return the tree of a file in `folder` with its levels as mappings.

    Paths in the levels become absolute. A level that is text becomes `{level: text}`.
    """
    levels = tree.get("levels")
    if not isinstance(levels, Mapping):
        return tree
    spelled = {key: place_level(value, folder) for key, value in levels.items()}
    return {**tree, "levels": spelled}


def expand_level(given: Any) -> Any:
    """Return a level in any notation as a mapping with `kind`.

    Raises ValueError if it is not a level. A name that ends in .yaml or .yml is a file,
    relative to the working folder.
    """
    if isinstance(given, str):
        given = {BASE: given}
    if not isinstance(given, Mapping) or BASE not in given:
        return given
    own = {key: value for key, value in given.items() if key != BASE}
    try:
        return {**_base_settings(given[BASE]), **own}
    except InputError as error:
        raise ValueError(str(error)) from error


def _base_settings(name: Any) -> Mapping[str, Any]:
    if not isinstance(name, str):
        raise InputError(f"expected the name or file of a level, got {name!r}")
    if not name.endswith(_SUFFIXES):
        return level_mapping(name)
    given = place_level(_read_level_file(Path(name)), Path(name).absolute().parent)
    inner = given.pop(BASE, None)
    if inner is None:
        return dict(given)
    if str(inner).endswith(_SUFFIXES):
        raise InputError(f"{name} names another file, {inner}; name that one instead")
    return {**_base_settings(inner), **given}


def _read_level_file(path: Path) -> Tree:
    if not path.is_file():
        others = [x.name for x in path.parent.glob("*.y*ml")]
        close = nearest_word(path.name, others)
        hint = f"; did you mean {close!r}?" if close else ""
        raise InputError(f"expected a level's YAML file, {path} is not there{hint}")
    tree = parse_yaml(read_yaml_text(path), str(path))
    if "levels" in tree:
        raise InputError(f"{path} holds `levels:`, not one level; `extends` it instead")
    return tree


def place_level(given: Any, folder: Path) -> Any:
    """Return a level in a file in `folder`, with absolute paths.

    Where that folder holds the module that the level names, it is the level's code
    folder.
    """
    given = {BASE: given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return given
    files = {
        key: str(folder.absolute() / value)
        for key, value in given.items()
        if _is_file(key, value)
    }
    code = given.get("calculator" if given.get("kind") == "ase" else "kind")
    if CODE_FOLDER not in given and lies_in(code, folder):
        files[CODE_FOLDER] = str(folder.absolute())
    return {**given, **files}


def _is_file(key: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return key in ("path", CODE_FOLDER) or (key == BASE and value.endswith(_SUFFIXES))
