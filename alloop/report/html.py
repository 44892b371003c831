"""The report: one self-contained HTML file, from the store alone."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.moments import local_time
from alloop.loop.history import History
from alloop.report import labelling, methods, sections, spending
from alloop.report.evidence import points
from alloop.report.facts import generations, made
from alloop.report.markup import STYLE, Section, escape, paragraph, tiles
from alloop.report.summary import NO_CONTROLS, headline
from alloop.report.words import duration, milli


def write(
    history: History, out: Path, controls: Mapping[str, History] = NO_CONTROLS
) -> Path:
    """Write the report to `out` and return it; an older one is replaced as a whole.

    controls: histories of control campaigns by name. Raises InputError where there is
    nothing to report, or where the file cannot be written.
    """
    page = render(history, controls)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise InputError(
            f"expected a file that can be written at {out} ({error}); choose another "
            "place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def render(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> str:
    """The page as text; the same history gives the same text."""
    parts = list(_sections(history, controls))
    name = escape(str(history.attrs["name"]))
    links = " ".join(
        f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in parts
    )
    body = "\n".join(_section(part) for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: campaign report</title><style>{STYLE}</style></head>\n"
        f"<body><main><header><h1>{name}</h1>{_where(history)}"
        f"{_summary(history, controls)}<nav>{links}</nav></header>\n{body}\n"
        f"<footer>{_foot(history)}</footer></main></body></html>\n"
    )


def _sections(history: History, controls: Mapping[str, History]) -> Iterator[Section]:
    found = points(history)
    yield sections.learning(history, controls)
    yield sections.agreement(history)
    yield sections.surprise(found)
    yield sections.bias(history)
    yield labelling.labels(history)
    yield labelling.noise(history)
    yield spending.spending(history)
    yield sections.timeline(history)
    yield methods.weak(history, controls, found)
    yield methods.methods(history)
    yield methods.reading(history)


def _section(part: Section) -> str:
    title = escape(part.title)
    return f'<section id="{part.anchor}"><h2>{title}</h2>{part.body}</section>'


def _summary(history: History, controls: Mapping[str, History]) -> str:
    lines = paragraph(" ".join(headline(history, controls)), "lead")
    return lines + tiles(_key_figures(history))


def _key_figures(history: History) -> Iterator[tuple[str, str]]:
    stands = generations(history)
    if stands:
        last = stands[-1]
        yield milli(last.force_mae), "meV/Å, test force MAE"
        yield milli(last.energy_mae), "meV, test energy MAE"
        yield str(last.generation), "generations"
    for each in made(history):
        yield str(each.good), f"{each.kind} labels"
    yield duration(history.state.cpu_seconds()), "CPU time of all labels"


def _where(history: History) -> str:
    return paragraph(f"{history.path} · {_last(history)}", "where")


def _last(history: History) -> str:
    if not history.entries:
        return "nothing committed yet"
    count = len(history.entries)
    return f"journal record {count - 1} of {local_time(history.entries[-1].time)}"


def _foot(history: History) -> str:
    return escape(
        f"Written from the journal of {history.path} alone; `alloop report` writes it "
        "anew."
    )
