"""The log file of a run: a line for each turn, as it is committed."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alloop.loop import events as e
from alloop.loop.state import LoopState


class Log:
    """Appends to a file; the journal stays the truth, and `alloop log` tells it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def observe(self, state: LoopState, turn: e.Turn) -> None:
        """Note what happened and what was asked for because of it."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        asked = _asked(turn.commands)
        line = f"{now} round {state.round}: {_what(turn.event)}"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}; asked for {asked}\n" if asked else f"{line}\n")


def _what(event: e.Event) -> str:
    match event:
        case e.Opened():
            return f"a new campaign of {len(event.start)} molecules, seed {event.seed}"
        case e.Amended():
            return f"goes on; changed: {', '.join(event.changed) or 'nothing'}"
        case e.Excluded():
            return f"{event.frame} excluded: {event.reason}"
        case e.TaskLost():
            return f"{event.name} lost, attempt {event.attempt}: {event.reason}"
        case e.NotLabelled():
            failed = event.unlabelled
            return f"{event.name} failed: {failed.failure} ({failed.message})"
        case _:
            return f"{event.name} done{_outcome(event)}"


def _outcome(event: e.Answer) -> str:
    match event:
        case e.Labelled(cached=True):
            return ", from a cache"
        case e.Labelled():
            return f" in {event.label.cpu_seconds:.2f} CPU s"
        case e.Explored():
            return f", {event.scored} frames scored"
        case e.Trained(evaluation=e.Evaluation() as test):
            return f", test force error {test.force_mae * 1e3:.1f} meV/Å"
        case _:
            return ""


def _asked(commands: Sequence[e.Command]) -> str:
    """`train/2`, or how many of each kind where there are many."""
    stops = [command.reason for command in commands if isinstance(command, e.Stop)]
    if stops:
        return f"the end: {stops[0]}"
    if len(commands) <= 1:
        return "".join(command.name for command in commands)
    kinds = Counter(command.name.partition("/")[0] for command in commands)
    return ", ".join(f"{many} {kind}" for kind, many in sorted(kinds.items()))
