"""Map of frames in the report: the principal components of their mean descriptors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.batch import frame_means, pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame, FrameId
from alloop.core.roles import Potential
from alloop.core.seeds import BEYOND, EXAMINATION, VALIDATION
from alloop.core.units import Floats
from alloop.generation import potential_from_bytes
from alloop.history.journal_codec import CODEC
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.report.analysis.explorations import (
    control_frames,
    newest_candidates,
)
from alloop.report.sections.markup import (
    Section,
    figure_block,
    missing_note,
)
from alloop.report.sections.svg import (
    COLOURS,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
)
from alloop.store.archive import Archive

_MOST_FRAMES, _MOST_ATOMS = 600, 20_000
# Raised for a model of a kind that cannot be opened here, and for a damaged one.
UNREADABLE = (AlloopError, ImportError, KeyError, TypeError, ValueError)

_CHUNK = 2000  # atoms in one batch of descriptors


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorMap:
    """Frames in the plane of largest variance of their mean descriptors.

    groups: for each frame "labelled", "flagged", "control", "test" (the validation
    set), "examination" or "proposed" (no label). xy (frames, 2) in units of the
    descriptors. explained: the share of the variance along x and y. generation: the one
    that computed the descriptors. complete: True if frames of all kinds are included,
    False if only those whose descriptors the journal holds. total: number of frames
    before thinning.
    """

    frames: tuple[FrameId, ...]
    groups: tuple[str, ...]
    xy: Floats
    explained: tuple[float, float]
    generation: int
    complete: bool
    total: int


def descriptor_map(history: History) -> DescriptorMap | None:
    """Return the map by the last generation, None where there are no descriptors.

    The generation computes the descriptors of labelled and validation frames anew.
    Where it cannot be opened here (a potential of the user's own), the descriptors that
    the journal holds are used.
    """
    if not history.generations:
        return None
    return _map_by_model(history) or _map_by_journal(history)


def frame_groups(history: History) -> dict[FrameId, str]:
    """Return the group of each frame for which a label was requested."""
    controls = control_frames(history)
    out: dict[FrameId, str] = {}
    for label in label_entries(history):
        frame = label.frame.id
        if label.purpose in (VALIDATION, EXAMINATION):
            out[frame] = label.purpose
        elif label.purpose == BEYOND:
            out[frame] = EXAMINATION
        elif frame in controls:
            out[frame] = "control"
        elif label.purpose in ("flagged", "bias"):
            out[frame] = "flagged"
        else:
            out.setdefault(frame, "labelled")
    return out


def _map_by_model(history: History) -> DescriptorMap | None:
    """Return the map by the model in the store, None if it cannot be opened."""
    groups = frame_groups(history)
    chosen = thin_frames(list(groups), _frame_limit(history, groups))
    last = history.generations[-1].event
    if len(chosen) < 3 or not history.path.is_dir():
        return None
    try:
        potential = last_potential(history)
        frames = [history.label_index.frames[key] for key in chosen]
        means = np.concatenate(list(_mean_descriptors(potential, frames)))
    except UNREADABLE:
        return None  # of a kind that cannot be opened here, or damaged
    xy, explained = principal_plane(means)
    kinds = tuple(groups[key] for key in chosen)
    number = last.generation
    return DescriptorMap(
        frames=tuple(chosen),
        groups=kinds,
        xy=xy,
        explained=explained,
        generation=number,
        complete=True,
        total=len(groups),
    )


def last_potential(history: History) -> Potential:
    """Return the model of the last generation; raises one of `UNREADABLE`."""
    with Archive.open(history.path, CODEC) as archive:
        return potential_from_bytes(archive.model(history.generations[-1].event.model))


def _frame_limit(history: History, frames: dict[FrameId, str]) -> int:
    sizes = [len(history.label_index.frames[key]) for key in frames]
    return min(_MOST_FRAMES, int(_MOST_ATOMS / max(1.0, float(np.mean(sizes or [1])))))


def _mean_descriptors(
    potential: Potential, frames: Sequence[Frame]
) -> Iterator[Floats]:
    """Yield mean descriptors (frames, features), a batch of frames at a time."""
    size = max(1, _CHUNK // max(len(frame) for frame in frames))
    for begin in range(0, len(frames), size):
        batch = pack_frames(frames[begin : begin + size])
        predictions = potential.predict(batch, descriptors=True)
        if predictions.descriptors is None:
            raise TypeError("the potential gave no descriptors")
        means = frame_means(batch, predictions.descriptors)
        yield np.asarray(means, dtype=np.float64)


def _map_by_journal(history: History) -> DescriptorMap | None:
    """Return the map of the frames proposed by the last generation that explored.

    The descriptors are those that it wrote to the journal.
    """
    newest = history.record_index.newest_explorer
    groups = frame_groups(history)
    descriptors: dict[FrameId, Floats] = {}
    for candidate in newest_candidates(history):
        descriptors.setdefault(candidate.frame.id, candidate.descriptor)
    sizes = {len(row) for row in descriptors.values()}
    if len(descriptors) < 3 or len(sizes) != 1 or 0 in sizes:
        return None
    chosen = thin_frames(list(descriptors), _MOST_FRAMES)
    xy, explained = principal_plane(np.array([descriptors[key] for key in chosen]))
    kinds = tuple(groups.get(key, "proposed") for key in chosen)
    return DescriptorMap(
        frames=tuple(chosen),
        groups=kinds,
        xy=xy,
        explained=explained,
        generation=newest,
        complete=False,
        total=len(descriptors),
    )


def thin_frames(keys: Sequence[FrameId], limit: int) -> list[FrameId]:
    """Return at most `limit` of the frames, evenly spaced."""
    if len(keys) <= limit:
        return list(keys)
    picks = np.unique(np.linspace(0, len(keys) - 1, max(1, limit)).round().astype(int))
    return [keys[pick] for pick in picks]


def principal_plane(rows: Floats) -> tuple[Floats, tuple[float, float]]:
    """Return the first two principal components (rows, 2) and their shares of variance.

    The sign of each component is such that its entry of largest magnitude is positive.
    """
    centred = rows - rows.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    count = min(2, len(sizes))
    plane[:, :count] = left[:, :count] * sizes[:count]
    peaks = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    total = float((sizes**2).sum()) or 1.0
    shares = [float(x) ** 2 / total for x in (*sizes[:2], 0.0, 0.0)[:2]]
    return plane * np.where(peaks < 0, -1.0, 1.0), (shares[0], shares[1])


MAP_GROUPS = {
    "proposed": ("proposed, no label", "small", "#8a8f98"),
    "labelled": ("first labels", "small", COLOURS["expensive"]),
    "flagged": ("flagged", "triangle", COLOURS["training"]),
    "control": ("random control", "diamond", COLOURS["cheap"]),
    "test": ("validation set", "dot", COLOURS["test"]),
    "examination": ("examination", "square", COLOURS["examination"]),
}


def map_figure(points: DescriptorMap) -> Markup:
    """Draw frames in the plane of the first two principal components."""
    names = np.array(points.groups)

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        ax.set_xlabel(f"first component, {points.explained[0]:.0%} of the variance")
        ax.set_ylabel(f"second component, {points.explained[1]:.0%}")
        ax.set_xticklabels([])
        ax.set_yticklabels([])
        marks = []
        for group, (label, shape, colour) in MAP_GROUPS.items():
            rows = np.flatnonzero(names == group)
            if len(rows):
                leads = group != "proposed"  # of those only the descriptors are known
                frames = [points.frames[row] for row in rows] if leads else ()
                x, y = points.xy[rows].T
                text = f"{label} ({len(rows)})"
                marks.append(
                    add_points(
                        Marks(
                            axes=ax,
                            x=x,
                            y=y,
                            colour=colour,
                            shape=shape,
                            frames=frames,
                            label=text,
                        ),
                    )
                )
        draw_legend(ax)
        return marks

    return draw_svg("map", "Map of descriptors", 4.0, paint)


def descriptor_section(points: DescriptorMap | None) -> Section:
    """Return the section with the map of descriptors."""
    name = "Map of descriptors"
    if points is None:
        why = (
            "Nothing to draw: there is no generation yet, or neither the store nor "
            "its models hold descriptors."
        )
        return Section("map", name, missing_note(why))
    caption = (
        f"Each point is a frame: its descriptors by generation {points.generation}, "
        "averaged over its atoms, in the plane in which they differ most (principal "
        "components). Neighbours look alike to the model. Flagged frames should lie "
        "at the rim of the first labels, the validation set should cover all "
        "regions: its frames far from all others, or regions without any, are where "
        "the error is not known."
    )
    if not points.complete:
        caption += (
            " The model could not be opened here: drawn are the frames that it "
            "proposed, as the journal describes them; it holds no others."
        )
    if len(points.frames) < points.total:
        caption += f" {len(points.frames)} of {points.total} frames are drawn, evenly."
    return Section("map", name, figure_block(map_figure(points), caption))
