"""The report: one self-contained HTML file, from the store alone."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from markupsafe import Markup

from alloop.core.errors import InputError
from alloop.core.frame import FrameId
from alloop.core.moments import local_time
from alloop.files.whole import whole
from alloop.loop.history import History
from alloop.loop.prices import by_part
from alloop.report import (
    figures,
    labelling,
    methods,
    sections,
    spending,
    walkers,
    weaknesses,
)
from alloop.report.descriptor_map import DescriptorMap, descriptor_map
from alloop.report.error_groups import error_groups
from alloop.report.evidence import Point, points, some_points
from alloop.report.examination import examination
from alloop.report.explorations import Explorations, explorations
from alloop.report.facts import best, generations, made, set_name
from alloop.report.frame_cards import cards, carried
from alloop.report.markup import Section, page, paragraph, resource, tiles, verdict
from alloop.report.quality import qualities, quarantined
from alloop.report.short_verdict import short_verdict
from alloop.report.summary import NO_CONTROLS, how_it_stands
from alloop.report.words import duration, milli

_MOST_LISTED = 200  # frames of stopped walkers, and of failed labels


def write(
    history: History, out: Path, controls: Mapping[str, History] = NO_CONTROLS
) -> Path:
    """Write the report to `out` and return it; an older one is replaced as a whole.

    controls: histories of control campaigns by name. Raises InputError where there is
    nothing to report, or where the file cannot be written.
    """
    return write_page(render(history, controls), out)


def write_page(page: str, out: Path) -> Path:
    """Write a page to `out` and return it; an older one is replaced as a whole.

    Raises InputError where the file cannot be written.
    """
    try:
        with whole(out) as partial:
            partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"expected a file that can be written at {out} ({error}); choose another "
            "place"
        ) from error
    return out


def render(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> str:
    """The page as text; the same history gives the same text."""
    brought, found = explorations(history), descriptor_map(history)
    known = points(history, brought)
    sections = tuple(_sections(history, controls, _Drawn(brought, found, known)))
    wanted = [*_wanted(history, brought, known), *(found.frames if found else ())]
    frames = carried(history, brought, wanted)
    lead = paragraph(how_it_stands(history), "lead")
    lead += tiles(_key_figures(history)) + verdict(short_verdict(history, controls))
    return page(
        scripts=[resource("3Dmol/3Dmol-min.js"), resource("page.js")] if frames else [],
        data=cards(history, brought, frames),
        title=str(history.attrs["name"]),
        kind="campaign report",
        where=f"{history.path} · {_last(history)}",
        lead=lead + _how_to_click(frames, wanted),
        sections=sections,
        foot=f"Written from the store {history.path} alone; `alloop report` writes it "
        "anew.",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """What takes long to find, for all sections."""

    brought: Explorations
    map: DescriptorMap | None
    points: tuple[Point, ...]


def _sections(
    history: History, controls: Mapping[str, History], drawn: _Drawn
) -> Iterator[Section]:
    yield sections.examined(history)
    yield weaknesses.weak(history, controls, drawn.points)
    yield spending.spending(history)
    yield sections.learning(history, controls)
    yield sections.errors(history)
    yield sections.agreement(history)
    yield sections.surprise(drawn.points)
    yield walkers.descriptors(drawn.map)
    yield walkers.walkers(history, drawn.brought)
    yield sections.bias(history, drawn.brought)
    yield labelling.labels(history)
    yield labelling.noise(history)
    yield sections.timeline(history)
    yield methods.methods(history)
    yield methods.reading(history)


def _wanted(
    history: History, brought: Explorations, known: Sequence[Point]
) -> Iterator[FrameId]:
    """Frames that the page leads to, the most telling first."""
    groups = error_groups(history)
    if groups is not None:
        yield from (x.worst for x in (*groups.molecules, *groups.elements))
    yield from (frames[0] for x in qualities(history) for frames in x.doubts.values())
    yield from list(brought.stopping)[:_MOST_LISTED]
    yield from (label.frame.id for label, _ in quarantined(history)[:_MOST_LISTED])
    drawn = some_points([x for x in known if isfinite(x.error)], figures.MOST)
    yield from (x.frame for x in sorted(drawn, key=lambda point: -point.error))


def _how_to_click(frames: Collection[FrameId], wanted: Iterable[FrameId]) -> Markup:
    if not frames:
        return Markup("")
    text = (
        "A click on a point, or on the underlined id of a frame, shows the structure "
        "in 3D and its story; ‹ and › go on to the next one."
    )
    count = len(set(wanted))
    if len(frames) < count:
        text += (
            f" This page carries {len(frames)} of the {count} frames that are drawn; "
            "`alloop why STORE FRAME` tells of the others."
        )
    return paragraph(text, "where")


def _key_figures(history: History) -> Iterator[tuple[str, str]]:
    yield from _examined_figures(history)
    chosen = best(history)
    if chosen is not None:
        what = set_name(history)
        yield milli(chosen.force_mae), f"meV/Å, {what} force MAE"
        yield milli(chosen.energy_mae), f"meV, {what} energy MAE, offset removed"
        yield str(len(generations(history))), "generations"
    for each in made(history):
        yield str(each.good), f"{each.kind} labels"
    yield duration(sum(by_part(history).values())), "CPU time in all"


def _examined_figures(history: History) -> Iterator[tuple[str, str]]:
    found = examination(history)
    if found is not None and found.errors is not None:
        yield milli(found.errors.force_mae), "meV/Å, forces in the final examination"
        yield f"{found.alarms} of {found.scored}", "alarms in the final examination"


def _last(history: History) -> str:
    if not history.entries:
        return "nothing committed yet"
    count = len(history.entries)
    return f"journal record {count - 1} of {local_time(history.entries[-1].time)}"
