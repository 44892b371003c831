"""Conversion of YAML text to plain trees and back, and differences of two trees."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from alloop.config.problems import ConfigError, Problem

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
        found = "nothing" if tree is None else f"`{str(tree)[:40]}`"
        message = f"expected keys such as `name:` and `levels:`, got {found}"
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


def _weigh(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return the number of values of a node once its aliases are written out.

    Raises YAMLError for a cycle or more than `_HEAVY` values, RecursionError if they
    are nested too deeply.
    """
    if depth > _DEEP:
        raise RecursionError
    if id(node) in known:
        if known[id(node)] == 0:  # it is being counted: a cycle
            problem = "an alias that stands inside what it means has no end"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    weight = 1 + sum(_weigh(x, known, depth + 1) for x in _inside(node))
    if weight > _HEAVY:
        problem = f"aliases make more than {_HEAVY} values of this; write them out"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = weight
    return weight


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def rename_test_section(tree: Tree, where: str) -> Tree:
    """Return a campaign's tree with the section `test:` under its name, `validation:`.

    Files and stores of earlier versions have the old key. Raises ConfigError where both
    are there.
    """
    if "test" not in tree:
        return tree
    if "validation" in tree:
        text = (
            "is the old name of `validation:`, which is there too; leave this one out"
        )
        raise ConfigError(where, [Problem("test", text)])
    return {("validation" if x == "test" else x): y for x, y in tree.items()}


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
        dict(flatten_tree(rename_test_section(parse_yaml(text, name), name)))
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
