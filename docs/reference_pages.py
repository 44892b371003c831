"""Reference pages made from the code: commands, campaign files, store columns."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from alloop.cli.app import app
from alloop.cli.exits import exit_codes_text
from alloop.config.sections.base import Section, section_members
from alloop.config.sections.plan import Plan
from alloop.store.schema import TABLES, Column


def write(folder: Path) -> None:
    """Write all pages into the folder; pages that are up to date keep their time."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"cli": cli(), "columns": columns(), **campaign_pages()}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def cli() -> str:
    """Return the page of all commands with their arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = ["# Command line", "", str(group.help), ""]
    lines += [exit_codes_text()]
    for name, command in group.commands.items():
        lines += ["", f"## alloop {name}", "", _plain(command.help), ""]
        lines += [f"```text\n{_usage(name, command)}\n```", ""]
        lines += _table(("", "", "default"), [_parameter(x) for x in command.params])
    return "\n".join(lines) + "\n"


def campaign_pages() -> dict[str, str]:
    """Return the pages of all keys that a campaign file may hold, by file name.

    An index with the keys of the top level, and a page for each of its sections.
    """
    pages: dict[str, list[str]] = {}
    for section, places in _places().items():
        title = ", ".join(f"`{name}:`" for name, _ in places)
        kind = next((tag for _, tag in places if tag), "")
        lines = ["", f"## {title}" + (f" of kind `{kind}`" if kind else "")]
        lines += ["", _plain(section.__doc__), "", *_keys(section)]
        pages.setdefault(places[0][0].partition(".")[0], []).extend(lines)
    index = [
        "# Campaign file",
        "",
        "All keys of a campaign's YAML file. Units are eV, Å, fs, K. `extends:` names",
        "one or more files whose keys stand beneath those of the campaign.",
        "`alloop schema` prints the same as JSON schema, for editors.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
        *(f"campaign_file_{name}" for name in pages),
        "```",
        "",
        "## Top level",
        "",
        *_keys(Plan),
    ]
    texts = {"campaign_file": "\n".join(index) + "\n"}
    for name, lines in pages.items():
        text = "\n".join([f"# The section `{name}:`", *lines])
        texts[f"campaign_file_{name}"] = text + "\n"
    return texts


def columns() -> str:
    """Return the page of the store's tables and columns."""
    lines = ["# Columns of a store", ""]
    for table, entries in TABLES.items():
        lines += ["", f"## {table}", ""]
        rows = [_column(name, column) for name, column in entries.items()]
        lines += _table(("array", "type", "shape", "units", "meaning"), rows)
    return "\n".join(lines) + "\n"


def _places() -> dict[type[Section], list[tuple[str, str]]]:
    """Return all sections, each with the dotted keys and kinds where it may stand."""
    places: dict[type[Section], list[tuple[str, str]]] = {}
    for name, tag, section in _sections(Plan):
        if (name, tag) not in places.setdefault(section, []):
            places[section].append((name, tag))
    return places


def _sections(
    owner: type[Any], path: str = ""
) -> Iterator[tuple[str, str, type[Section]]]:
    """Yield all sections beneath one, with their dotted path and kind."""
    for name, field in owner.model_fields.items():
        for tag, section in section_members(field.annotation).items():
            yield f"{path}{name}", tag.strip("<>"), section
            yield from _sections(section, f"{path}{name}.")


def _keys(section: type[Any]) -> list[str]:
    fields = section.model_fields.items()
    rows = [(f"`{k}`", _meaning(k, f), _default(f)) for k, f in fields]
    return _table(("key", "meaning", "default"), rows)


def _meaning(key: str, field: Any) -> str:
    """Return the description of a key, or the first sentence of its section."""
    if key == "kind":
        return _plain(field.description or "kind of the section") + _choices(field)
    if field.description:
        return _plain(field.description) + _choices(field)
    section = section_members(field.annotation).get("")
    if section is None:
        return "a section of one of the kinds below"
    return _plain(section.__doc__).partition(". ")[0].removesuffix(".")


def _choices(field: Any) -> str:
    """Return the words that a key takes, "" where it is not limited to some."""
    words = [word for word in _literals(field.annotation) if isinstance(word, str)]
    return f" (one of {', '.join(f'`{word}`' for word in words)})" if words[1:] else ""


def _literals(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(x for part in get_args(annotation) for x in _literals(part))


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    if isinstance(field.default, Section):
        return "as below"
    if field.default is None:
        return ""
    value = field.default
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in parameter.opts) or f"`{parameter.name}`"
    if parameter.param_type_name == "argument":
        names = f"`{str(parameter.metavar or parameter.name).upper()}`"
    shown = "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
    return names, _plain(getattr(parameter, "help", "")), shown


def _usage(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"alloop {name}")
    pieces = command.collect_usage_pieces(context)
    return f"alloop {name} {' '.join(pieces)}"


def _column(name: str, column: Column) -> tuple[str, ...]:
    shape = ", ".join((column.along, *(str(length) for length in column.tail)))
    meaning = column.about
    if column.codes:
        meaning += ": " + ", ".join(
            f"{number} {word or 'none'}" for number, word in enumerate(column.codes)
        )
    return f"`{name}`", f"`{column.dtype}`", f"({shape})", column.units, meaning


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in x)} |" for x in lines]


def _plain(text: str | None) -> str:
    """Return the text on one line, safe in a table of Markdown."""
    return " ".join((text or "").split()).replace("<", "&lt;")


__all__ = ["campaign_pages", "cli", "columns", "write"]
