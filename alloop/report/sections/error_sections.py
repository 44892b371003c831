"""Errors of the best generation in the report, with their figures.

Sections are the examination, the learning curve, parity with the labels, and errors by
molecule and element.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import FrameId
from alloop.core.label_cost import molecule_key
from alloop.core.records import LabelSet
from alloop.core.units import Booleans, Floats, Integers
from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    error_unit,
    generation_facts,
    has_forces,
    level_title,
    supplied_validation,
)
from alloop.report.analysis.examination import (
    counted_frames,
    examination_sentences,
    last_examination,
    threshold_sentences,
)
from alloop.report.analysis.outcome import TITLES, compare_controls
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    figure_block,
    frame_link,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.sections.svg import (
    COLOURS,
    FAINT,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    log_axis,
    thinning_step,
)
from alloop.report.status import error_sentence
from alloop.report.text.formatting import duration_text, milli_text, number_text, plural


@dataclass(frozen=True, slots=True)
class GroupError:
    """Force errors of a molecule or of an element, eV/Å.

    count: frames of the molecule, atoms of the element. mae, rmse: over components.
    largest: length of the largest error on an atom, which is in the frame `worst`.
    typical: RMS of the labels' components. energy_mae (eV): after removal of the mean
    difference over the whole validation set. offset (eV): the mean difference that
    remains for the molecule. Both are None for elements.
    """

    name: str
    count: int
    mae: float
    rmse: float
    largest: float
    worst: FrameId
    typical: float
    energy_mae: float | None = None
    offset: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ErrorGroups:
    """Errors of one generation by molecule and by element, the worst first.

    frames: their number; where: a description of them.
    """

    generation: int
    where: str
    frames: int
    molecules: tuple[GroupError, ...]
    elements: tuple[GroupError, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _TestErrors:
    """Labels, and errors: difference (atoms, 3), lengths (atoms,), energies."""

    labels: LabelSet
    frames: tuple[FrameId, ...]
    difference: Floats
    lengths: Floats
    energies: Floats


def error_groups(history: History) -> ErrorGroups | None:
    """Return the errors of the best generation, None where it was not tested.

    They are those on the examination; without one, or with a validation set that
    the user supplied, those on the validation set.
    """
    sources = (_examination_errors(history), _validation_errors(history))
    measured = [source for source in sources if source is not None]
    for generation, where, test in (
        reversed(measured) if supplied_validation(history) else measured
    ):
        return ErrorGroups(
            generation,
            where,
            len(test.frames),
            tuple(sorted(_molecule_errors(history, test), key=lambda x: -x.mae)),
            tuple(sorted(_element_errors(test), key=lambda x: -x.mae)),
        )
    return None


def _examination_errors(history: History) -> tuple[int, str, _TestErrors] | None:
    examination, predicted = last_examination(history), list(counted_frames(history))
    if examination is None or not predicted:
        return None
    level = history.state.levels["expensive"]
    frames = tuple(candidate.frame.id for candidate, _ in predicted)
    labels = history.label_index.label_set(level, frames)
    forces = np.concatenate([candidate.forces for candidate, _ in predicted])
    energies = np.array([candidate.energy for candidate, _ in predicted])
    test = _test_errors(labels, frames, energies, forces)
    return examination.generation, "the examination", test


def _validation_errors(history: History) -> tuple[int, str, _TestErrors] | None:
    for _, trained in history.best:
        labels, predicted = labels_of_test(history, trained), trained.evaluation
        if labels is not None and predicted is not None:
            test = _test_errors(
                labels, predicted.frames, predicted.energies, predicted.forces
            )
            return trained.generation, "the validation set", test
    return None


def _test_errors(
    labels: LabelSet, frames: tuple[FrameId, ...], energies: Floats, forces: Floats
) -> _TestErrors:
    difference, energy_difference = forces - labels.forces, energies - labels.energies
    lengths = np.linalg.norm(difference, axis=1)
    return _TestErrors(
        labels,
        frames,
        difference,
        lengths,
        energy_difference - energy_difference.mean(),
    )


def _molecule_errors(history: History, test: _TestErrors) -> Iterator[GroupError]:
    names = np.array(
        [molecule_key(history.label_index.frames[key]) for key in test.frames]
    )
    for name in dict.fromkeys(names.tolist()):
        frames = names == name
        atoms = frames[test.labels.batch.frame_index]
        energies = test.energies[frames]
        yield _group_error(
            test,
            str(name),
            atoms,
            int(frames.sum()),
            (float(np.abs(energies).mean()), float(energies.mean())),
        )


def _element_errors(test: _TestErrors) -> Iterator[GroupError]:
    numbers = test.labels.batch.numbers
    for number in np.unique(numbers).tolist():
        atoms = numbers == number
        yield _group_error(test, chemical_symbol(number), atoms, int(atoms.sum()))


def _group_error(
    test: _TestErrors,
    name: str,
    atoms: Booleans,
    count: int,
    energy: Sequence[float | None] = (None, None),
) -> GroupError:
    difference, lengths = test.difference[atoms], test.lengths[atoms]
    at = int(lengths.argmax())
    return GroupError(
        name=name,
        count=count,
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt((difference**2).mean())),
        largest=float(lengths[at]),
        worst=test.frames[int(test.labels.batch.frame_index[atoms][at])],
        typical=float(np.sqrt((test.labels.forces[atoms] ** 2).mean())),
        energy_mae=energy[0],
        offset=energy[1],
    )


@dataclass(frozen=True, slots=True, eq=False)
class ParityData:
    """Predictions of the best generation and labels on the validation set.

    energies (frames,) in eV relative to the mean label of the composition, forces (3
    atoms,) in eV/Å; frames (frames,) with atoms offsets[i] to offsets[i + 1].
    """

    generation: int
    energies: tuple[Floats, Floats]  # label, model
    forces: tuple[Floats, Floats]
    frames: tuple[FrameId, ...] = ()
    offsets: Integers = field(default_factory=lambda: np.zeros(1, dtype=np.int64))


def parity_data(history: History) -> ParityData | None:
    """Return the best generation and its validation labels, None without any."""
    for _, trained in history.best:
        labels, test = labels_of_test(history, trained), trained.evaluation
        if labels is not None and test is not None:
            zero = _composition_means(labels)
            model = test.energies - (test.energies - labels.energies).mean()
            return ParityData(
                generation=trained.generation,
                energies=(labels.energies - zero, model - zero),
                forces=(labels.forces.ravel(), test.forces.ravel()),
                frames=test.frames,
                offsets=labels.batch.offsets,
            )
    return None


def _composition_means(labels: LabelSet) -> Floats:
    """Return the mean label energy of each frame's composition (frames,), eV."""
    keys = np.array(
        [str(sorted(labels.batch.numbers[span])) for span in labels.batch.atom_slices()]
    )
    _, which = np.unique(keys, return_inverse=True)
    sums = np.bincount(which, weights=labels.energies)
    out: Floats = (sums / np.bincount(which))[which]
    return out


_LINES = (
    ("#2f6fd0", "dot", "-"),
    ("#e07b39", "square", "--"),
    ("#8a8f98", "triangle", ":"),
)


QUANTITIES = {
    "expensive": "expensive labels learned from",
    "label_cost": "CPU time of all labels, s",
    "all_cost": "CPU time of everything, s",
}

_PARITIES = {
    "energies": (" − mean", "dot", COLOURS["test"]),
    "forces": ("", "small", COLOURS["expensive"]),
}


def learning_curve(
    history: History,
    controls: Mapping[str, History],
    quantity: str,
    *,
    caption: str,
    without: str,
) -> Markup:
    """Return the error on the validation set against a quantity of `QUANTITIES`.

    It is that of forces, or of energies at an expensive level without them.

    caption: of the figure; without: the note in its place where no generation of the
    campaign was tested.
    """
    curves = {"this campaign": generation_facts(history)}
    if not any(x.force_mae is not None for x in curves["this campaign"]):
        return missing_note(without)
    curves |= {name: generation_facts(control) for name, control in controls.items()}
    what = "force" if has_forces(history) else "energy"
    return figure_block(
        _draw_learning(curves, quantity, f"{what} MAE, {error_unit(history)}"), caption
    )


def _draw_learning(
    curves: Mapping[str, Sequence[GenerationFacts]], what: str, error: str
) -> Markup:
    name = QUANTITIES[what]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = _draw_curves(ax, curves, what)
        ax.set_xlabel(name)
        ax.set_ylabel(error)
        draw_legend(ax)
        return marks

    about = f"Learning curve: {error.split()[0]} error on the validation set "
    about += f"against {name}"
    return draw_svg(f"learning-{what}", about, 2.9, paint)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[GenerationFacts]], what: str
) -> list[Marks]:
    marks = []
    for (name, generations), (colour, shape, dash) in zip(
        curves.items(), _LINES, strict=False
    ):
        tested = [x for x in generations if x.error is not None]
        x = np.array([float(getattr(facts, what)) for facts in tested])
        y = np.array([1e3 * float(facts.error or 0.0) for facts in tested])
        axes.plot(x, y, color=colour, linestyle=dash)
        label = TITLES.get(name, name)
        marks.append(
            add_points(
                Marks(axes=axes, x=x, y=y, colour=colour, shape=shape, label=label),
            )
        )
        if name == next(iter(curves)):
            _number_points(axes, x, y, [facts.generation for facts in tested])
    log_axis(axes, "x", [float(x) for points in marks for x in points.x])
    log_axis(axes, "y", [float(y) for points in marks for y in points.y])
    axes.margins(0.12)
    return marks


def _number_points(axes: Axes, x: Floats, y: Floats, numbers: Sequence[int]) -> None:
    step = max(1, len(numbers) // 8)
    for at, error, number in list(zip(x, y, numbers, strict=True))[::step]:
        axes.annotate(
            str(number),
            (at, error),
            xytext=(4, 5),
            textcoords="offset points",
            color=_LINES[0][0],
        )


def thinning_note(parity: ParityData) -> str:
    """Return the sentences of a caption on points that are not drawn."""
    steps = {
        "frames": thinning_step(parity.energies[0]),
        "components": thinning_step(parity.forces[0]),
    }
    return "".join(
        f" Of the {what}, one in {step} is drawn."
        for what, step in steps.items()
        if step > 1
    )


def parity_figures(parity: ParityData) -> list[Markup]:
    """Draw model against label on the validation set: energies and force components."""
    atoms = np.repeat(np.arange(len(parity.frames)), 3 * np.diff(parity.offsets))
    frames = np.array(parity.frames, dtype=np.str_)
    energies = _draw_parity("energies", "eV", parity.energies, frames)
    if np.isnan(parity.forces[0]).all():
        return [energies]
    return [energies, _draw_parity("forces", "eV/Å", parity.forces, frames[atoms])]


def _draw_parity(
    what: str, unit: str, pair: tuple[Floats, Floats], frames: npt.NDArray[np.str_]
) -> Markup:
    label, model = (values[:: thinning_step(values)] for values in pair)
    leads = [str(frame) for frame in frames[:: thinning_step(pair[0])]]
    zero, shape, colour = _PARITIES[what]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        both = np.concatenate(pair)
        pad = 0.05 * float(np.ptp(both)) or 0.1
        ends = [float(both.min()) - pad, float(both.max()) + pad]
        ax.plot(ends, ends, color=FAINT, linewidth=1.2)
        ax.set_xlim(*ends)
        ax.set_ylim(*ends)
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
        ax.set_title(what)
        ax.set_xlabel(f"label{zero}, {unit}")
        ax.set_ylabel(f"model{zero}, {unit}")
        return [
            add_points(
                Marks(
                    axes=ax, x=label, y=model, colour=colour, shape=shape, frames=leads
                ),
            )
        ]

    about = f"{what.capitalize()} of the model against the labels of the validation set"
    return draw_svg(f"parity-{what}", about, 3.9, paint)


_NO_GENERATION = "There is no generation yet: nothing has been learned so far."

_NO_TEST = (
    "There is no validation set, so this error is not known; `validation:` in the "
    "campaign file adds one."
)


def examination_section(history: History) -> Section:
    """Return the section on the examination and its alarm rate."""
    sentences = [*examination_sentences(history), *threshold_sentences(history)]
    lead = paragraph(
        "The examination is MD on the finished model: frames of its trajectories are "
        "predicted first, then labelled at the expensive level. Nothing was learned "
        "from them or chosen by them, so that their error is the one to expect in MD. "
        "The field calls this a test set drawn from the model's own MD."
    )
    if last_examination(history) is None:
        why = "There was none: no error on MD of the model itself is known."
        lead += missing_note(why)
    body = lead + bullet_list([*sentences, *caveats(history)])
    return Section("examination", "Examination", body)


def caveats(history: History) -> Iterator[str]:
    """Yield sources of error that no number of the page covers."""
    yield (
        f"One seed ({history.opened.seed}): how much the outcome varies from seed to "
        "seed is not known."
    )
    bare = [x.generation for _, x in history.generations if x.threshold is None]
    if bare:
        yield (
            f"The flag threshold of {plural(len(bare), 'generation')} is not "
            "calibrated: too few frames were held out."
        )
    if history.state.labels.validation_frames():
        yield (
            "Errors farther out than the frames of the validation set and of the "
            "examination, such as at broken bonds, are not measured."
        )


def learning_section(history: History, controls: Mapping[str, History]) -> Section:
    """Return the section with the learning curve and the table of generations."""
    return Section("learning", "Learning curve", _learning_table(history, controls))


def _learning_table(history: History, controls: Mapping[str, History]) -> Markup:
    generations = generation_facts(history)
    if not generations:
        return missing_note(_NO_GENERATION)
    rows = [
        (
            x.title.removeprefix("generation "),
            str(x.cheap),
            str(x.heldout),
            str(x.expensive),
            *(milli_text(x.force_mae), milli_text(x.force_rmse)),
            *(milli_text(x.energy_mae), milli_text(x.energy_absolute)),
            *(
                number_text(x.threshold),
                duration_text(x.cpu_seconds),
                duration_text(x.label_cost),
            ),
        )
        for x in generations
    ]
    head = [
        *("generation", "cheap labels", "held out", "expensive labels"),
        *("forces MAE, meV/Å", "forces RMSE, meV/Å"),
        *("energies MAE, mean offset removed, meV", "with it"),
        *("flag threshold", "training, CPU", "labels so far, CPU"),
    ]
    compared = [
        comparison.sentence for comparison in compare_controls(history, controls)
    ]
    sentences = bullet_list([error_sentence(history), *compared])
    return _curve_figure(history, controls) + sentences + table_html(head, rows)


def _curve_figure(history: History, controls: Mapping[str, History]) -> Markup:
    caption = (
        "Each point is a generation on the validation set, which no training saw, "
        "against what all labels had cost by then: the fair comparison between "
        "campaigns. The summary has the same curves against the expensive labels. A "
        "curve that still falls at its right end suggests that a larger budget would "
        "help."
    )
    if not controls:
        caption += " No control was run; `alloop run --controls` adds two."
    return learning_curve(
        history, controls, "label_cost", caption=caption, without=_NO_TEST
    )


def parity_section(history: History) -> Section:
    """Return the section on energies and forces against labels."""
    name = "Energies and forces against labels"
    if not history.generations:
        return Section("parity", name, missing_note(_NO_GENERATION))
    parity = parity_data(history)
    if parity is None:
        return Section("parity", name, missing_note(_NO_TEST))
    caption = (
        f"Generation {parity.generation} on the validation set, against "
        f"{level_title(history, 'expensive')}; a perfect model lies on the line. "
        "Energies are relative to the mean label of their composition, and the model's "
        "mean difference is removed, since only differences of energy move atoms."
    ) + thinning_note(parity)
    body = figure_block(parity_figures(parity), caption)
    return Section("parity", name, body + _error_table(parity))


def _error_table(parity: ParityData) -> Markup:
    rows = []
    for name, unit, (label, model) in (
        ("energies", "meV", parity.energies),
        ("force components", "meV/Å", parity.forces),
    ):
        if np.isnan(label).all():
            continue
        difference = model - label
        mae, rmse = np.abs(difference).mean(), np.sqrt((difference**2).mean())
        spread = float(label.std())
        cells = (milli_text(float(mae)), milli_text(float(rmse)), milli_text(spread))
        rows.append((f"{name}, {unit}", str(len(label)), *cells))
    head = ("validation set", "n", "MAE", "RMSE", "spread of the labels")
    return table_html(head, rows)


def error_section(history: History) -> Section:
    """Return the section on errors by molecule and by element."""
    name = "Errors by molecule and element"
    groups = error_groups(history)
    if groups is None:
        why = _NO_TEST if history.generations else _NO_GENERATION
        return Section("errors", name, missing_note(why))
    caption = paragraph(
        f"Generation {groups.generation} on {plural(groups.frames, 'frame')} of "
        f"{groups.where}, the worst first; forces in meV/Å. MAE and RMSE are over "
        "force components, the largest error is the length of one atom's, and stands "
        "beside its frame. Typical is the RMS of the labels themselves: the error of a "
        "model that predicts zero. Energies in meV, after the mean difference over "
        "all these frames was removed; offset is what then remains on average "
        "of a molecule."
    )
    head: tuple[str, ...] = ("forces: MAE", "RMSE", "largest", "in frame", "typical")
    more = ("energies: MAE", "offset")
    first = [(x.name, str(x.count), *_group_cells(x)) for x in groups.molecules]
    energies = [(milli_text(x.energy_mae), _offset_text(x)) for x in groups.molecules]
    rows = [(*a, *b) for a, b in zip(first, energies, strict=True)]
    elements = [(x.name, str(x.count), *_group_cells(x)) for x in groups.elements]
    return Section(
        "errors",
        name,
        caption
        + table_html(("molecule", "frames", *head, *more), rows)
        + table_html(("element", "atoms", *head), elements),
    )


def _offset_text(group: GroupError) -> str:
    return "0" if abs(group.offset or 0.0) < 1e-9 else milli_text(group.offset)


def _group_cells(group: GroupError) -> tuple[Text, ...]:
    return (
        *(milli_text(group.mae), milli_text(group.rmse), milli_text(group.largest)),
        *(frame_link(group.worst), milli_text(group.typical)),
    )
