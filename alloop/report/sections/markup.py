"""Pieces of HTML, rendered from templates that escape all text inserted into them."""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from json import dumps
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from alloop.core.text import printable

Text = str | Markup
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; body is HTML."""

    anchor: str
    title: str
    body: Markup


@dataclass(frozen=True, slots=True)
class PointGroup:
    """Points of one kind in a drawing.

    shape: name of a shape of the page. axes: names of the axes, which the tip of a
    point shows beside its values.
    """

    shape: str
    colour: str
    places: Sequence["PointPlace"]
    axes: str = ""


@dataclass(frozen=True, slots=True)
class PointPlace:
    """A point: its place in the drawing, its x and y, and the frame that it links to.

    frame: the beginning of an id, "" without one.
    """

    x: str
    y: str
    values: str = ""
    frame: str = ""


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("alloop.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable_text,
    )
    environment.filters["words"] = _with_code
    return environment


def _with_code(text: Text) -> Text:
    """Return text whose parts between backticks are marked as code."""
    if "`" not in text:
        return text
    safe = str(escape(text if isinstance(text, Markup) else printable(text)))
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", safe))


def _printable_text(value: Any) -> Any:
    """Return text with control characters escaped; return other values unchanged."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _render_piece(name: str, *arguments: Any) -> Markup:
    pieces: Any = _templates().get_template("pieces.html").module
    return Markup(getattr(pieces, name)(*arguments))


def page_resource(name: str) -> str:
    """Return the text of a file in the `page` folder of the package."""
    return files("alloop.report").joinpath("page", name).read_text(encoding="utf-8")


def render_page(scripts: Sequence[str] = (), data: Any = None, **parts: Any) -> str:
    """Return a whole page whose security policy forbids all network access.

    scripts: the only ones that the page may run; data: JSON values for them. parts:
    title, kind, where, lead, note, sections and foot.
    """
    template = _templates().get_template("page.html")
    return template.render(
        policy=_security_policy(scripts),
        style=Markup(page_resource("page.css")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(safe_json(data)),
        **{"note": "", **parts},
    )


def _security_policy(scripts: Sequence[str]) -> str:
    """Return the security policy: these scripts, inline styles and images only."""
    sources = [f"'sha256-{_script_digest(script)}'" for script in scripts] or ["'none'"]
    return (
        f"default-src 'none'; script-src {' '.join(sources)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _script_digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def safe_json(data: Any) -> str:
    """Return ASCII JSON that is safe inside an HTML element, whatever text it holds."""
    text = dumps(data, separators=(",", ":"), allow_nan=False)
    for character, code_ in _UNSAFE.items():
        text = text.replace(character, code_)
    return text


def paragraph(text: Text, kind: str = "") -> Markup:
    """Return a paragraph of text."""
    return _render_piece("paragraph", text, kind)


def heading(text: Text) -> Markup:
    """Return the title of a part of a section."""
    return _render_piece("heading", text)


def bullet_list(texts: Iterable[Text], kind: str = "") -> Markup:
    """Return a list of texts."""
    return _render_piece("items", list(texts), kind)


def code_block(text: str) -> Markup:
    """Return a block of code."""
    return _render_piece("code", text)


def folded_block(title: str, body: Markup) -> Markup:
    """Return a block that opens with a click."""
    return _render_piece("folded", title, body)


def figure_block(drawings: Markup | Sequence[Markup], caption: str) -> Markup:
    """Return drawings with their explanation.

    They stand side by side, or one below the other on a phone.
    """
    shown = [drawings] if isinstance(drawings, Markup) else drawings
    return _render_piece("figure", shown, caption)


def svg_element(
    about: str, box: str, body: Markup, points: Sequence[PointGroup]
) -> Markup:
    """Return a drawing with its points and a description for screen readers."""
    return _render_piece("svg", about, box, body, points)


def wide_or_narrow(wide: Markup, narrow: Markup) -> list[Markup]:
    """Return a drawing for pages and one for phones, of which one is shown."""
    return [_render_piece("only", "page", wide), _render_piece("only", "phone", narrow)]


def colour_swatch(colour: str, name: str) -> Markup:
    """Return a name behind a swatch of its colour."""
    return _render_piece("swatch", colour, name)


def missing_note(what: str) -> Markup:
    """Return the reason why a figure is missing, to stand in its place."""
    return paragraph(what, "missing")


def frame_link(frame: str) -> Markup:
    """Return the beginning of a frame's id, linked to the frame if the page has it."""
    return _render_piece("frame_link", frame)


def table_html(
    head: Sequence[Text], rows: Iterable[Sequence[Text]], words: int = 1
) -> Markup:
    """Return a table whose first `words` columns are text, the others numbers."""
    return _render_piece("table", list(head), [list(row) for row in rows], words)


def remainder_note(count: int, limit: int) -> Markup:
    """Return a note on the rows beyond `limit` of `count`; empty without any."""
    more = f"And {count - limit} more; `alloop log STORE` lists all."
    return paragraph(more) if count > limit else Markup("")


def outcome_tiles(facts: Iterable[tuple[str, str, str]]) -> Markup:
    """Return facts as tiles: a name, a head in large type and the rest."""
    return _render_piece("outcome", list(facts))


def summary_block(curve: Markup, molecule: Markup) -> Markup:
    """Return the learning curve beside the picture of the molecule."""
    return _render_piece("summary", curve, molecule)


def notebook_block(table: Markup, curve: Markup) -> Markup:
    """Return a table and a figure that need nothing else of the page."""
    return _render_piece("notebook", table, curve)


def subtitle(text: str) -> Markup:
    """Return the title of a part of the first screen."""
    return _render_piece("subtitle", text)


def advice_list(rows: Iterable[tuple[str, str, str]]) -> Markup:
    """Return what to do next: a text, its cost in words and lines of YAML."""
    return _render_piece("advice", list(rows))


def join_pieces(parts: Iterable[Markup]) -> Markup:
    """Return the pieces joined one after the other."""
    return Markup("").join(parts)
