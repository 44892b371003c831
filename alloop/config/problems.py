"""The mistakes of a configuration, reported all at once, with path and remedy."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from alloop.core.errors import InputError
from alloop.core.text import nearest_word as nearest_word
from alloop.core.text import plural


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the dotted path of the key and one sentence."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class ConfigError(InputError):
    """The error of an unusable configuration; `problems` holds every mistake."""

    def __init__(self, where: str, problems: Iterable[Problem]) -> None:
        self.where = where
        self.problems = tuple(problems)
        head = f"{where} has {plural(len(self.problems), 'mistake')}:"
        super().__init__("\n".join([head, *(f"  {p}" for p in self.problems)]))


def key_suggestion(word: str, known: Collection[str]) -> str:
    """Return `did you mean ...?` if a known word is near, else all known words."""
    close = nearest_word(word, known)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"known are {', '.join(f'`{name}`' for name in known)}"


def shown_value(value: Any) -> str:
    """Return a value as text for a message, shortened to 60 characters."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
