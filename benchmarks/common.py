"""Arguments, tables, medians and kept rows that all benchmarks share."""

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
_CONSOLE = Console(highlight=False, width=100)


def make_parser(doc: str | None) -> ArgumentParser:
    """Return a parser with the options of every benchmark; `doc` is its help."""
    parser = ArgumentParser(
        description=doc, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under two minutes")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def show(*parts: Any) -> None:
    """Print a line or a table."""
    _CONSOLE.print(*parts, markup=False)


def make_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of rows with equal keys; numbers with three digits."""
    table = Table(
        *(rows[0] if rows else ()), title=title, box=None, title_justify="left"
    )
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    return table


def median_range(values: Iterable[float]) -> dict[str, float]:
    """Return the median, smallest and largest of some values."""
    ordered = sorted(values)
    return {"median": median(ordered), "low": ordered[0], "high": ordered[-1]}


def mean_range(values: Sequence[float]) -> str:
    """Return the mean as text, of several values with the lowest and the highest."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{fmean(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures as a JSON file, if one is wanted."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


class Rows:
    """Rows by key in a file of JSON lines that survive a kill.

    A row that was added is on the disk, and a killed benchmark goes on with what is
    there. The standard library has nothing that appends durably to a readable file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):  # a kill may tear the last one
                row = json.loads(line)
                self._rows[row.pop("key")] = row
        if text and not text.endswith("\n"):
            os.truncate(path, len(text[: text.rfind("\n") + 1].encode()))

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, key: str) -> Row:
        return self._rows[key]

    def __setitem__(self, key: str, row: Row) -> None:
        self._rows[key] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **row}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
