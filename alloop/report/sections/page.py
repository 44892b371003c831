"""The campaign report: one self-contained HTML file, made from the store alone."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.text import local_time
from alloop.files.atomic_write import replace_atomically
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import best, generation_facts, set_name
from alloop.report.analysis.descriptor_map import DescriptorMap, descriptor_map
from alloop.report.analysis.examination import examination
from alloop.report.analysis.explorations import Explorations, explorations
from alloop.report.analysis.label_facts import label_tallies
from alloop.report.analysis.label_quality import label_qualities, quarantined_labels
from alloop.report.analysis.model_errors import error_groups
from alloop.report.analysis.uncertainty import ErrorPoint, error_points, some_points
from alloop.report.sections.error_sections import (
    error_section,
    examination_section,
    learning_section,
    parity_section,
)
from alloop.report.sections.label_sections import label_section, noise_section
from alloop.report.sections.markup import (
    Section,
    key_figures,
    page,
    paragraph,
    resource,
    verdict,
)
from alloop.report.sections.methods_sections import methods_section, reading_section
from alloop.report.sections.run_sections import (
    cost_section,
    timeline_section,
    walker_section,
)
from alloop.report.sections.summary_sections import short_verdict, weakness_section
from alloop.report.sections.surprise_sections import (
    bias_section,
    descriptor_section,
    surprise_section,
)
from alloop.report.sections.svg import MOST_POINTS
from alloop.report.text.formatting import duration_text, milli_text
from alloop.report.text.frame_history import stories
from alloop.report.text.summary import NO_CONTROLS, how_it_stands

_MOST_LISTED = 200  # frames of stopped walkers, and of failed labels, at most


def write_report(
    history: History, out: Path, controls: Mapping[str, History] = NO_CONTROLS
) -> Path:
    """Write the report to `out` and return `out`; an older file is replaced as a whole.

    controls: histories of control campaigns by name. Raises InputError where there is
    nothing to report, or where the file cannot be written.
    """
    return write_page(render_report(history, controls), out)


def write_page(page: str, out: Path) -> Path:
    """Write a page to `out` and return `out`; an older file is replaced as a whole.

    Raises InputError where the file cannot be written.
    """
    try:
        with replace_atomically(out) as partial:
            partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"expected a file that can be written at {out} ({error}); choose another "
            "place"
        ) from error
    return out


def render_report(
    history: History, controls: Mapping[str, History] = NO_CONTROLS
) -> str:
    """Return the page as text; the same history gives the same text."""
    brought, found = explorations(history), descriptor_map(history)
    known = error_points(history, brought)
    sections = tuple(_page_sections(history, controls, _Drawn(brought, found, known)))
    wanted = [*_wanted(history, brought, known), *(found.frames if found else ())]
    frames = carried_frames(history, brought, wanted)
    lead = paragraph(how_it_stands(history), "lead")
    lead += key_figures(_key_figures(history)) + verdict(
        short_verdict(history, controls)
    )
    return page(
        scripts=[resource("3Dmol/3Dmol-min.js"), resource("page.js")] if frames else [],
        data=frame_cards(history, brought, frames),
        title=str(history.attrs["name"]),
        kind="campaign report",
        where=f"{history.path} · {_last_record(history)}",
        lead=lead + _how_to_click(frames, wanted),
        sections=sections,
        foot=f"Written from the store {history.path} alone; `alloop report` writes it "
        "anew.",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Facts that are slow to compute, shared by all sections."""

    brought: Explorations
    map: DescriptorMap | None
    points: tuple[ErrorPoint, ...]


def _page_sections(
    history: History, controls: Mapping[str, History], drawn: _Drawn
) -> Iterator[Section]:
    yield examination_section(history)
    yield weakness_section(history, controls, drawn.points)
    yield cost_section(history)
    yield learning_section(history, controls)
    yield error_section(history)
    yield parity_section(history)
    yield surprise_section(drawn.points)
    yield descriptor_section(drawn.map)
    yield walker_section(history, drawn.brought)
    yield bias_section(history, drawn.brought)
    yield label_section(history)
    yield noise_section(history)
    yield timeline_section(history)
    yield methods_section(history)
    yield reading_section(history)


def _wanted(
    history: History, brought: Explorations, known: Sequence[ErrorPoint]
) -> Iterator[FrameId]:
    """Yield the frames that the page links to, the most important first."""
    groups = error_groups(history)
    if groups is not None:
        yield from (x.worst for x in (*groups.molecules, *groups.elements))
    yield from (
        frames[0] for x in label_qualities(history) for frames in x.doubts.values()
    )
    yield from list(brought.stopping)[:_MOST_LISTED]
    yield from (
        label.frame.id for label, _ in quarantined_labels(history)[:_MOST_LISTED]
    )
    drawn = some_points([x for x in known if isfinite(x.error)], MOST_POINTS)
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
        yield milli_text(chosen.force_mae), f"meV/Å, {what} force MAE"
        yield milli_text(chosen.energy_mae), f"meV, {what} energy MAE, offset removed"
        yield str(len(generation_facts(history))), "generations"
    for each in label_tallies(history):
        yield str(each.good), f"{each.kind} labels"
    yield duration_text(sum(cpu_seconds_by_part(history).values())), "CPU time in all"


def _examined_figures(history: History) -> Iterator[tuple[str, str]]:
    found = examination(history)
    if found is not None and found.errors is not None:
        yield (
            milli_text(found.errors.force_mae),
            "meV/Å, forces in the final examination",
        )
        yield f"{found.alarms} of {found.scored}", "alarms in the final examination"


def _last_record(history: History) -> str:
    if not history.entries:
        return "nothing committed yet"
    count = len(history.entries)
    return f"journal record {count - 1} of {local_time(history.entries[-1].time)}"


MOST_FRAMES, MOST_ATOMS, MOST_GENERATIONS = 1000, 30_000, 50


def carried_frames(
    history: History, brought: Explorations, wanted: Iterable[FrameId]
) -> dict[FrameId, Frame]:
    """Return the structures of the wanted frames, in order, up to the page's limits."""
    out: dict[FrameId, Frame] = {}
    atoms = 0
    for key in dict.fromkeys(wanted):
        frame = history.ledger.frames.get(key) or brought.stopping.get(key)
        if frame is None:
            continue
        atoms += len(frame)
        if len(out) == MOST_FRAMES or atoms > MOST_ATOMS:
            break
        out[key] = frame
    return out


def frame_cards(
    history: History, brought: Explorations, frames: Mapping[FrameId, Frame]
) -> dict[str, Any]:
    """Return JSON values of frames by the first 12 digits of their ids.

    Each has a title, elements, positions in mÅ, the cell in Å if periodic, and the
    story.
    """
    told = stories(history, frames.values(), brought.origins, MOST_GENERATIONS)
    return {key[:12]: _card(frame, told[key]) for key, frame in frames.items()}


def _card(frame: Frame, story: Sequence[str]) -> dict[str, Any]:
    card = {
        "t": f"{frame.id[:8]} · {hill_formula(frame)}",
        "s": [chemical_symbol(int(number)) for number in frame.numbers],
        "x": (1000.0 * frame.positions).round().astype(int).ravel().tolist(),
        "w": list(story),
    }
    return {**card, "c": frame.cell.round(4).tolist()} if any(frame.pbc) else card
