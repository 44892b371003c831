"""Answers that a repair kept, used instead of carrying out their commands again."""

import contextlib
from typing import Protocol

from alloop.core.errors import StoreError
from alloop.history.journal_codec import identical
from alloop.history.reader import History
from alloop.loop import events as e


class ModelSource(Protocol):
    """A store in which models can be looked up."""

    def model(self, model_id: str) -> bytes:
        """Return the blob of a model; StoreError where it is absent or damaged."""
        ...


class KeptAnswers:
    """The answers of `Restored` records, found by the commands that they answer."""

    def __init__(self, history: History, models: ModelSource) -> None:
        self._history = history
        self._models = models
        self._places = {
            event.answer.name: entry.seq for entry, event in history.of_kind(e.Restored)
        }

    def find(self, command: e.Command) -> e.Answer | e.TaskLost | None:
        """Return the answer to exactly this command, None without one."""
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
    """Return True if an answer to the command `asked` also answers `command`.

    The name of a label is its level and the id of its frame, which determine it. Any
    other command must be identical to the bit.
    """
    if answer.name != command.name:
        return False
    if isinstance(command, e.LabelFrame):
        return True
    return asked is not None and identical(asked, command)
