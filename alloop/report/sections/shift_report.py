"""Shifts of frames from what a model was trained on: figures, section and page.

The section of a campaign's report compares the validation set, the examination and MD
with the training set of the last generation; the page of `alloop diagnose` compares
frames that the user brings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame, FrameId
from alloop.core.label_cost import molecule_key
from alloop.core.seeds import BEYOND, EXAMINATION, VALIDATION
from alloop.core.units import Booleans, Floats
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.jobs.diagnose_job import Diagnosis, deviation_texts, diagnose, shift_counts
from alloop.jobs.training_set import KnownFrames, store_training_set
from alloop.refine.shifts import SHIFTS, ElementShift, TrainingShifts
from alloop.report.analysis.explorations import newest_candidates
from alloop.report.sections.descriptor_map import (
    UNREADABLE,
    last_potential,
    thin_frames,
)
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    figure_block,
    frame_link,
    missing_note,
    page_resource,
    paragraph,
    render_page,
    table_html,
)
from alloop.report.sections.svg import (
    COLOURS,
    FAINT,
    INK,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    log_axis,
)
from alloop.report.text.formatting import number_text, plural
from alloop.report.text.frame_history import frame_card

_MOST_ATOMS = 4000  # of all groups, and of the training set
_LARGEST = 400  # atoms of a frame whose spectrum is worth the time of a report
_MOST_GROUPS = 7
_TESTS = {
    VALIDATION: "validation set",
    EXAMINATION: "examination",
    BEYOND: "beyond MD",
}


@dataclass(frozen=True, slots=True, eq=False)
class CampaignShifts:
    """The shifts of groups of frames from the training set of a generation.

    diagnosis: of all frames; groups: by name the indices of their frames.
    """

    diagnosis: Diagnosis
    groups: Mapping[str, tuple[int, ...]]
    generation: int

    def values(self) -> dict[str, dict[str, Floats]]:
        """Return the values of each shift by group."""
        shifts = self.diagnosis.shifts.values
        return {
            name: {shift: shifts.of(shift)[list(group)] for shift in SHIFTS}
            for name, group in self.groups.items()
        }

    def shares(self) -> dict[str, tuple[int, dict[str, float]]]:
        """Return the number of frames of each group, and the share out by shift."""
        shifts, out = self.diagnosis.shifts, {}
        for name, group in self.groups.items():
            rows = list(group)
            shares = {
                shift: float(shifts.out[shift][rows].mean())
                if np.isfinite(shifts.values.of(shift)[rows]).any()
                else np.nan
                for shift in SHIFTS
            }
            out[name] = (len(rows), shares)
        return out


def campaign_shifts(history: History) -> CampaignShifts | None:
    """Return the shifts from the last generation's training set.

    Groups are the validation set, the examination, and the frames that MD
    proposed, molecule by molecule; forces are the model's. None where the model cannot
    be opened here, with too few frames, and with frames of more than 400 atoms.
    """
    if not history.generations or not history.path.is_dir():
        return None
    last = history.generations[-1].event
    groups = _frame_groups(history)
    sizes = [len(frame) for group in groups.values() for frame in group]
    if not sizes or max(sizes) > _LARGEST:
        return None
    try:
        potential = last_potential(history)
        learned = store_training_set(history, last.generation).batch.frames()
        training = _thinned(dict.fromkeys(learned))
        frames = [frame for group in groups.values() for frame in group]
        diagnosis = diagnose(
            potential, _without_labels(training), _without_labels(frames)
        )
    except UNREADABLE:
        return None  # of a kind that cannot be opened here, damaged, or too few
    ends = np.cumsum([0, *(len(group) for group in groups.values())]).tolist()
    spans = zip(groups, ends[:-1], ends[1:], strict=True)
    indices = {name: tuple(range(a, b)) for name, a, b in spans}
    return CampaignShifts(diagnosis, indices, last.generation)


def _without_labels(frames: list[Frame]) -> KnownFrames:
    return KnownFrames(pack_frames(frames), None)


def _frame_groups(history: History) -> dict[str, list[Frame]]:
    """Return the frames of each group, evenly thinned."""
    members: dict[str, dict[Frame, None]] = {}
    for label in label_entries(history):
        if label.purpose in _TESTS:
            members.setdefault(_TESTS[label.purpose], {})[label.frame] = None
    for candidate in newest_candidates(history):
        name = f"MD of {molecule_key(candidate.frame)}"
        members.setdefault(name, {})[candidate.frame] = None
    shown = list(members.items())[:_MOST_GROUPS]
    return {name: _thinned(group, len(shown)) for name, group in shown}


def _thinned(frames: dict[Frame, None], parts: int = 1) -> list[Frame]:
    sizes = [len(frame) for frame in frames]
    limit = max(10, int(_MOST_ATOMS / parts / max(1.0, float(np.mean(sizes or [1])))))
    by_id = {frame.id: frame for frame in frames}
    return [by_id[key] for key in thin_frames(list(by_id), limit)]


LABELS = {
    "features": "features: leverage over its mean",
    "forces": "mean force on an atom, eV/Å",
    "connectivity": "connectivity: distance of spectra",
}
_BINS = 40
_FAR = 20.0  # σ, from which an axis of deviations is logarithmic
_LEAST = 1e-3  # the smallest value drawn on a logarithmic axis
_PARTS = ("training", "expensive", "cheap", "MD", "test", "noise", "preparation")
_COLOURS = tuple(COLOURS[part] for part in _PARTS)


def shift_histograms(
    training: TrainingShifts, groups: Mapping[str, Mapping[str, Floats]]
) -> list[Markup]:
    """Draw the distribution of each shift in training and in groups of frames.

    groups: by name the values (frames,) of each shift. A shift without values is left
    out.
    """
    return [
        _draw_histogram(training, groups, shift)
        for shift in SHIFTS
        if np.isfinite(training.usual[shift].limit)
    ]


def _draw_histogram(
    training: TrainingShifts, groups: Mapping[str, Mapping[str, Floats]], shift: str
) -> Markup:
    trained = _finite(training.values.of(shift))
    shifts = {name: _finite(values[shift]) for name, values in groups.items()}
    floor = _LEAST if shift != "forces" else 1e-2
    every = np.maximum(np.concatenate([trained, *shifts.values()]), floor)
    wide = every.max() > 3.0 * every.min()
    pad = 1.1 if wide else 3.0  # room for ticks where all values are alike
    edges = np.geomspace(every.min() / pad, every.max() * pad, _BINS)

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        log_axis(ax, "x", edges.tolist())
        _draw_share(
            axes=ax,
            values=np.maximum(trained, floor),
            edges=edges,
            colour=FAINT,
            label="training",
            fill=True,
        )
        for (name, values), colour in zip(shifts.items(), _COLOURS, strict=False):
            _draw_share(
                axes=ax,
                values=np.maximum(values, floor),
                edges=edges,
                colour=colour,
                label=name,
                fill=False,
            )
        limit = max(training.usual[shift].limit, floor)
        ax.axvline(limit, color=INK, linewidth=1.0, dashes=(3, 2))
        ax.set_xlabel(LABELS[shift])
        ax.set_ylabel("share of frames")
        draw_legend(ax)

    about = f"Distribution of the shift by {shift} in training and in the frames"
    return draw_svg(f"shift-{shift}", about, 2.7, paint)


def _draw_share(
    axes: Axes, values: Floats, edges: Floats, colour: str, label: str, fill: bool
) -> None:
    counts, _ = np.histogram(values, edges)
    share = counts / max(1, len(values))
    axes.stairs(share, edges, fill=fill, color=colour, label=label, linewidth=1.6)


def deviation_figure(
    deviations: Mapping[str, Floats],
    out: Mapping[str, Booleans],
    frames: Sequence[FrameId],
) -> Markup:
    """Draw the deviation of each frame, in their order, a part for each shift.

    deviations and out: (frames,) by shift; frames that are out are triangles.
    """
    shown = [shift for shift in SHIFTS if np.isfinite(deviations[shift]).any()]

    def paint(axes: list[Axes]) -> list[Marks]:
        marks = []
        for ax, shift in zip(axes, shown, strict=True):
            y, beyond = deviations[shift], out[shift]
            if np.abs(_finite(y)).max() > _FAR:
                ax.set_yscale("symlog", linthresh=_FAR)
            ax.set_ylabel(f"{shift}, σ")
            ax.set_xlim(-0.5, len(y) - 0.5)
            marks.append(_deviation_marks(ax, y, ~beyond, frames, "preparation"))
            marks.append(_deviation_marks(ax, y, beyond, frames, "warn"))
        axes[-1].set_xlabel("frame")
        return marks

    about = "Deviation of each frame from the training frames, by shift"
    rows = len(shown)
    return draw_svg("deviations", about, 0.5 + 1.4 * rows, paint, rows=rows)


def _deviation_marks(
    axes: Axes, y: Floats, chosen: Booleans, frames: Sequence[FrameId], colour: str
) -> Marks:
    at = np.flatnonzero(chosen & np.isfinite(y))
    return add_points(
        Marks(
            axes=axes,
            x=at.astype(np.float64),
            y=y[at],
            colour=COLOURS[colour],
            shape="triangle" if colour == "warn" else "small",
            frames=[frames[i] for i in at.tolist()],
        )
    )


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


WORDS = (
    "Features: the largest leverage of an atom's descriptors, in multiples of its "
    "element's mean in training, so that new elements and new surroundings stand out. "
    "Forces: the mean length of the force on an atom. Connectivity: the distance of "
    "the spectrum of the neighbour graph from the nearest one in training. σ counts "
    "standard deviations of training frames from their mean; a frame is out where it "
    "exceeds the quantile of the training frames, the dashed line."
)


def shift_section(shifts: CampaignShifts | None) -> Section:
    """Return the section on the shifts of a campaign's frames."""
    name = "Shifts from the training set"
    if shifts is None:
        why = (
            "Nothing to compare: that takes a generation whose model can be opened "
            "here, ten frames that it was trained on, and validation frames or MD of "
            "no more than 400 atoms; `alloop diagnose` takes larger ones."
        )
        return Section("shifts", name, missing_note(why))
    intro = paragraph(
        "Validation set, examination and frames that MD proposed, against the frames "
        f"that generation {shifts.generation} was trained on: the shares that are "
        "out, by shift."
    )
    caption = (
        f"{WORDS} Forces are the model's; neighbours are closer than "
        f"{shifts.diagnosis.radius:g} Å."
    )
    figures = figure_block(
        shift_histograms(shifts.diagnosis.training, shifts.values()), caption
    )
    notes = bullet_list(shifts.diagnosis.notes())
    return Section(
        "shifts", name, intro + group_table(shifts.shares()) + notes + figures
    )


def shift_sentence(diagnosis: Diagnosis) -> str:
    """Return the number of frames that are out, by shift, as a sentence."""
    shifts = diagnosis.shifts
    count = plural(len(diagnosis.formulas), "frame")
    by = ", ".join(f"{n} by {shift}" for shift, n in shift_counts(shifts).items())
    return f"{int(shifts.outside.sum())} of {count} out: {by}."


def element_table(elements: tuple[ElementShift, ...]) -> Markup:
    """Return the table of the elements' shifts."""
    rows = [
        (
            chemical_symbol(x.number),
            str(x.atoms),
            str(x.trained) if x.trained else "none",
            number_text(x.leverage) if x.trained else "–",
            f"{x.out:.0%}" if np.isfinite(x.out) else "–",
        )
        for x in elements
    ]
    head = ("element", "atoms", "in training", "median leverage", "out")
    return table_html(head, rows)


def group_table(rows: Mapping[str, tuple[int, Mapping[str, float]]]) -> Markup:
    """Return the table of groups of frames: their number, and the shares out."""
    head = ("frames", "n", *SHIFTS)
    cells: list[list[Text]] = [
        [name, str(n), *(_share_text(shares[shift]) for shift in SHIFTS)]
        for name, (n, shares) in rows.items()
    ]
    return table_html(head, cells)


def _share_text(share: float) -> str:
    return f"{share:.0%}" if np.isfinite(share) else "–"


_MOST_ROWS = 200
_MOST_CARDS = 400  # frames that can be shown in 3D


def shift_page(diagnosis: Diagnosis, frames: tuple[Frame, ...], title: str) -> str:
    """Return the page of a diagnosis as text."""
    shifts = diagnosis.shifts
    ids = [frame.id for frame in frames]
    shown = list(dict.fromkeys([*diagnosis.by_distance(), *range(len(frames))]))
    cards = {
        ids[i][:12]: frame_card(frames[i], [_frame_sentence(diagnosis, i)])
        for i in shown[:_MOST_CARDS]
    }
    groups = {"frames": {shift: shifts.values.of(shift) for shift in SHIFTS}}
    figures = figure_block(shift_histograms(diagnosis.training, groups), WORDS)
    points = figure_block(
        deviation_figure(shifts.deviations, shifts.out, ids),
        "Each point is a frame, in the order of the file; red triangles are out. A "
        "click shows the structure in 3D.",
    )
    return render_page(
        scripts=[page_resource("3Dmol/3Dmol-min.js"), page_resource("page.js")],
        data=cards,
        title=title,
        kind="shifts from the training set",
        where=_comparison_text(diagnosis),
        lead=paragraph(shift_sentence(diagnosis), "lead")
        + bullet_list(diagnosis.notes()),
        sections=(
            Section("shifts", "Frames and training set", figures),
            Section("frames", "Frame by frame", points + _out_table(diagnosis, ids)),
            Section("elements", "Elements", element_table(shifts.elements)),
        ),
        foot="Written by `alloop diagnose`.",
    )


def _comparison_text(diagnosis: Diagnosis) -> str:
    training = diagnosis.training
    return (
        f"compared with {plural(training.trained, 'training frame')} · forces of the "
        f"{diagnosis.source} · graphs within {diagnosis.radius:g} Å"
    )


def _frame_sentence(diagnosis: Diagnosis, frame: int) -> str:
    texts = deviation_texts(diagnosis.shifts, frame)
    parts = (f"{shift} {text} σ" for shift, text in zip(SHIFTS, texts, strict=True))
    out = ", ".join(diagnosis.shifts.out_by(frame)) or "nothing"
    return f"frame {frame}: {', '.join(parts)}; out by {out}"


def _out_table(diagnosis: Diagnosis, ids: list[str]) -> Markup:
    order = diagnosis.by_distance()
    if not order:
        return missing_note("No frame is out by any shift.")
    rows: list[list[Any]] = [
        [
            str(i),
            frame_link(ids[i]),
            diagnosis.formulas[i],
            ", ".join(diagnosis.shifts.out_by(i)),
            *deviation_texts(diagnosis.shifts, i),
        ]
        for i in order[:_MOST_ROWS]
    ]
    head = ("frame", "id", "formula", "out by", *(f"{shift}, σ" for shift in SHIFTS))
    table = table_html(head, rows, words=4)
    if len(order) > _MOST_ROWS:
        table += paragraph(f"The {_MOST_ROWS} farthest of {len(order)} frames.")
    return table
