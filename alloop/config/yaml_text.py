"""The text of a configuration: YAML read, merged and written, and its mistakes."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from alloop.core.errors import InputError
from alloop.core.levels import CODE_FOLDER
from alloop.core.text import nearest_word, plural
from alloop.labels.composite import SUM
from alloop.labels.levels import level_mapping
from alloop.labels.named_code import lies_in


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the dotted path of the key and one sentence."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class ConfigError(InputError):
    """The error of an unusable configuration; `problems` holds every mistake."""

    def __init__(self, where: str, problems: Iterable[Problem]) -> None:
        self.where = where
        self.problems = tuple(problems)
        head = f"{where} has {plural(len(self.problems), 'mistake')}:"
        super().__init__("\n".join([head, *(f"  {p}" for p in self.problems)]))


def key_suggestion(word: str, words: Collection[str]) -> str:
    """Return `did you mean ...?` if a known word is near, else all known words."""
    close = nearest_word(word, words)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"known are {', '.join(f'`{name}`' for name in words)}"


def shown_value(value: Any) -> str:
    """Return a value as text for a message, shortened to 60 characters."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


Tree: TypeAlias = dict[str, Any]

_HEAVY = 200_000  # values of a configuration; long lists belong in files
_DEEP = 100  # nested values
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9]\d*)", "-+0123456789"),
    "float": (r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", "-+.0123456789"),
}


class _Loader(yaml.SafeLoader):
    """A loader with the rules of YAML 1.2 for scalars, and without duplicate keys.

    NO is the text of nitric oxide, 1e-3 is a number, 12:30 is not.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                problem = "a key must be a word"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the key `{key.value}` stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: Any) -> Any:
        """Return a value; refuse the null character, which no path can contain."""
        value = super().construct_scalar(node)
        if "\0" in value:
            problem = "a value contains the null character"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] in ("null", "merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def parse_yaml(text: str, where: str) -> Tree:
    """Return the mapping in a YAML text; raise ConfigError if there is none."""
    try:
        tree = _loaded(text)
    except yaml.YAMLError as error:
        raise ConfigError(where, [Problem("", _syntax_message(error))]) from error
    except RecursionError:
        message = f"expected keys and values, got {_DEEP} or more inside each other"
        raise ConfigError(where, [Problem("", message)]) from None
    if not isinstance(tree, dict):
        content = "nothing" if tree is None else f"`{str(tree)[:40]}`"
        message = f"expected keys such as `name:` and `levels:`, got {content}"
        raise ConfigError(where, [Problem("", message)])
    return {str(key): value for key, value in tree.items()}


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {}, 0)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, weights: dict[int, int], depth: int) -> int:
    """Return the number of values of a node once its aliases are written out.

    Raises YAMLError for a cycle or more than `_HEAVY` values, RecursionError if they
    are nested too deeply.
    """
    if depth > _DEEP:
        raise RecursionError
    if id(node) in weights:
        if weights[id(node)] == 0:  # it is being counted: a cycle
            problem = "an alias that stands inside what it means has no end"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return weights[id(node)]
    weights[id(node)] = 0
    weight = 1 + sum(_weigh(x, weights, depth + 1) for x in _inside(node))
    if weight > _HEAVY:
        problem = f"aliases make more than {_HEAVY} values of this; write them out"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    weights[id(node)] = weight
    return weight


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def rename_old_keys(tree: Tree, where: str) -> Tree:
    """Return a campaign's tree with the keys of earlier versions under their names.

    `test:` is `validation:` now, `jobs: {least, most}` of a batch system's `labels:`
    and `learning:` is `adaptive: {minimum, maximum}`. Raises ConfigError where both
    names are there.
    """
    tree = _rename_key(tree, "test", "validation", where, "")
    cluster = tree.get("cluster")
    if not isinstance(cluster, Mapping):
        return tree
    groups = {
        group: _rename_jobs(cluster[group], where, f"cluster.{group}.")
        for group in ("labels", "learning")
        if isinstance(cluster.get(group), Mapping)
    }
    return {**tree, "cluster": {**cluster, **groups}}


def _rename_jobs(group: Tree, where: str, prefix: str) -> Tree:
    group = _rename_key(group, "jobs", "adaptive", where, prefix)
    limits = group.get("adaptive")
    if not isinstance(limits, Mapping):
        return group
    names = {"least": "minimum", "most": "maximum"}
    return {**group, "adaptive": {names.get(x, x): y for x, y in limits.items()}}


def _rename_key(tree: Tree, old: str, new: str, where: str, prefix: str) -> Tree:
    if old not in tree:
        return tree
    if new in tree:
        text = f"is the old name of `{new}:`, which is there too; leave this one out"
        raise ConfigError(where, [Problem(prefix + old, text)])
    return {(new if x == old else x): y for x, y in tree.items()}


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Return the YAML text of a tree, keys in their order."""
    text: str = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)
    return text


def read_yaml_text(path: Path) -> str:
    """Return the text of a file; raise ConfigError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        message = f"expected a YAML file that can be read, got: {reason}"
        raise ConfigError(str(path), [Problem("", message)]) from error


def flatten_tree(
    tree: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten_tree(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def changed_keys(old: str, new: str) -> tuple[str, ...]:
    """Return the dotted keys whose values differ between two resolved configurations.

    The path of the store is ignored: it may be moved.
    """
    before, after = (
        dict(flatten_tree(rename_old_keys(parse_yaml(text, name), name)))
        for name, text in (("old", old), ("new", new))
    )
    nothing = object()
    return tuple(
        key
        for key in sorted({*before, *after} - {"store"})
        if before.get(key, nothing) != after.get(key, nothing)
    )


def _syntax_message(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"this is not YAML: {error}"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


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


def expand_level(level: Any) -> Any:
    """Return a level in any notation as a mapping with `kind`.

    One with `method` and `basis` is of PySCF. Keys beside a name stand over those of
    the name, and so do keys of a mapping inside.
    Raises ValueError if it is not a level. A name that ends in .yaml or .yml is a file,
    relative to the working folder.
    """
    if isinstance(level, str):
        level = {BASE: level}
    if not isinstance(level, Mapping):
        return level
    if BASE not in level:
        implied = {"method", "basis"} <= level.keys() and "kind" not in level
        return {"kind": "pyscf", **level} if implied else level
    changes = {key: value for key, value in level.items() if key != BASE}
    try:
        return merge_trees({**_base_settings(level[BASE])}, changes, {})
    except InputError as error:
        raise ValueError(str(error)) from error


def _base_settings(name: Any) -> Mapping[str, Any]:
    if not isinstance(name, str):
        raise InputError(f"expected the name or file of a level, got {name!r}")
    if not name.endswith(_SUFFIXES):
        return level_mapping(name)
    level = place_level(_read_level_file(Path(name)), Path(name).absolute().parent)
    inner = level.pop(BASE, None)
    if inner is None:
        return dict(level)
    if str(inner).endswith(_SUFFIXES):
        raise InputError(f"{name} names another file, {inner}; name that one instead")
    return {**_base_settings(inner), **level}


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


def place_level(level: Any, folder: Path) -> Any:
    """Return a level in a file in `folder`, with absolute paths.

    Where that folder holds the module that the level names, it is the level's code
    folder.
    """
    level = {BASE: level} if isinstance(level, str) else level
    if not isinstance(level, Mapping):
        return level
    files: Tree = {
        key: str(folder.absolute() / value)
        for key, value in level.items()
        if _is_file(key, value)
    }
    if isinstance(level.get(SUM), list):
        files[SUM] = [_place_part(part, folder) for part in level[SUM]]
    code = level.get("calculator" if level.get("kind") == "ase" else "kind")
    if CODE_FOLDER not in level and lies_in(code, folder):
        files[CODE_FOLDER] = str(folder.absolute())
    return {**level, **files}


def _place_part(part: Any, folder: Path) -> Any:
    """Return a part of a sum with absolute paths, in the notation that it has."""
    if not isinstance(part, Mapping) or not part.keys() & {"minus", "factor"}:
        return place_level(part, folder)
    return {
        key: place_level(value, folder) if key in ("minus", BASE) else value
        for key, value in part.items()
    }


def _is_file(key: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return key in ("path", CODE_FOLDER) or (key == BASE and value.endswith(_SUFFIXES))


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
        keys = kinds.get(str(kind), kinds.get(BASE, set()))
        merged = {key: value for key, value in below.items() if key in keys}
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge_trees(old, value, kinds)
        else:
            merged[key] = value
    return merged


def _collect_from(tree: Tree, place: _FragmentPlace, kinds: Kinds) -> Tree:
    tree, merged = rename_old_keys(tree, place.name), Tree()
    for name in _extended_paths(tree, place):
        path = (place.folder / name).resolve()
        if path in place.above:
            raise place.refuse(f"`{name}` extends this file; leave one out")
        if not path.is_file():
            raise place.refuse(
                f"expected a YAML file, `{name}` is not there; give its path"
            )
        below = _FragmentPlace(path.parent, str(path), (*place.above, path))
        fragment = _collect_from(
            parse_yaml(read_yaml_text(path), str(path)), below, kinds
        )
        merged = merge_trees(
            merged, _move_paths(fragment, path.parent, place.folder), kinds
        )
    keys = {key: value for key, value in tree.items() if key != "extends"}
    return merge_trees(merged, place_levels(keys, place.folder), kinds)


def _tree_kind(tree: Tree) -> Any:
    return tree.get("kind", tree.get(BASE))


def _extended_paths(tree: Tree, place: _FragmentPlace) -> list[str]:
    paths = tree.get("extends", [])
    names = paths if isinstance(paths, list) else [paths]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise place.refuse(f"expected a file or a list of files, got {wrong[0]!r}")
    return names


def _move_paths(tree: Any, source: Path, target: Path) -> Any:
    """Return the tree of a file in `there` with its paths relative to `here`."""
    if isinstance(tree, list):
        return [_move_paths(item, source, target) for item in tree]
    if not isinstance(tree, dict) or source == target.resolve():
        return tree
    return {
        key: relpath(source / value, target.resolve())
        if key in _PATHS and isinstance(value, str) and not Path(value).is_absolute()
        else _move_paths(value, source, target)
        for key, value in tree.items()
    }
