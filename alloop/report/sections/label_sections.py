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

_MOST = 200  # quarantined labels that the page lists, at most
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
    found = label_qualities(history)
    sentences = [line for each in found for line in _quality_sentences(history, each)]
    body = _label_counts(history) + paragraph(note)
    body += bullet_list(sentences) if sentences else Markup("")
    body += _range_table(history, found) + _quarantine_html(history)
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
    kept = [i for i in range(len(head)) if {row[i] for row in rows} != {"0"}]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _quality_sentences(history: History, found: LabelQuality) -> Iterator[Text]:
    what = f"{found.fidelity} label"
    if found.rescued:
        rungs = and_list(f"{n} by {rung}" for rung, n in found.rescued.items())
        yield (
            f"{plural(sum(found.rescued.values()), what)} did not converge at once: "
            f"{rungs} in the end."
        )
    if found.followed:
        yield f"{plural(found.followed, what)} had to be led down from a saddle point."
    if found.lost_seconds:
        yield (
            f"{duration_text(found.lost_seconds)} of the CPU time of {what}s went to "
            "attempts that failed."
        )
    for doubt, frames in found.doubts.items():
        text = "{} in doubt: {}. Policy: {}. For example {}."
        yield Markup(text).format(
            plural(len(frames), what),
            doubt,
            doubt_policy(history, found.fidelity, doubt),
            frame_link(frames[0]),
        )


def _range_table(history: History, found: Sequence[LabelQuality]) -> Markup:
    keys = [key for key in _NAMES if any(key in each.ranges for each in found)]
    if not keys:
        return Markup("")
    rows = [
        (level_title(history, x.fidelity), *(_range_text(x, key) for key in keys))
        for x in found
    ]
    return table_html(("least to most", *(_NAMES[key] for key in keys)), rows)


def _range_text(found: LabelQuality, key: str) -> str:
    if key not in found.ranges:
        return "–"
    low, high, n = found.ranges[key]
    ends = dict.fromkeys((number_text(low), number_text(high)))
    return " to ".join(ends) + f" (n = {n})" * (n < found.good)


def _quarantine_html(history: History) -> Markup:
    found = quarantined_labels(history)
    if not found:
        return paragraph("No label failed.")
    counts = Counter((x.fidelity, why.failure) for x, why in found)
    rows = [
        (failure_text(failure), fidelity, str(failure), str(count))
        for (fidelity, failure), count in sorted(counts.items())
    ]
    text = table_html(("failure", "level", "what to do", "labels"), rows, words=3)
    text += paragraph(
        f"{_retry_hint(history)}`alloop why STORE FRAME` shows the history of a frame."
    )
    return text + folded_block("The frames in quarantine", _frame_list(found))


def _retry_hint(history: History) -> str:
    again = len(lost_labels(history))
    what = f"`alloop resume STORE --retry` tries {plural(again, 'label')} again. "
    return what if again else ""


def _frame_list(found: Sequence[tuple[LabelEntry, Unlabelled]]) -> Markup:
    rows = [
        (
            *(frame_link(x.frame.id), hill_formula(x.frame), x.fidelity),
            failure_text(why.failure),
            *(why.message, "no" if why.is_permanent else "yes"),
        )
        for x, why in found[:_MOST]
    ]
    head = ("frame", "molecule", "level", "failure", "message", "retry")
    more = len(found) - _MOST
    shown = table_html(head, rows, words=len(head))
    rest = paragraph(f"And {more} more; `alloop log STORE` lists all.")
    return shown + rest if more > 0 else shown


def noise_section(history: History) -> Section:
    """Return the section on the noise of labels beside the error of the model."""
    name = "Noise of the labels"
    found = noise_floors(history)
    if not found:
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
    sentences = bullet_list(each.sentence for each in found)
    body = paragraph(caption) + table_html(head, map(_floor_row, found)) + sentences
    return Section("noise", name, body)


def _floor_row(found: NoiseFloor) -> Sequence[str]:
    energies = f"{tiny_text(found.energy_median)} ({tiny_text(found.energy_max)})"
    forces = f"{tiny_text(found.force_rms)} ({tiny_text(found.force_max)})"
    errors = milli_text(found.energy_error), milli_text(found.error)
    return found.title, str(found.n), energies, forces, *errors
