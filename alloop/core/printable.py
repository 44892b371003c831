"""Text from other sources, made safe to print."""

import re

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


def _written_out(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")
