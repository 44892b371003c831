"""The campaign report: one self-contained HTML file, made from the store alone."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.text import local_time
from alloop.files.targets import replace_atomically
from alloop.history.reader import History
from alloop.report.analysis.explorations import Explorations, read_explorations
from alloop.report.analysis.label_facts import label_qualities, quarantined_labels
from alloop.report.sections.descriptor_map import (
    DescriptorMap,
    descriptor_map,
    descriptor_section,
)
from alloop.report.sections.error_sections import (
    error_groups,
    error_section,
    examination_section,
    learning_section,
    parity_section,
)
from alloop.report.sections.generation_sections import (
    acceptance_section,
    bias_section,
    residual_section,
    tuning_section,
)
from alloop.report.sections.label_sections import label_section, noise_section
from alloop.report.sections.markup import (
    Section,
    page_resource,
    paragraph,
    render_page,
)
from alloop.report.sections.methods_sections import methods_section, reading_section
from alloop.report.sections.run_sections import (
    cost_section,
    timeline_section,
    walker_section,
)
from alloop.report.sections.shift_report import campaign_shifts, shift_section
from alloop.report.sections.summary_sections import first_screen
from alloop.report.sections.surprise_sections import (
    ErrorPoint,
    error_points,
    limits_section,
    some_points,
    surprise_section,
)
from alloop.report.sections.svg import MOST_POINTS
from alloop.report.status import NO_CONTROLS
from alloop.report.text.frame_history import describe_frames, frame_card

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
    explored, frame_map = read_explorations(history), descriptor_map(history)
    points = error_points(history, explored)
    sections = tuple(
        _page_sections(history, controls, _SharedFacts(explored, frame_map, points))
    )
    links = [
        *_linked_frames(history, explored, points),
        *(frame_map.frames if frame_map else ()),
    ]
    frames = embedded_frames(history, explored, links)
    lead = first_screen(history, controls)
    return render_page(
        scripts=[page_resource("3Dmol/3Dmol-min.js"), page_resource("page.js")]
        if frames
        else [],
        data=frame_cards(history, explored, frames),
        title=str(history.attrs["name"]),
        kind="campaign report",
        where=f"{history.place} · {_last_record(history)}",
        lead=lead,
        note=_click_note(frames, links),
        sections=sections,
        foot=f"Written from the store {history.place} alone; `alloop report` writes it "
        "anew.",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _SharedFacts:
    """Facts that are slow to compute, shared by all sections."""

    explored: Explorations
    map: DescriptorMap | None
    points: tuple[ErrorPoint, ...]


def _page_sections(
    history: History, controls: Mapping[str, History], drawn: _SharedFacts
) -> Iterator[Section]:
    yield examination_section(history)
    yield learning_section(history, controls)
    yield cost_section(history)
    yield acceptance_section(history)
    if (tuning := tuning_section(history)) is not None:
        yield tuning
    yield error_section(history)
    yield residual_section(history, drawn.explored)
    yield parity_section(history)
    yield surprise_section(drawn.points)
    yield limits_section(history)
    yield descriptor_section(drawn.map)
    yield shift_section(campaign_shifts(history))
    yield walker_section(history, drawn.explored)
    yield bias_section(history, drawn.explored)
    yield label_section(history)
    yield noise_section(history)
    yield timeline_section(history)
    yield methods_section(history)
    yield reading_section(history)


def _linked_frames(
    history: History, explored: Explorations, points: Sequence[ErrorPoint]
) -> Iterator[FrameId]:
    """Yield the frames that the page links to, the most important first."""
    groups = error_groups(history)
    if groups is not None:
        yield from (x.worst for x in (*groups.molecules, *groups.elements))
    yield from (
        frames[0] for x in label_qualities(history) for frames in x.doubts.values()
    )
    yield from list(explored.stopping)[:_MOST_LISTED]
    yield from (
        label.frame.id for label, _ in quarantined_labels(history)[:_MOST_LISTED]
    )
    drawn = some_points([x for x in points if isfinite(x.error)], MOST_POINTS)
    yield from (x.frame for x in sorted(drawn, key=lambda point: -point.error))


def _click_note(frames: Collection[FrameId], links: Iterable[FrameId]) -> Markup:
    if not frames:
        return Markup("")
    text = (
        "A click on a point, or on the underlined id of a frame, shows the structure "
        "in 3D and its history; ‹ and › step through the points. Without a mouse: Tab "
        "goes to a figure, the arrow keys to its points, Enter shows one."
    )
    count = len(set(links))
    if len(frames) < count:
        text += (
            f" This page carries {len(frames)} of the {count} frames that are drawn; "
            "`alloop why STORE FRAME` shows the others."
        )
    return paragraph(text, "where")


def _last_record(history: History) -> str:
    if not history.entries:
        return "nothing committed yet"
    count = len(history.entries)
    return f"journal record {count - 1} of {local_time(history.entries[-1].time)}"


MOST_FRAMES, MOST_ATOMS, MOST_GENERATIONS = 1000, 30_000, 50


def embedded_frames(
    history: History, explored: Explorations, links: Iterable[FrameId]
) -> dict[FrameId, Frame]:
    """Return the structures of the linked frames, in order, up to the page's limits."""
    out: dict[FrameId, Frame] = {}
    atoms = 0
    for key in dict.fromkeys(links):
        frame = history.label_index.frames.get(key) or explored.stopping.get(key)
        if frame is None:
            continue
        atoms += len(frame)
        if len(out) == MOST_FRAMES or atoms > MOST_ATOMS:
            break
        out[key] = frame
    return out


def frame_cards(
    history: History, explored: Explorations, frames: Mapping[FrameId, Frame]
) -> dict[str, Any]:
    """Return JSON values of frames by the first 12 digits of their ids.

    Each has a title, elements, positions in mÅ, the cell in Å if periodic, and the
    history.
    """
    described = describe_frames(
        history, frames.values(), explored.origins, MOST_GENERATIONS
    )
    return {
        key[:12]: frame_card(frame, described[key]) for key, frame in frames.items()
    }
