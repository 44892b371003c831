"""The `extends` key: configuration fragments merged beneath a campaign."""

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, TypeAlias

from alloop.config.level_text import BASE, place_levels
from alloop.config.problems import ConfigError, Problem
from alloop.config.yaml_text import (
    Tree,
    parse_yaml,
    read_yaml_text,
    rename_test_section,
)

Kinds: TypeAlias = Mapping[str, set[str]]  # the keys of each `kind`

_PATHS = ("store", "cache", "file", "labels", "path")  # keys that hold paths


@dataclass(frozen=True, slots=True)
class _FragmentPlace:
    """The position of a file in the chain of `extends`.

    folder: its folder; name: its name for messages; above: the files that extend it.
    """

    folder: Path
    name: str
    above: tuple[Path, ...] = ()

    def refuse(self, message: str) -> ConfigError:
        return ConfigError(self.name, [Problem("extends", message)])


def collect_fragments(tree: Tree, folder: Path, name: str, kinds: Kinds) -> Tree:
    """Return the tree merged over all that it `extends`.

    Paths in the result are relative to `folder`. extends: a file or a list of files,
    relative to the file that names them; later files override earlier ones, and the
    tree overrides all of them. Raises ConfigError for a missing file or a cycle.
    """
    return _collect_from(tree, _FragmentPlace(folder, name), kinds)


def merge_trees(below: Tree, above: Tree, kinds: Kinds) -> Tree:
    """Merge `above` over `below`, mapping by mapping; lists and values are replaced.

    If `kind` differs, only those keys of `below` are kept that the new kind has too.
    The kind of a level that is a short name or a file is that name or file.
    """
    kind = _tree_kind(above)
    merged = dict(below)
    if kind is not None and kind != (_tree_kind(below) or kind):
        known = kinds.get(str(kind), kinds.get(BASE, set()))
        merged = {key: value for key, value in below.items() if key in known}
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge_trees(old, value, kinds)
        else:
            merged[key] = value
    return merged


def _collect_from(tree: Tree, place: _FragmentPlace, kinds: Kinds) -> Tree:
    tree, merged = rename_test_section(tree, place.name), Tree()
    for name in _extended_paths(tree, place):
        path = (place.folder / name).resolve()
        if path in place.above:
            raise place.refuse(f"`{name}` extends this file; leave one out")
        if not path.is_file():
            raise place.refuse(
                f"expected a YAML file, `{name}` is not there; give its path"
            )
        below = _FragmentPlace(path.parent, str(path), (*place.above, path))
        whole = _collect_from(parse_yaml(read_yaml_text(path), str(path)), below, kinds)
        merged = merge_trees(
            merged, _move_paths(whole, path.parent, place.folder), kinds
        )
    own = {key: value for key, value in tree.items() if key != "extends"}
    return merge_trees(merged, place_levels(own, place.folder), kinds)


def _tree_kind(tree: Tree) -> Any:
    return tree.get("kind", tree.get(BASE))


def _extended_paths(tree: Tree, place: _FragmentPlace) -> list[str]:
    given = tree.get("extends", [])
    names = given if isinstance(given, list) else [given]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise place.refuse(f"expected a file or a list of files, got {wrong[0]!r}")
    return names


def _move_paths(tree: Any, there: Path, here: Path) -> Any:
    """Return the tree of a file in `there` with its paths relative to `here`."""
    if isinstance(tree, list):
        return [_move_paths(item, there, here) for item in tree]
    if not isinstance(tree, dict) or there == here.resolve():
        return tree
    return {
        key: relpath(there / value, here.resolve())
        if key in _PATHS and isinstance(value, str) and not Path(value).is_absolute()
        else _move_paths(value, there, here)
        for key, value in tree.items()
    }
