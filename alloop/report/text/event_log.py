"""Phrases for events, and lines of the log.

The log file has a line for each committed event, through standard `logging`.
"""

import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOWrapper
from math import isfinite, isnan
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alloop.core.atoms import hill_formula
from alloop.core.doubts import doubts_of_details
from alloop.core.errors import InputError
from alloop.core.levels import Fidelity, LevelId
from alloop.core.records import Label, ModelCheck, Noise, Unlabelled, Walker
from alloop.core.text import local_time, printable_line
from alloop.history.reader import History, JournalEntry
from alloop.loop import events as e
from alloop.loop.commands import Command, LabelFrame, Stop, Train, TrainPart
from alloop.loop.state import LoopState
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_text,
    guard_stops,
    milli_text,
    number_text,
    plural,
    refinement_text,
    tiny_text,
)


def turn_text(turn: e.Turn, levels: Mapping[Fidelity, LevelId]) -> str:
    """Return one journal record as a line; levels: level id by fidelity."""
    tasks = _command_text(turn.commands)
    line = event_text(turn.event, levels)
    return f"{line} → {tasks}" if tasks else line


def event_text(event: e.Event, levels: Mapping[Fidelity, LevelId]) -> str:
    """Return one event as a phrase; levels: level id by fidelity."""
    match event:
        case e.Opened():
            return _opening_text(event)
        case e.Amended():
            keys = ", ".join(event.changed)
            return f"configuration changed: {keys}" if keys else "resumed"
        case e.Forked():
            return (
                f"forked from {event.parent} after generation {event.generation}, "
                f"its record {event.seq}"
            )
        case e.Posed() | e.Restored():
            return _adoption_text(event)
        case e.Excluded() | e.Included():
            return _manual_text(event)
        case e.Retried():
            return f"{plural(len(event.labels), 'lost label')} asked for again by hand"
        case e.TaskLost():
            return f"{event.name} was lost (attempt {event.attempt}): {event.reason}"
        case _:
            return _answer_text(event, levels)


def _adoption_text(event: e.Posed | e.Restored) -> str:
    if isinstance(event, e.Restored):
        return f"{event.answer.name} taken over by a repair"
    many = plural(len(event.frames), "frame")
    return f"{many} of another campaign's examination taken over"


def _manual_text(event: e.Excluded | e.Included) -> str:
    what = f"{event.fidelity} label of frame" if event.fidelity else "frame"
    done = "excluded" if isinstance(event, e.Excluded) else "no longer excluded,"
    why = f": {event.reason}" if event.reason else ""
    return f"{what} {event.frame[:8]} {done} by hand{why}"


def _answer_text(event: e.Answer, levels: Mapping[Fidelity, LevelId]) -> str:
    match event:
        case e.Prepared():
            return (
                f"molecule {event.molecule} ({hill_formula(event.minimum)}) relaxed, "
                f"{plural(len(event.seeds), 'first frame')} drawn"
            )
        case e.Sampled():
            return f"{plural(len(event.frames), 'validation frame')} drawn by MD"
        case e.Labelled() | e.NotLabelled():
            return _label_text(event, levels)
        case e.Explored() | e.Examined():
            return _motion_text(event)
        case e.Trained() | e.PartTrained():
            return training_text(event)
        case e.Rechecked():
            return f"{_label_name(event.noise, levels)} {noise_text(event.noise)}"
        case e.Priced():
            return _price_text(event, levels)


def training_text(event: e.Trained | e.PartTrained) -> str:
    """Return a finished training as a phrase: errors, threshold and CPU time."""
    if isinstance(event, e.PartTrained):
        return _part_text(event)
    test = event.evaluation
    error = "no validation set" if test is None else _error_text(test)
    return (
        f"generation {event.generation} {_made_text(event)}: {error}, "
        f"threshold {number_text(event.threshold)}{_limit_text(event)}, "
        f"{duration_text(event.timing.cpu_seconds)} CPU{_check_text(event)}"
    )


def _made_text(event: e.Trained) -> str:
    refinement = event.refinement
    return (
        "trained" if refinement is None else f"refined ({refinement_text(refinement)})"
    )


def _check_text(event: e.Trained) -> str:
    """Return the checks that a generation failed, empty without."""
    failed = event.failed_checks
    if not failed:
        return ""
    return f"; not accepted, it failed: {'; '.join(map(check_text, failed))}"


def check_text(check: ModelCheck) -> str:
    """Return a check of a model as a phrase: name, value and limit."""
    unit = f" {check.unit}" if check.unit else ""
    more = f" ({check.detail})" if check.detail else ""
    limit = (
        f", at most {number_text(check.limit)}{unit}" if isfinite(check.limit) else ""
    )
    return f"{check.name} {number_text(check.value)}{unit}{limit}{more}"


def _limit_text(event: e.Trained) -> str:
    """Return the limit of the error at the median surprise, empty without limits."""
    limits = event.error_limits
    if limits is None:
        return ""
    median = milli_text(limits.limit(limits.centre))
    return f", {limits.coverage:.0%} of errors below {median} meV/Å at median surprise"


def _error_text(test: e.Evaluation) -> str:
    forces = (
        f"forces {milli_text(test.force_mae)} meV/Å (RMSE "
        f"{milli_text(test.force_rmse)}), "
        if isfinite(test.force_mae)
        else ""
    )
    energies = energy_errors_text(test.energy_mae, test.energy_absolute)
    frames = plural(len(test.frames), "frame")
    return f"validation set: {forces}energies {energies} on {frames}"


def errors_text(
    forces: tuple[float | None, float | None],
    energies: tuple[float | None, float | None],
) -> str:
    """Return what a model errs by: `3.1 meV/Å in forces (MAE; ...) and by ...`.

    forces: MAE and RMSE in eV/Å, which are left out where they are NaN; energies: MAE
    with the mean offset removed, and with it, in eV.
    """
    text = f"{energy_errors_text(*energies)} in energies"
    mae, rmse = forces
    if mae is None or not isfinite(mae):
        return text
    said = f"{milli_text(mae)} meV/Å in forces (MAE; RMSE {milli_text(rmse)})"
    return f"{said} and by {text}"


def energy_errors_text(removed: float | None, absolute: float | None) -> str:
    """Return both errors: `0.31 meV (MAE, mean offset removed; 2.4 with it)`."""
    offset = "" if absolute is None else f"; {milli_text(absolute)} with it"
    return f"{milli_text(removed)} meV (MAE, mean offset removed{offset})"


def _opening_text(event: e.Opened) -> str:
    molecules = and_list(hill_formula(frame) for frame in event.start)
    supplied = f", {plural(len(event.given), 'label')} supplied" if event.given else ""
    return f"campaign opened: {molecules}, seed {event.seed}{supplied}"


def _label_text(
    event: e.Labelled | e.NotLabelled, levels: Mapping[Fidelity, LevelId]
) -> str:
    if isinstance(event, e.NotLabelled):
        record = event.unlabelled
        details = f" ({record.message})" if record.message else ""
        return f"no {_label_name(record, levels)}: {record.failure}{details}"
    what = _label_name(event.label, levels)
    cost = "from a cache" if event.cached else duration_text(event.label.cpu_seconds)
    signs = ", ".join(
        sorted(doubt.name.lower() for doubt in doubts_of_details(event.label.details))
    )
    doubt = f", doubtful: {signs}" if signs else ""
    return f"{what}: {event.label.energy:.4f} eV, {cost}{doubt}"


def _label_name(
    record: Label | Unlabelled | Noise, levels: Mapping[Fidelity, LevelId]
) -> str:
    """Return the name of a label for people: `cheap label of frame 01234567`."""
    fidelity = _level_fidelity(record.level, levels)
    return f"{fidelity} label of frame {record.frame[:8]}"


def _level_fidelity(level: str, levels: Mapping[Fidelity, LevelId]) -> str:
    return next((key for key, value in levels.items() if value == level), level)


def noise_text(noise: Noise) -> str:
    """Return the result of making a label again, as a phrase."""
    if noise.failure is not None:
        return f"could not be made again: {failure_text(noise.failure)}"
    text = (
        "was made again to know its noise: energy moved by "
        f"{tiny_text(noise.energy)} meV"
    )
    if isnan(noise.force_rms):
        return text
    return (
        f"{text}, forces by {tiny_text(noise.force_rms)} meV/Å (RMS; at most "
        f"{tiny_text(noise.force_max)})"
    )


_PARTS = {
    "all": "all labels",
    "few-cheap": "a quarter of the cheap labels and all expensive ones",
    "few-expensive": "a quarter of the expensive labels and all cheap ones",
    "alone": "the expensive labels alone",
    "few-alone": "a quarter of the expensive labels alone",
}


def _part_text(event: e.PartTrained) -> str:
    part = _PARTS.get(event.part, event.part)
    return (
        f"short training beside generation {event.generation} on {part}: "
        f"forces {milli_text(float(event.errors.mean()))} meV/Å on "
        f"{plural(len(event.errors), 'frame')}"
    )


def _price_text(event: e.Priced, levels: Mapping[Fidelity, LevelId]) -> str:
    counts = sorted(
        f"{_level_fidelity(level, levels)} from {plural(cost.labels, 'label')}"
        for level, cost in event.costs.items()
    )
    return f"prices of labels fitted: {and_list(counts) or 'none known'}"


def _exploration_text(event: e.Explored) -> str:
    stopped = stopped_walkers(event.walkers)
    return (
        f"round {event.round}, batch {event.batch}, piece {event.piece}: "
        f"{plural(len(event.walkers), 'walker')}, "
        f"{plural(event.scored, 'frame')} scored, "
        f"{plural(len(event.candidates), 'candidate')}, "
        f"{plural(len(event.controls), 'control frame')}"
        f"{stopped}{f'; {event.note}' if event.note else ''}"
    )


def _motion_text(event: e.Explored | e.Examined) -> str:
    return (
        _exploration_text(event)
        if isinstance(event, e.Explored)
        else _examination_text(event)
    )


def stopped_walkers(walkers: Iterable[Walker]) -> str:
    """Return the stops as text: `, 2 walkers stopped: force 31.0 eV/Å above 30`.

    The text is empty where no walker was stopped.
    """
    return "".join(
        f", {plural(count, 'walker')} stopped: {why}"
        for why, count in sorted(guard_stops(walkers).items())
    )


def _examination_text(event: e.Examined) -> str:
    stopped = stopped_walkers(event.walkers)
    beyond = "" if event.explorer == "md" else " beyond MD"
    return (
        f"examination {event.number}{beyond}, batch {event.batch}, piece "
        f"{event.piece}: "
        f"{plural(len(event.walkers), 'walker')}, {plural(len(event.frames), 'frame')} "
        f"predicted before their labels{stopped}"
    )


def _command_text(commands: Iterable[Command]) -> str:
    counts = Counter(_command_kind(command) for command in commands)
    return ", ".join(
        kind if kind.startswith("finished") else f"{count} × {kind}"
        for kind, count in sorted(counts.items())
    )


def _command_kind(command: Command) -> str:
    match command:
        case LabelFrame():
            return f"label {command.fidelity} ({command.purpose})"
        case TrainPart():
            return "short training"
        case Train(refine=frames) if frames:
            return "refine"
        case Stop():
            return f"finished: {command.reason}"
        case _:
            return type(command).__name__.lower()


def log_lines(history: History, last: int = 0) -> Iterator[str]:
    """Yield a line for each journal record: number, local time and event.

    last: only that many records at the end; 0 for all.
    """
    levels = history.state.levels
    for entry in history.entries[-last:] if last else history.entries:
        yield log_line(entry, levels)


def log_line(entry: JournalEntry, levels: Mapping[Fidelity, LevelId]) -> str:
    """Return a journal record as a line; levels: level id by fidelity."""
    line = printable_line(turn_text(entry.turn, levels))
    return f"{entry.seq:>6}  {local_time(entry.time)}  {line}"


def log_entry(
    entry: JournalEntry, levels: Mapping[Fidelity, LevelId]
) -> dict[str, Any]:
    """Return a journal record for scripts: number, local time, event and sentence."""
    return {
        "record": entry.seq,
        "time": local_time(entry.time),
        "event": type(entry.turn.event).__name__,
        "text": turn_text(entry.turn, levels),
    }


LOGGER = logging.getLogger("alloop")
_FORM = "%(asctime)s %(levelname)-7s %(message)s"


class _Formatter(logging.Formatter):
    """A formatter that writes times as the rest of alloop does, with zone offset."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the local time of a record."""
        del datefmt
        return local_time(record.created)


class _Handler(logging.FileHandler):
    """A handler that drops lines that cannot be written, since the journal has all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a failure to write a line; report other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _open(self) -> "TextIOWrapper[Any]":
        """Open the file to append to it, never through a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(self.baseFilename, flags, 0o666)
        return os.fdopen(handle, "a", encoding=self.encoding)

    def close(self) -> None:
        """Close the file, even where its last lines cannot be written."""
        with contextlib.suppress(OSError):
            super().close()


class LogFile:
    """A log file at `path`, open while its context is; lines are appended.

    All other messages to the `alloop` logger are written to it too. Raises InputError
    where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Handler(self.path, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"expected a log file that can be written at {self.path} ({error}); "
                "choose another place for the store"
            ) from error
        self._handler.setFormatter(_Formatter(_FORM))
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        LOGGER.addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        LOGGER.removeHandler(self._handler)
        LOGGER.setLevel(self._level)
        self._handler.close()

    def observe(self, state: LoopState, turn: e.Turn) -> None:
        """Log a turn that has been committed."""
        bad = isinstance(turn.event, e.NotLabelled | e.TaskLost)
        LOGGER.log(
            logging.WARNING if bad else logging.INFO,
            "%s",
            printable_line(turn_text(turn, state.levels)),
        )


@contextlib.contextmanager
def log_observer(
    path: Path, warn: Callable[[str], None]
) -> Iterator[Callable[[LoopState, e.Turn], None]]:
    """Yield an observer of turns that writes a log file, opened at the first turn.

    warn: called with the reason if the file cannot be written.
    """
    opened: list[LogFile | None] = []
    with contextlib.ExitStack() as stack:

        def open_file() -> LogFile | None:
            try:
                return stack.enter_context(LogFile(path))
            except InputError as error:
                warn(f"no log is written: {error}")
                return None

        def observe(state: LoopState, turn: e.Turn) -> None:
            if not opened:
                opened.append(open_file())
            if opened[0] is not None:
                opened[0].observe(state, turn)

        yield observe
