"""Text from elsewhere commands neither terminal nor page."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from alloop.campaign import Campaign
from alloop.cli import console
from alloop.cli.app import run_command
from alloop.core.text import printable, printable_line
from alloop.driver.run import RunObserver
from alloop.history.reader import read_history
from alloop.report.text.live_display import LiveDisplay
from tests.conftest import write_toy
from tests.counted import RUDE

RUDE_LEVEL = {"kind": "tests.counted:label_rude", "settings": {}}


def unsafe(text: str) -> set[str]:
    """Control characters that a terminal or a browser would obey."""
    return {x for x in text if x < " " or "\x7f" <= x < "\xa0"} - {"\n"}


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b[2Jb\x07\x9b\x7f\r\nc\td\r") == (
        "a\\x1b[2Jb\\x07\\x9b\\x7f\nc\td\\r"
    )
    assert printable("\u202egpj.exe \ud800") == "\\u202egpj.exe \\ud800"
    assert printable("Å, ö, “x”, 水, 👩\u200d🔬") == "Å, ö, “x”, 水, 👩\u200d🔬"
    assert printable_line("two\nlines") == "two\\nlines"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_writes_strings_as_they_are(terminal: bool) -> None:
    file = io.StringIO()
    plain = console.PlainConsole(file=file, force_terminal=terminal, color_system=None)
    table = Table("head", box=None)
    table.add_row(RUDE)
    plain.print(table)
    plain.print(RUDE, markup=False, soft_wrap=True)
    assert unsafe(file.getvalue()) == set()
    assert file.getvalue().count("[bold]rude[/bold]") == 2


@pytest.mark.usefixtures("figures")
def test_a_rude_failure_reaches_no_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = {"cheap": {"kind": "toy", "stiffness": 0.9}, "expensive": RUDE_LEVEL}
    file = write_toy(tmp_path, levels=levels)
    campaign, shown = Campaign.from_yaml(file), io.StringIO()
    rich = Console(file=shown, force_terminal=True, color_system=None, width=100)
    with LiveDisplay("toy\x1b[2J", campaign.setup.rules, rich) as live:
        campaign.run(observer=RunObserver(observe=live.observe, tick=live.tick))
    assert "\x1b[2J" not in shown.getvalue()
    store = campaign.store
    failed = [
        x for x in read_history(store).record_index.labels if "rude" in str(x.record)
    ]
    assert failed
    frame = failed[0].frame.id
    assert run_command(["run", str(file), "--retry"]) in (0, 3)
    for command in (["status"], ["log"], ["why"], ["report"], ["doctor"]):
        more = [frame] if command == ["why"] else []
        run_command([*command, str(store), *more])
        said = capsys.readouterr()
        assert unsafe(said.out + said.err) == set(), command
        assert ("rude" in said.out) or command not in (["why"], ["log"])
    written = [store.with_suffix(ending) for ending in (".html", ".log")]
    for path in written:
        assert unsafe(path.read_text(encoding="utf-8")) <= {"\t"}
    lines = written[1].read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith("second line") for line in lines)


def test_mistakes_repeat_foreign_text_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text('"na\\e[2Jme": 3\n')
    assert run_command(["check", str(file)]) == 2
    said = capsys.readouterr()
    assert unsafe(said.out + said.err) == set()
    assert "\\x1b[2J" in said.err
