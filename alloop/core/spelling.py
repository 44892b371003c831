"""Suggestions for misspelt words: the known word that looks most like the given one."""

from collections.abc import Iterable
from difflib import get_close_matches

from alloop.core.errors import InputError


def nearest_word(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known word that looks most like this one in any case, or None."""
    lower = {name.lower(): name for name in known}
    close = get_close_matches(str(word).lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def spelling_hint(word: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the list of known words."""
    names = list(known)
    close = nearest_word(word, names)
    return f"did you mean {close!r}?" if close else f"known are {', '.join(names)}"


def known_word(word: str, known: Iterable[str], what: str) -> str:
    """Return the known word that is this one in any case; InputError without one."""
    names = {name.lower(): name for name in known}
    found = names.get(word.strip().lower())
    if found is None:
        raise InputError(
            f"there is no {what} {word!r}; {spelling_hint(word, names.values())}"
        )
    return found
