"""Text for people: counts, times, printable text, suggestions for misspelt words."""

import re
from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches

from alloop.core.errors import InputError


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 label`, `2 labels`, `2 pieces of MD`."""
    if count == 1:
        return f"1 {noun}"
    head, of, tail = noun.partition(" of ")
    return f"{count} {head}s{of}{tail}"


def local_time(moment: float) -> str:
    """Return local time with its offset, `2026-11-22 10:12:33+01:00` (ISO 8601)."""
    there = datetime.fromtimestamp(moment).astimezone()
    return there.isoformat(sep=" ", timespec="seconds")


# C0 and C1 control characters but tab and newline, DEL, lone surrogates, and the marks
# that turn the direction of text; U+2028 and U+2029 break lines.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return the text with every control character written out, as in `\x1b`.

    A terminal obeys control characters: a message from a file, a store or another
    program could clear the screen or set its title. Newline and tab stay; CR LF becomes
    a newline.
    """
    return _UNPRINTABLE.sub(_written_out, text.replace("\r\n", "\n"))


def printable_line(text: str) -> str:
    """Return printable text on one line, its line breaks written out too."""
    return printable(text).replace("\n", "\\n")


def _written_out(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def nearest_word(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known word that looks most like this one in any case, or None."""
    lower = {name.lower(): name for name in words}
    close = get_close_matches(str(word).lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def spelling_hint(word: str, words: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the list of known words."""
    names = list(words)
    close = nearest_word(word, names)
    return f"did you mean {close!r}?" if close else f"known are {', '.join(names)}"


def known_word(word: str, words: Iterable[str], what: str) -> str:
    """Return the known word that is this one in any case; InputError without one."""
    names = {name.lower(): name for name in words}
    spelled = names.get(word.strip().lower())
    if spelled is None:
        raise InputError(
            f"there is no {what} {word!r}; {spelling_hint(word, names.values())}"
        )
    return spelled
