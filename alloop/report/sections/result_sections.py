"""The result sections of the report: figures and tables with their explanations."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from alloop.history.measured_costs import worker_utilisation
from alloop.history.reader import History
from alloop.report.analysis.comparison import compare_controls
from alloop.report.analysis.error_groups import GroupError, error_groups
from alloop.report.analysis.examination import (
    examination,
    examination_sentences,
    threshold_sentences,
)
from alloop.report.analysis.explorations import Explorations
from alloop.report.analysis.parity import ParityData, bias_data, parity_data
from alloop.report.analysis.summary_facts import (
    generation_facts,
    is_single,
    level_title,
)
from alloop.report.analysis.timeline import (
    axis_length,
    run_spans,
    task_bars,
    worker_lanes,
)
from alloop.report.analysis.uncertainty import (
    ENOUGH,
    WORST,
    ErrorPoint,
    ThresholdVerdict,
    rank_correlations,
    some_points,
    threshold_verdict,
)
from alloop.report.sections import figures
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    figure_block,
    frame_link,
    heading,
    missing_note,
    paragraph,
    table_html,
)
from alloop.report.text.formatting import duration_text, milli_text, number_text, plural

_NO_GENERATION = "There is no generation yet: nothing has been learned so far."
_NO_TEST = (
    "There is no test set, so no error is known. Give the campaign one with `test:`."
)


def examined(history: History) -> Section:
    """Return the section on the final examination and its alarm rate."""
    found = [*examination_sentences(history), *threshold_sentences(history)]
    name = "Final examination"
    if examination(history) is None:
        why = "There was none: no error on MD of the model itself is known."
        return Section(
            "examination", name, missing_note(why) + bullet_list(found) * bool(found)
        )
    return Section("examination", name, bullet_list(found))


def learning_section(history: History, controls: Mapping[str, History]) -> Section:
    """Return the section with the learning curve and the table of generations."""
    return Section("learning", "Learning curve", _learning_table(history, controls))


def _learning_table(history: History, controls: Mapping[str, History]) -> Markup:
    stands = generation_facts(history)
    if not stands:
        return missing_note(_NO_GENERATION)
    rows = [
        (
            str(x.generation),
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
        for x in stands
    ]
    head = [
        *("generation", "cheap labels", "held out", "expensive labels"),
        *("forces MAE, meV/Å", "forces RMSE, meV/Å"),
        *("energies MAE, mean offset removed, meV", "with it"),
        *("flag threshold", "training, CPU", "labels so far, CPU"),
    ]
    judged = [each.sentence for each in compare_controls(history, controls)]
    said = bullet_list(judged) if judged else Markup("")
    return _curve_figure(history, controls) + said + table_html(head, rows)


def _curve_figure(history: History, controls: Mapping[str, History]) -> Markup:
    own = {"this campaign": generation_facts(history)}
    curves = own | {name: generation_facts(each) for name, each in controls.items()}
    if not any(x.force_mae is not None for x in own["this campaign"]):
        return missing_note(_NO_TEST)
    how = (
        "Each point is a generation on the frozen set, which no training saw; lower is "
        "better. First: against the expensive labels it learned from. Second: against "
        "what all labels had cost by then, which is the fair comparison between "
        "campaigns. A campaign that still falls at its right end would gain from a "
        "larger budget."
    )
    if not controls:
        how += " No control was run; `alloop run --controls` adds two."
    return figure_block(figures.learning_curve(curves), how)


def parity_section(history: History) -> Section:
    """Return the section on energies and forces against labels."""
    name = "Energies and forces against labels"
    if not history.generations:
        return Section("parity", name, missing_note(_NO_GENERATION))
    found = parity_data(history)
    if found is None:
        return Section("parity", name, missing_note(_NO_TEST))
    how = (
        f"Generation {found.generation} on the test set, against "
        f"{level_title(history, 'expensive')}; a perfect model lies on the line. "
        "Energies "
        "are relative to the mean label of their composition, and the model's mean "
        "difference is removed, since only differences of energy move atoms."
    ) + figures.thinning_note(found)
    body = figure_block(figures.parity_figure(found), how)
    return Section("parity", name, body + _error_table(found))


def _error_table(found: ParityData) -> Markup:
    rows = []
    for name, unit, (label, model) in (
        ("energies", "meV", found.energies),
        ("force components", "meV/Å", found.forces),
    ):
        apart = model - label
        mae, rmse = np.abs(apart).mean(), np.sqrt((apart**2).mean())
        spread = float(label.std())
        cells = (milli_text(float(mae)), milli_text(float(rmse)), milli_text(spread))
        rows.append((f"{name}, {unit}", str(len(label)), *cells))
    head = ("frozen set", "n", "MAE", "RMSE", "spread of the labels")
    return table_html(head, rows)


def errors(history: History) -> Section:
    """Return the section on errors by molecule and by element."""
    name = "Errors by molecule and element"
    found = error_groups(history)
    if found is None:
        why = _NO_TEST if history.generations else _NO_GENERATION
        return Section("errors", name, missing_note(why))
    how = paragraph(
        f"Generation {found.generation} on {plural(found.frames, 'frame')} of "
        f"{found.where}, the worst first; forces in meV/Å. MAE and RMSE are over force "
        "components, the largest error is the length of one atom's, and stands beside "
        "its frame. Typical is the RMS of the labels themselves: what a model that "
        "says zero errs by. Energies in meV, after the mean difference over all these "
        "frames was removed; offset is what then remains on average of a molecule."
    )
    head: tuple[str, ...] = ("forces: MAE", "RMSE", "largest", "in frame", "typical")
    more = ("energies: MAE", "offset")
    first = [(x.name, str(x.count), *_group(x)) for x in found.molecules]
    energies = [(milli_text(x.energy_mae), _offset(x)) for x in found.molecules]
    rows = [(*a, *b) for a, b in zip(first, energies, strict=True)]
    elements = [(x.name, str(x.count), *_group(x)) for x in found.elements]
    return Section(
        "errors",
        name,
        how
        + table_html(("molecule", "frames", *head, *more), rows)
        + table_html(("element", "atoms", *head), elements),
    )


def _offset(found: GroupError) -> str:
    return "0" if abs(found.offset or 0.0) < 1e-9 else milli_text(found.offset)


def _group(found: GroupError) -> tuple[Text, ...]:
    return (
        *(milli_text(found.mae), milli_text(found.rmse), milli_text(found.largest)),
        *(frame_link(found.worst), milli_text(found.typical)),
    )


def surprise_section(points: Sequence[ErrorPoint]) -> Section:
    """Return the section on surprise against true error.

    It includes the hits and misses of the flag threshold.
    """
    name = "Does it know what it does not know?"
    found = tuple(x for x in points if np.isfinite(x.surprise))
    if not found:
        why = (
            "No frame has both a surprise and a true error yet: that takes a "
            "generation with a scorer, and a test set or labels of proposed frames."
        )
        return Section("surprise", name, missing_note(why))
    how = (
        "Each point is a frame whose true error is known: its surprise for the model "
        "that proposed it (for the test set, the last model), and the largest error of "
        "that model's force on one of its atoms, predicted before the label came. "
        "Rising from left to right is what surprise is for; high on the left are the "
        "frames that it missed. Control frames were drawn at random: they alone say "
        "how often that happens."
    )
    drawn = some_points(found, figures.MOST)
    if len(drawn) < len(found):
        how += (
            f" Of {len(found)} frames {len(drawn)} are drawn: those with the largest "
            "errors, and an even sample of the others."
        )
    body = (
        figure_block(figures.surprise_figure(drawn), how)
        + _ranking_table(found)
        + _verdict_text(found)
    )
    return Section("surprise", name, body)


def _ranking_table(found: tuple[ErrorPoint, ...]) -> Markup:
    rows = [
        (x.group, str(x.n), number_text(x.spearman, 2), number_text(x.auroc, 2))
        for x in rank_correlations(found)
    ]
    head = ("frames", "n", "Spearman's ρ", "AUROC")
    note = paragraph(
        "Spearman's ρ is the rank correlation of surprise and error: 1 is perfect, 0 "
        "is none. AUROC is the chance that a bad frame surprises more than a good one: "
        f"1 is perfect, 0.5 is guessing. Below {ENOUGH} frames neither is given. A "
        f"frame is bad if its error exceeds that of {WORST:.0%} of the test frames "
        "under the same generation."
    )
    return table_html(head, rows) + note


def _verdict_text(found: tuple[ErrorPoint, ...]) -> Markup:
    said = threshold_verdict(found)
    title_ = heading("Hits and misses of the flag threshold")
    if said.n == 0:
        why = "No control frame was proposed under a threshold and a test set yet."
        return title_ + missing_note(why) + _enrichment_text(said)
    rows = [
        ("flagged", str(said.hits), str(said.false_alarms)),
        ("not flagged", str(said.misses), str(said.quiet)),
    ]
    words = (
        f"On {said.n} random control frames: {said.hits} bad frames were flagged and "
        f"{said.misses} were missed."
    )
    if said.n < 3 * ENOUGH:
        words += f" With n = {said.n} this is an anecdote, not a rate."
    head = ("control frames", "bad", "good")
    return title_ + table_html(head, rows) + paragraph(words) + _enrichment_text(said)


def _enrichment_text(said: ThresholdVerdict) -> Markup:
    if said.enrichment is None:
        return Markup("")
    return paragraph(
        f"Chosen frames erred {said.enrichment:.1f} times as much as control frames "
        "(mean of the largest force errors). What active learning gains is another "
        "question: only the controls' learning curves answer it."
    )


def bias_section(history: History, brought: Explorations) -> Section:
    """Return the section on the bias of cheap labels."""
    name = "Bias of the cheap labels"
    found = bias_data(history, brought)
    if is_single(history):
        why = (
            "This campaign has one fidelity only: there is no cheap label to be biased."
        )
        return Section("bias", name, missing_note(why))
    if not found.generation and not len(found.levels):
        why = "No bias is known yet: no model has met a cheap label."
        return Section("bias", name, missing_note(why))
    source = (
        "as its training found it after the first stage, and weighed cheap labels by it"
        if found.trained
        else "of the frames it proposed, taken when their cheap labels came"
    )
    how = (
        "B is the mean absolute difference between the model's forces and the cheap "
        f"label of a frame, {source}; the line is the median. The last row needs no "
        "model: it compares cheap and expensive labels of the same frames. B well "
        "above that row is the model's own error, B near it is the cheap level's."
    )
    return Section("bias", name, figure_block(figures.bias_figure(found), how))


def timeline_section(history: History) -> Section:
    """Return the section on the timeline of tasks and the use of the workers."""
    name = "What ran when"
    found = task_bars(history)
    if not found:
        return Section("timeline", name, missing_note("Nothing has run yet."))
    busy = worker_utilisation(history)
    how = (
        "A bar is a task on a worker, a gap is waiting: for a round to close, for "
        "training, or for a task to be sent. Pauses of more than a minute between two "
        "runs are cut out. Above it stands where the MD of a round begins, in a bar of "
        "training the number of its generation."
    )
    crew = plural(len(worker_lanes(found)), "worker")
    words = (
        f"{crew} for {duration_text(axis_length(run_spans(found)))}; "
        f"their tasks used {busy or 0.0:.0%} of that CPU time."
    )
    body = figure_block(figures.timeline_figure(found), how) + paragraph(words)
    return Section("timeline", name, body)
