"""Tables that fit the terminal: columns are wrapped or left out, never cut."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

_LEAST = 2  # columns that are never left out
_ENDLESS = 10_000  # characters


class FittingTable(Table):
    """A table that wraps cells between words and leaves out columns to fit its width.

    The least important columns are left out only where wrapping is not enough, and are
    named below the table.

    Parameters
    ----------
    first_out
        Headers of the columns that are left out first, in this order; after them the
        last column is left out, and so on.
    name_omitted
        Name the columns that were left out below the table.
    """

    def __init__(
        self,
        *headers: str,
        first_out: Sequence[str] = (),
        name_omitted: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(*headers, **options)
        self._first_out, self._name_omitted = tuple(first_out), name_omitted

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render the table in the available width."""
        shown = [replace(column, overflow="fold") for column in self.columns]
        omitted: list[str] = []
        while len(shown) > _LEAST and self._spare_width(console, options, shown) < 0:
            column = self._least_important(shown)
            shown = [item for item in shown if item is not column]
            omitted.append(" ".join(str(column.header).split()))
        yield from Table.__rich_console__(
            self._with_columns(self._fitted_columns(console, options, shown)),
            console,
            options,
        )
        if omitted and self._name_omitted:
            yield f"columns left out: {', '.join(omitted)}"

    def _least_important(self, shown: Sequence[Column]) -> Column:
        named = {str(column.header): column for column in shown}
        return next((named[x] for x in self._first_out if x in named), shown[-1])

    def _with_columns(self, columns: Sequence[Column]) -> Table:
        table = copy(self)
        table.columns = [replace(x, _index=i) for i, x in enumerate(columns)]
        return table

    def _spare_width(
        self, console: Console, options: ConsoleOptions, columns: Sequence[Column]
    ) -> int:
        """Return the number of characters left over when no word is cut."""
        narrow = [replace(x, width=_column_widths(console, x).minimum) for x in columns]
        wide = options.update(width=_ENDLESS)
        return (
            options.max_width
            - self._with_columns(narrow).__rich_measure__(console, wide)[0]
        )

    def _fitted_columns(
        self, console: Console, options: ConsoleOptions, columns: Sequence[Column]
    ) -> list[Column]:
        """Return the columns with their widths; spare room goes to those that wrap."""
        room = max(0, self._spare_width(console, options, columns))
        out = []
        for column in columns:
            widths = _column_widths(console, column)
            more = min(room, widths.maximum - widths.minimum)
            room -= more
            out.append(replace(column, width=widths.minimum + more))
        return out


def _column_widths(console: Console, column: Column) -> Measurement:
    """Return the widths of a column's widest word and widest line, header included."""
    if column.width is not None:
        return Measurement(column.width, column.width)
    texts = [console.render_str(str(x)) for x in (column.header, *column.cells)]
    widths = [Measurement.get(console, console.options, text) for text in texts]
    widest = max(x.maximum for x in widths)
    return Measurement(
        widest if column.no_wrap else max(x.minimum for x in widths), widest
    )
