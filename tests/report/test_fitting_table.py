"""Tables and the live panel on narrow terminals: what is shown is never cut."""

import io
import re

import pytest
from rich.console import Console, RenderableType

from alloop.cli.inspect_commands import _label_table
from alloop.report.status import campaign_status, end_table
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.live_display import LiveDisplay

WIDTHS = (40, 50, 60, 72, 88, 120)


def rendered(table: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[^\s]*\d[^\s]*", text.partition("left out")[0]))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_is_cut(finished, width):
    for table in (
        end_table(finished),
        _label_table(campaign_status(finished)["labels"]),
    ):
        narrow, wide = rendered(table, width), rendered(table, 200)
        assert "…" not in narrow
        assert numbers(narrow) <= numbers(wide)
        assert max(map(len, narrow.splitlines())) <= width
        assert width < 88 or numbers(narrow) == numbers(wide)


def test_what_is_left_out_is_named_and_the_least_important_goes_first():
    table = FittingTable("name", "error", "price", first_out=("error",))
    table.add_row("water", "0.123456789", "12345.678")
    narrow = rendered(table, 24)
    assert "12345.678" in narrow
    assert "0.1234" not in narrow
    assert "columns left out: error" in narrow
    assert "left out" not in rendered(table, 40)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_panel_cuts_no_number(finished, rules, width):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    live = LiveDisplay("springs", rules, console, clock=lambda: 5.0)
    live._state = finished.state
    narrow, wide = rendered(live.panel(), width), rendered(live.panel(), 200)
    assert numbers(narrow) <= numbers(wide)
    assert "…" not in narrow
