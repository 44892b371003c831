"""Small pieces of HTML. Text is escaped here and nowhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as escape


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; body is HTML."""

    anchor: str
    title: str
    body: str


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def items(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def code(text: str) -> str:
    """A block of code."""
    return f"<pre><code>{escape(text)}</code></pre>"


def folded(title: str, body: str) -> str:
    """Something to open with a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def figure(svg: str, how: str) -> str:
    """A figure and how to read it."""
    return (
        f'<figure><div class="plot">{svg}</div>'
        f"<figcaption>{escape(how)}</figcaption></figure>"
    )


def missing(what: str) -> str:
    """In place of a figure: why there is none."""
    return paragraph(what, "missing")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns are text and whose others are numbers."""
    top = "".join(
        f'<th scope="col"{_class("" if place < words else "n")}>{escape(cell)}</th>'
        for place, cell in enumerate(head)
    )
    body = "".join(f"<tr>{_cells(row, words)}</tr>" for row in rows)
    return (
        '<div class="wide"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Key figures: a number above what it is."""
    cells = (
        f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>"
        for value, name in pairs
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _cells(row: Sequence[str], words: int) -> str:
    cells = (
        f"<td{_class('' if place < words else 'n')}>{escape(cell)}</td>"
        for place, cell in enumerate(row)
    )
    return "".join(cells)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5c6470; --line: #d9dde3;
  --paper: #fff; --panel: #f5f6f8; --accent: #2f6fd0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --soft: #9aa3b0;
  --line: #363c46; --paper: #14171c; --panel: #1c2027; --accent: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 53rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, ul { margin: .6rem 0; max-width: 46rem; }
a { color: var(--accent); }
header > p.where { color: var(--soft); font-size: .88rem; margin: .3rem 0 1.2rem; }
p.lead { font-size: 1.1rem; }
p.missing { background: var(--panel); border-left: 3px solid var(--line);
  padding: .7rem 1rem; color: var(--soft); }
nav { font-size: .88rem; margin: 1.2rem 0 0; line-height: 1.9; }
nav a { margin-right: 1rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; gap: .7rem; margin: 1.4rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles > div { background: var(--panel); border-radius: .5rem; padding: .8rem 1rem;
  display: flex; flex-direction: column; }
.tiles dd { margin: 0; font-size: 1.45rem; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles dt { color: var(--soft); font-size: .84rem; line-height: 1.35; }
figure { margin: 1.2rem 0; }
figure svg { display: block; width: 100%; min-width: 32rem; height: auto;
  color: var(--ink); font-family: inherit; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem;
  max-width: 46rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; width: 100%;
  font-variant-numeric: tabular-nums; }
.plot { overflow-x: auto; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .82rem;
  vertical-align: bottom; }
th.n { text-align: right; }
th, td { padding: .38rem .8rem .38rem 0; border-bottom: 1px solid var(--line); }
td { vertical-align: top; }
td.n { white-space: nowrap; }
.n { text-align: right; }
th:last-child, td:last-child { padding-right: 0; }
pre { background: var(--panel); border-radius: .5rem; padding: .9rem 1rem;
  overflow-x: auto; font-size: .84rem; line-height: 1.5; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: .84rem; margin-top: 3rem; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb;
  --paper: #fff; --panel: #f3f3f3; --accent: #000; }
  main { max-width: none; padding: 0; } body { font-size: 10.5pt; }
  nav { display: none; }
  figure, table, .tiles { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
