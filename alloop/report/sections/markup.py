"""Small pieces of HTML, from templates that escape all text but their own."""

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

from alloop.core.printable import printable

Text = str | Markup
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; body is HTML."""

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
    """Text with its control characters written out; pieces of the page as they are."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _piece(name: str, *arguments: Any) -> Markup:
    pieces: Any = _templates().get_template("pieces.html").module
    return Markup(getattr(pieces, name)(*arguments))


def resource(name: str) -> str:
    """The text of a file that the page carries."""
    return files("alloop.report").joinpath("page", name).read_text(encoding="utf-8")


def page(scripts: Sequence[str] = (), data: Any = None, **parts: Any) -> str:
    """A whole page that no browser lets reach a network.

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
    """What the page may do: run these scripts, have a style, draw."""
    known = [f"'sha256-{_digest(script)}'" for script in scripts] or ["'none'"]
    return (
        f"default-src 'none'; script-src {' '.join(known)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def safe_json(data: Any) -> str:
    """JSON in ASCII that ends no element of HTML, whatever text it holds."""
    text = dumps(data, separators=(",", ":"), allow_nan=False)
    for character, code_ in _UNSAFE.items():
        text = text.replace(character, code_)
    return text


def paragraph(text: Text, kind: str = "") -> Markup:
    """A paragraph of text."""
    return _piece("paragraph", text, kind)


def heading(text: Text) -> Markup:
    """The title of a part of a section."""
    return _piece("heading", text)


def bullet_list(texts: Iterable[Text], kind: str = "") -> Markup:
    """A list of texts."""
    return _piece("items", list(texts), kind)


def code_block(text: str) -> Markup:
    """A block of code."""
    return _piece("code", text)


def folded_block(title: str, body: Markup) -> Markup:
    """Something to open with a click."""
    return _piece("folded", title, body)


def figure_block(drawings: Markup | Sequence[Markup], how: str) -> Markup:
    """Drawings side by side, on a phone one below the other, and how to read them."""
    shown = [drawings] if isinstance(drawings, Markup) else drawings
    return _piece("figure", shown, how)


def missing_note(what: str) -> Markup:
    """In place of a figure: why there is none."""
    return paragraph(what, "missing")


def frame_link(frame: str) -> Markup:
    """The beginning of a frame's id, which opens the frame where the page has it."""
    return _piece("frame_link", frame)


def table_html(
    head: Sequence[Text], rows: Iterable[Sequence[Text]], words: int = 1
) -> Markup:
    """A table whose first `words` columns are text and whose others are numbers."""
    return _piece("table", list(head), [list(row) for row in rows], words)


def key_figures(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Key figures: a number above what it is."""
    return _piece("tiles", list(pairs))


def verdict(lines: Iterable[tuple[str, Text]]) -> Markup:
    """Names with their texts, a line each."""
    return _piece("verdict", list(lines))


def joined(parts: Iterable[Markup]) -> Markup:
    """Pieces one after the other."""
    return Markup("").join(parts)
