"""Pieces of HTML, rendered from templates that escape all text inserted into them."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from json import dumps
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alloop.core.text import printable

Text = str | Markup
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; body is HTML."""

    anchor: str
    title: str
    body: Markup


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("alloop.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
    )


def _plain(value: Any) -> Any:
    """Return text with control characters escaped; return other values unchanged."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _piece(name: str, *arguments: Any) -> Markup:
    pieces: Any = _templates().get_template("pieces.html").module
    return Markup(getattr(pieces, name)(*arguments))


def resource(name: str) -> str:
    """Return the text of a file in the `page` folder of the package."""
    return files("alloop.report").joinpath("page", name).read_text(encoding="utf-8")


def page(scripts: Sequence[str] = (), data: Any = None, **parts: Any) -> str:
    """Return a whole page whose security policy forbids all network access.

    scripts: the only ones that the page may run; data: JSON values for them. parts:
    title, kind, where, lead, sections and foot.
    """
    template = _templates().get_template("page.html")
    return template.render(
        policy=_policy(scripts),
        style=Markup(resource("page.css")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(safe_json(data)),
        **parts,
    )


def _policy(scripts: Sequence[str]) -> str:
    """Return the security policy: these scripts, inline styles and images only."""
    known = [f"'sha256-{_digest(script)}'" for script in scripts] or ["'none'"]
    return (
        f"default-src 'none'; script-src {' '.join(known)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def safe_json(data: Any) -> str:
    """Return ASCII JSON that is safe inside an HTML element, whatever text it holds."""
    text = dumps(data, separators=(",", ":"), allow_nan=False)
    for character, code_ in _UNSAFE.items():
        text = text.replace(character, code_)
    return text


def paragraph(text: Text, kind: str = "") -> Markup:
    """Return a paragraph of text."""
    return _piece("paragraph", text, kind)


def heading(text: Text) -> Markup:
    """Return the title of a part of a section."""
    return _piece("heading", text)


def bullet_list(texts: Iterable[Text], kind: str = "") -> Markup:
    """Return a list of texts."""
    return _piece("items", list(texts), kind)


def code_block(text: str) -> Markup:
    """Return a block of code."""
    return _piece("code", text)


def folded_block(title: str, body: Markup) -> Markup:
    """Return a block that opens with a click."""
    return _piece("folded", title, body)


def figure_block(drawings: Markup | Sequence[Markup], how: str) -> Markup:
    """Return drawings with their explanation.

    They stand side by side, or one below the other on a phone.
    """
    shown = [drawings] if isinstance(drawings, Markup) else drawings
    return _piece("figure", shown, how)


def missing_note(what: str) -> Markup:
    """Return the reason why a figure is missing, to stand in its place."""
    return paragraph(what, "missing")


def frame_link(frame: str) -> Markup:
    """Return the beginning of a frame's id, linked to the frame if the page has it."""
    return _piece("frame_link", frame)


def table_html(
    head: Sequence[Text], rows: Iterable[Sequence[Text]], words: int = 1
) -> Markup:
    """Return a table whose first `words` columns are text, the others numbers."""
    return _piece("table", list(head), [list(row) for row in rows], words)


def key_figures(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return key figures, each a number above its name."""
    return _piece("tiles", list(pairs))


def verdict(lines: Iterable[tuple[str, Text]]) -> Markup:
    """Return names with their texts, one line each."""
    return _piece("verdict", list(lines))


def joined(parts: Iterable[Markup]) -> Markup:
    """Return the pieces joined one after the other."""
    return Markup("").join(parts)
