"""The parts of the report on labels: how they ended, their noise, what they cost."""

from collections import Counter
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from alloop.core.atoms import formula
from alloop.core.records import Unlabelled
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.retries import lasting, lost
from alloop.report.facts import BUDGETED, level, made, title
from alloop.report.markup import (
    Section,
    Text,
    folded,
    frame_link,
    items,
    missing,
    paragraph,
    table,
)
from alloop.report.noise import Floor, floors
from alloop.report.quality import Quality, policy, qualities, quarantined
from alloop.report.words import duration, listed, milli, number, plural, reason, tiny

_MOST = 200  # quarantined labels that the page lists
_NAMES = {
    "gap": "HOMO-LUMO gap, eV",
    "t1": "T1 diagnostic",
    "s2": "<S²>",
    "internal": "internal stability, hartree",
    "external": "external stability, hartree",
}


def labels(history: History) -> Section:
    """How labels ended, and what the good ones say of themselves."""
    note = (
        "Good labels passed every check of geometry and forces. Failed ones are in "
        "quarantine: they count against the budget and are never learned from."
    )
    found = qualities(history)
    said = [line for each in found for line in _said(history, each)]
    body = _counts(history) + paragraph(note)
    body += items(said) if said else Markup("")
    body += _ranges(history, found) + _quarantine(history)
    return Section("labels", "Labels and their quality", body)


def _counts(history: History) -> Markup:
    rows = [
        (
            f"{x.kind}: {level(history, x)}",
            *map(str, (x.good, x.cached, x.brought, x.doubtful, x.failed)),
            f"{x.used} / {x.budget or '–'}" if x.kind in BUDGETED else "–",
        )
        for x in made(history)
    ]
    head = (
        *("labels", "good", "of these cached", "brought", "doubtful", "failed"),
        "used / budget",
    )
    return table(*_without_zeros(head, rows))


def _without_zeros(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The table without columns that count nothing at all."""
    kept = [i for i in range(len(head)) if {row[i] for row in rows} != {"0"}]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _said(history: History, found: Quality) -> Iterator[Text]:
    what = f"{found.fidelity} label"
    if found.rescued:
        rungs = listed(f"{n} by {rung}" for rung, n in found.rescued.items())
        yield (
            f"{plural(sum(found.rescued.values()), what)} did not converge at once: "
            f"{rungs} in the end."
        )
    if found.followed:
        yield f"{plural(found.followed, what)} had to be led down from a saddle point."
    if found.lost_seconds:
        yield (
            f"{duration(found.lost_seconds)} of the CPU time of {what}s went to "
            "attempts that failed."
        )
    for doubt, frames in found.doubts.items():
        text = "{} in doubt: {}. Policy: {}. For example {}."
        yield Markup(text).format(
            plural(len(frames), what),
            doubt,
            policy(history, found.fidelity, doubt),
            frame_link(frames[0]),
        )


def _ranges(history: History, found: Sequence[Quality]) -> Markup:
    keys = [key for key in _NAMES if any(key in each.ranges for each in found)]
    if not keys:
        return Markup("")
    rows = [
        (title(history, x.fidelity), *(_range(x, key) for key in keys)) for x in found
    ]
    return table(("least to most", *(_NAMES[key] for key in keys)), rows)


def _range(found: Quality, key: str) -> str:
    if key not in found.ranges:
        return "–"
    low, high, n = found.ranges[key]
    ends = dict.fromkeys((number(low), number(high)))
    return " to ".join(ends) + f" (n = {n})" * (n < found.good)


def _quarantine(history: History) -> Markup:
    found = quarantined(history)
    if not found:
        return paragraph("No label failed.")
    counts = Counter((x.fidelity, why.failure) for x, why in found)
    rows = [
        (reason(failure), fidelity, str(failure), str(count))
        for (fidelity, failure), count in sorted(counts.items())
    ]
    text = table(("failure", "level", "what to do", "labels"), rows, words=3)
    text += paragraph(
        f"{_retry(history)}`alloop why STORE FRAME` tells a frame's story."
    )
    return text + folded("The frames in quarantine", _frames(found))


def _retry(history: History) -> str:
    again = len(lost(history))
    what = f"`alloop resume STORE --retry` tries {plural(again, 'label')} again. "
    return what if again else ""


def _frames(found: Sequence[tuple[Told, Unlabelled]]) -> Markup:
    rows = [
        (
            *(frame_link(x.frame.id), formula(x.frame), x.fidelity),
            reason(why.failure),
            *(why.message, "no" if lasting(why) else "yes"),
        )
        for x, why in found[:_MOST]
    ]
    head = ("frame", "molecule", "level", "failure", "message", "retry")
    more = len(found) - _MOST
    shown = table(head, rows, words=len(head))
    rest = paragraph(f"And {more} more; `alloop log STORE` lists all.")
    return shown + rest if more > 0 else shown


def noise(history: History) -> Section:
    """The labels' own noise beside the model's error."""
    name = "Noise of the labels"
    found = floors(history)
    if not found:
        why = "No label was made a second time: the labels' own noise is not known."
        return Section("noise", name, missing(why))
    head = (
        *("level", "labels", "energies, meV", "forces, meV/Å"),
        *("model's energies", "model's forces"),
    )
    how = (
        "A random share of the labels was made again at tighter settings, with the "
        "frame turned at random; how far they moved is their noise: median (largest) "
        "of energies, RMS (largest) of force components. Beside it stand the last "
        "model's errors on the test set, MAE of energies and RMSE of forces."
    )
    said = items(each.sentence for each in found)
    body = paragraph(how) + table(head, map(_floor, found)) + said
    return Section("noise", name, body)


def _floor(found: Floor) -> Sequence[str]:
    energies = f"{tiny(found.energy_median)} ({tiny(found.energy_max)})"
    forces = f"{tiny(found.force_rms)} ({tiny(found.force_max)})"
    errors = milli(found.energy_error), milli(found.error)
    return found.title, str(found.n), energies, forces, *errors
