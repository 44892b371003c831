"""Sections of the report on errors: examination, learning curve, parity, groups."""

from collections.abc import Iterator, Mapping

import numpy as np
from markupsafe import Markup

from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    generation_facts,
    level_title,
)
from alloop.report.analysis.comparison import compare_controls
from alloop.report.analysis.examination import (
    examination_sentences,
    last_examination,
    threshold_sentences,
)
from alloop.report.analysis.model_errors import (
    GroupError,
    ParityData,
    error_groups,
    parity_data,
)
from alloop.report.sections.error_figures import (
    cost_curve,
    parity_figures,
    thinning_note,
)
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
from alloop.report.text.formatting import duration_text, milli_text, number_text, plural
from alloop.report.text.summary import error_sentence

_NO_GENERATION = "There is no generation yet: nothing has been learned so far."

_NO_TEST = (
    "There is no validation set, so this error is not known; `validation:` in the "
    "campaign file adds one."
)


def examination_section(history: History) -> Section:
    """Return the section on the examination and its alarm rate."""
    found = [*examination_sentences(history), *threshold_sentences(history)]
    name = "Examination"
    lead = paragraph(
        "The examination is MD on the finished model: frames of its trajectories are "
        "predicted first, then labelled at the expensive level. Nothing was learned "
        "from them or chosen by them, so that their error is the one to expect in MD. "
        "The field calls this a test set drawn from the model's own MD."
    )
    if last_examination(history) is None:
        why = "There was none: no error on MD of the model itself is known."
        return Section(
            "examination",
            name,
            lead + missing_note(why) + bullet_list([*found, *caveats(history)]),
        )
    return Section("examination", name, lead + bullet_list([*found, *caveats(history)]))


def caveats(history: History) -> Iterator[str]:
    """Yield what no number of the page measures."""
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
    compared = [each.sentence for each in compare_controls(history, controls)]
    sentences = bullet_list([error_sentence(history), *compared])
    return _curve_figure(history, controls) + sentences + table_html(head, rows)


def _curve_figure(history: History, controls: Mapping[str, History]) -> Markup:
    own = {"this campaign": generation_facts(history)}
    curves = own | {name: generation_facts(each) for name, each in controls.items()}
    if not any(x.force_mae is not None for x in own["this campaign"]):
        return missing_note(_NO_TEST)
    caption = (
        "Each point is a generation on the validation set, which no training saw, "
        "against what all labels had cost by then: the fair comparison between "
        "campaigns. The summary has the same curves against the expensive labels. A "
        "curve that still falls at its right end suggests that a larger budget would "
        "help."
    )
    if not controls:
        caption += " No control was run; `alloop run --controls` adds two."
    return figure_block(cost_curve(curves), caption)


def parity_section(history: History) -> Section:
    """Return the section on energies and forces against labels."""
    name = "Energies and forces against labels"
    if not history.generations:
        return Section("parity", name, missing_note(_NO_GENERATION))
    found = parity_data(history)
    if found is None:
        return Section("parity", name, missing_note(_NO_TEST))
    caption = (
        f"Generation {found.generation} on the validation set, against "
        f"{level_title(history, 'expensive')}; a perfect model lies on the line. "
        "Energies "
        "are relative to the mean label of their composition, and the model's mean "
        "difference is removed, since only differences of energy move atoms."
    ) + thinning_note(found)
    body = figure_block(parity_figures(found), caption)
    return Section("parity", name, body + _error_table(found))


def _error_table(found: ParityData) -> Markup:
    rows = []
    for name, unit, (label, model) in (
        ("energies", "meV", found.energies),
        ("force components", "meV/Å", found.forces),
    ):
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
    found = error_groups(history)
    if found is None:
        why = _NO_TEST if history.generations else _NO_GENERATION
        return Section("errors", name, missing_note(why))
    caption = paragraph(
        f"Generation {found.generation} on {plural(found.frames, 'frame')} of "
        f"{found.where}, the worst first; forces in meV/Å. MAE and RMSE are over force "
        "components, the largest error is the length of one atom's, and stands beside "
        "its frame. Typical is the RMS of the labels themselves: the error of a "
        "model that predicts zero. Energies in meV, after the mean difference over "
        "all these frames was removed; offset is what then remains on average "
        "of a molecule."
    )
    head: tuple[str, ...] = ("forces: MAE", "RMSE", "largest", "in frame", "typical")
    more = ("energies: MAE", "offset")
    first = [(x.name, str(x.count), *_group_cells(x)) for x in found.molecules]
    energies = [(milli_text(x.energy_mae), _offset_text(x)) for x in found.molecules]
    rows = [(*a, *b) for a, b in zip(first, energies, strict=True)]
    elements = [(x.name, str(x.count), *_group_cells(x)) for x in found.elements]
    return Section(
        "errors",
        name,
        caption
        + table_html(("molecule", "frames", *head, *more), rows)
        + table_html(("element", "atoms", *head), elements),
    )


def _offset_text(found: GroupError) -> str:
    return "0" if abs(found.offset or 0.0) < 1e-9 else milli_text(found.offset)


def _group_cells(found: GroupError) -> tuple[Text, ...]:
    return (
        *(milli_text(found.mae), milli_text(found.rmse), milli_text(found.largest)),
        *(frame_link(found.worst), milli_text(found.typical)),
    )
