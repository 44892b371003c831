"""Answers that a repair took over: commands that they fit are not carried out again."""

import contextlib
from typing import Protocol

from alloop.core.errors import StoreError
from alloop.history.journal_codec import identical
from alloop.history.reader import History
from alloop.loop import events as e


class ModelSource(Protocol):
    """What is needed of a store to know that a model is there."""

    def model(self, model_id: str) -> bytes:
        """The blob of a model; StoreError where it is not there or damaged."""
        ...


class KeptAnswers:
    """The answers of `Restored` records, each found by the command that it answers."""

    def __init__(self, history: History, models: ModelSource) -> None:
        self._history = history
        self._models = models
        self._places = {
            event.answer.name: entry.seq for entry, event in history.of_kind(e.Restored)
        }

    def find(self, command: e.Command) -> e.Answer | e.TaskLost | None:
        """The answer to exactly this command, None where there is none."""
        seq = self._places.get(command.name)
        if seq is None:
            return None
        (entry,) = self._history.select([seq])
        event = entry.turn.event
        assert isinstance(event, e.Restored)
        fits = is_answer(event.answer, event.asked, command)
        return event.answer if fits and self._usable(event.answer) else None

    def _usable(self, answer: e.Answer | e.TaskLost) -> bool:
        if isinstance(answer, e.Trained):
            with contextlib.suppress(StoreError):
                return bool(self._models.model(answer.model))
            return False
        return not isinstance(answer, e.TaskLost)


def is_answer(
    answer: e.Answer | e.TaskLost, asked: e.Command | None, command: e.Command
) -> bool:
    """True where an answer to the command `asked` is one to `command` as well.

    A label is named by its level and its frame's content; what else is asked of it
    changes nothing. Anything else must have been asked for to the bit.
    """
    if answer.name != command.name:
        return False
    if isinstance(command, e.LabelFrame):
        return True
    return asked is not None and identical(asked, command)
