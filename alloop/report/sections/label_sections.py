"""The label sections of the report: outcomes, quality and noise of the labels."""

from collections import Counter
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from alloop.core.atoms import hill_formula
from alloop.core.records import Unlabelled
from alloop.history.label_entries import lost_labels
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.report.analysis.campaign_facts import level_title
from alloop.report.analysis.label_facts import (
    BUDGETED,
    LabelQuality,
    NoiseFloor,
    doubt_policy,
    label_qualities,
    label_totals,
    level_name,
    noise_floors,
    quarantined_labels,
)
from alloop.report.sections.markup import (
    Section,
    Text,
    bullet_list,
    folded_block,
    frame_link,
    missing_note,
    paragraph,
    remainder_note,
    table_html,
)
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_text,
    milli_text,
    number_text,
    plural,
    tiny_text,
)

_MOST_LISTED = 200  # quarantined labels that the page lists, at most
_NAMES = {
    "gap": "HOMO-LUMO gap, eV",
    "t1": "T1 diagnostic",
    "s2": "<S²>",
    "internal": "internal stability, hartree",
    "external": "external stability, hartree",
}


def label_section(history: History) -> Section:
    """Return the section on outcomes of labels and the quality of the good ones."""
    note = (
        "Good labels passed every check of geometry and forces. Failed ones are in "
        "quarantine: they count against the budget and are never learned from."
    )
    qualities = label_qualities(history)
    sentences = [
        line for quality in qualities for line in _quality_sentences(history, quality)
    ]
    body = _label_counts(history) + paragraph(note)
    body += bullet_list(sentences) if sentences else Markup("")
    body += _range_table(history, qualities) + _quarantine_html(history)
    return Section("labels", "Labels and their quality", body)


def _label_counts(history: History) -> Markup:
    rows = [
        (
            f"{x.kind}: {level_name(history, x)}",
            *map(str, (x.good, x.cached, x.supplied, x.doubtful, x.failed)),
            f"{x.used} / {x.budget or '–'}" if x.kind in BUDGETED else "–",
        )
        for x in label_totals(history)
    ]
    head = (
        *("labels", "good", "of these cached", "supplied", "doubtful", "failed"),
        "used / budget",
    )
    return table_html(*_without_zeros(head, rows))


def _without_zeros(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return the table without columns that hold only zeros."""
    columns = [i for i in range(len(head)) if {row[i] for row in rows} != {"0"}]
    return [head[i] for i in columns], [[row[i] for i in columns] for row in rows]


def _quality_sentences(history: History, quality: LabelQuality) -> Iterator[Text]:
    what = f"{quality.fidelity} label"
    if quality.rescued:
        rungs = and_list(f"{n} by {rung}" for rung, n in quality.rescued.items())
        yield (
            f"{plural(sum(quality.rescued.values()), what)} did not converge at once: "
            f"{rungs} in the end."
        )
    if quality.followed:
        labels = plural(quality.followed, what)
        yield f"{labels} had to be led down from a saddle point."
    if quality.lost_seconds:
        yield (
            f"{duration_text(quality.lost_seconds)} of the CPU time of {what}s went to "
            "attempts that failed."
        )
    for doubt, frames in quality.doubts.items():
        text = "{} in doubt: {}. Policy: {}. For example {}."
        yield Markup(text).format(
            plural(len(frames), what),
            doubt,
            doubt_policy(history, quality.fidelity, doubt),
            frame_link(frames[0]),
        )


def _range_table(history: History, qualities: Sequence[LabelQuality]) -> Markup:
    keys = [
        key for key in _NAMES if any(key in quality.ranges for quality in qualities)
    ]
    if not keys:
        return Markup("")
    rows = [
        (level_title(history, x.fidelity), *(_range_text(x, key) for key in keys))
        for x in qualities
    ]
    return table_html(("least to most", *(_NAMES[key] for key in keys)), rows)


def _range_text(quality: LabelQuality, key: str) -> str:
    if key not in quality.ranges:
        return "–"
    low, high, n = quality.ranges[key]
    ends = dict.fromkeys((number_text(low), number_text(high)))
    return " to ".join(ends) + f" (n = {n})" * (n < quality.good)


def _quarantine_html(history: History) -> Markup:
    failures = quarantined_labels(history)
    if not failures:
        return paragraph("No label failed.")
    counts = Counter((x.fidelity, why.failure) for x, why in failures)
    rows = [
        (failure_text(failure), fidelity, str(failure), str(count))
        for (fidelity, failure), count in sorted(counts.items())
    ]
    text = table_html(("failure", "level", "what to do", "labels"), rows, words=3)
    text += paragraph(
        f"{_retry_hint(history)}`alloop why STORE FRAME` shows the history of a frame."
    )
    return text + folded_block("The frames in quarantine", _frame_list(failures))


def _retry_hint(history: History) -> str:
    again = len(lost_labels(history))
    what = f"`alloop resume STORE --retry` tries {plural(again, 'label')} again. "
    return what if again else ""


def _frame_list(failures: Sequence[tuple[LabelEntry, Unlabelled]]) -> Markup:
    rows = [
        (
            *(frame_link(x.frame.id), hill_formula(x.frame), x.fidelity),
            failure_text(why.failure),
            *(why.message, "no" if why.is_permanent else "yes"),
        )
        for x, why in failures[:_MOST_LISTED]
    ]
    head = ("frame", "molecule", "level", "failure", "message", "retry")
    rest = remainder_note(len(failures), _MOST_LISTED)
    return table_html(head, rows, words=len(head)) + rest


def noise_section(history: History) -> Section:
    """Return the section on the noise of labels beside the error of the model."""
    name = "Noise of the labels"
    floors = noise_floors(history)
    if not floors:
        why = "No label was made a second time: the labels' own noise is not known."
        return Section("noise", name, missing_note(why))
    head = (
        *("level", "labels", "energies, meV", "forces, meV/Å"),
        *("model's energies", "model's forces"),
    )
    caption = (
        "A random share of the labels was made again at tighter settings, with the "
        "frame turned at random; how far they moved is their noise: median (largest) "
        "of energies, RMS (largest) of force components. Beside it stand the last "
        "model's errors on the validation set, MAE of energies and RMSE of forces."
    )
    sentences = bullet_list(floor.sentence for floor in floors)
    body = paragraph(caption) + table_html(head, map(_floor_row, floors)) + sentences
    return Section("noise", name, body)


def _floor_row(floor: NoiseFloor) -> Sequence[str]:
    energies = f"{tiny_text(floor.energy_median)} ({tiny_text(floor.energy_max)})"
    forces = f"{tiny_text(floor.force_rms)} ({tiny_text(floor.force_max)})"
    errors = milli_text(floor.energy_error), milli_text(floor.error)
    return floor.title, str(floor.n), energies, forces, *errors
