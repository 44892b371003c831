"""The log file."""

import logging

import pytest

from alloop.core.errors import InputError
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState
from alloop.report.text.event_log import LogFile


def _log(path, history, turns):
    state = LoopState()
    with LogFile(path) as log:
        for entry in history.entries[:turns]:
            state = next_state(state, entry.turn.event, entry.turn.commands)
            log.observe(state, entry.turn)


def test_every_event_is_a_line_and_failures_are_warnings(finished, tmp_path):
    path = tmp_path / "deep" / "springs.log"
    _log(path, finished, None)
    lines = path.read_text().splitlines()
    assert len(lines) == len(finished.entries)
    assert lines[0].endswith("INFO    campaign opened: H2O, seed 7 → 1 × prepare")
    failed = [line for line in lines if "no cheap label of frame" in line]
    assert len(failed) == 5
    assert all(" WARNING " in line for line in failed)


def test_a_second_run_appends(finished, tmp_path):
    path = tmp_path / "springs.log"
    _log(path, finished, 2)
    _log(path, finished, 1)
    assert len(path.read_text().splitlines()) == 3


def test_logging_is_left_as_it_was(finished, tmp_path):
    logger = logging.getLogger("alloop")
    before = (logger.level, list(logger.handlers))
    _log(tmp_path / "springs.log", finished, 1)
    assert (logger.level, list(logger.handlers)) == before


def test_a_place_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a log file that can be written"):
        LogFile(tmp_path / "file" / "springs.log").__enter__()
