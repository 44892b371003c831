"""The live page of a campaign and its metrics, from the values of its status."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from markupsafe import Markup

from alloop.core.text import local_time
from alloop.driver.disk import disk_space
from alloop.driver.notices import read_notices
from alloop.history.reader import History
from alloop.report.sections.error_sections import learning_section
from alloop.report.sections.markup import (
    Section,
    code_block,
    join_pieces,
    outcome_tiles,
    paragraph,
    render_page,
    table_html,
)
from alloop.report.sections.run_sections import cost_section, timeline_section
from alloop.report.status import NO_CONTROLS, STATES, campaign_status, stage_sentence
from alloop.report.text.event_log import log_lines
from alloop.report.text.formatting import (
    duration_text,
    milli_text,
    number_text,
    task_text,
)

_LINES = 40  # of the log
_INTERVALS = 50  # between commits, of which the median is the usual one
_NONE = "–"
_LINKS = Markup(
    'More: <a href="report">the report</a>, <a href="status.json">all values</a>, '
    '<a href="metrics">metrics</a>.'
)


def live_page(history: History, now: float) -> str:
    """Return the page; now: the present moment, s since 1970."""
    values = campaign_status(history)
    sections = [
        Section("now", "Now", _now_table(history, values)),
        Section("labels", "Labels", _label_table(values)),
        Section("notices", "Notices", _notice_table(history)),
        Section("log", "Log", code_block(_newest_first(history))),
        learning_section(history, NO_CONTROLS),
        cost_section(history),
        timeline_section(history),
    ]
    return render_page(
        title=values["name"],
        kind="live",
        where=f"{history.place} · read {local_time(now)}, and again every half minute",
        lead=join_pieces(
            [
                paragraph(stage_sentence(history), "lead"),
                _tiles(values, history, now),
                paragraph(_LINKS),
            ]
        ),
        sections=sections,
        foot=f"From the store alone; `alloop status {history.place}` has the same "
        "values.",
    )


def _newest_first(history: History) -> str:
    return "\n".join(reversed([*log_lines(history, _LINES)]))


def _tiles(values: Mapping[str, Any], history: History, now: float) -> Markup:
    best = values["best"]
    error = values["errors"][best - 1] if best else None
    end, left = values["cpu_seconds_at_end"], values["time_left"]
    silence, median = silence_seconds(history, now), usual_interval(history)
    driver = "no driver is running" if values["running"] is None else "running"
    return outcome_tiles(
        [
            ("state", values["state"], driver),
            (
                "error",
                _NONE if error is None else f"{milli_text(error)} meV/Å",
                f"generation {best}, forces, validation set" if best else "",
            ),
            (
                "cost",
                duration_text(values["cpu_seconds"]),
                f"CPU; about {duration_text(end)} at the end"
                if end and not values["finished"]
                else "CPU",
            ),
            (
                "last sign",
                f"{duration_text(silence)} ago" if silence is not None else _NONE,
                f"usually every {duration_text(median)}"
                + (f"; about {duration_text(left)} left" if left else ""),
            ),
        ]
    )


def _now_table(history: History, values: Mapping[str, Any]) -> Markup:
    walkers, busy, driver = values["walkers"], values["utilisation"], values["running"]
    stopped = sum(walkers["stopped"].values())
    who = (
        "none"
        if driver is None
        else f"process {driver['pid']} on {driver['host']} since {driver['since']}"
    )
    space = disk_space(history.path)
    rows = [
        ("driver", who),
        ("round", f"{values['round']}, generation {values['generation']}"),
        ("under way", task_text(values["open"])),
        ("walkers", f"{walkers['walking']} walking, {stopped} stopped"),
        ("workers busy", _NONE if busy is None else f"{busy:.0%} of the time"),
        ("failed labels", str(values["quarantined"]["labels"])),
        ("disk", f"{space.used / 1e6:.1f} MB used, {space.free / 1e9:.1f} GB free"),
        *(("training", text) for text in values["training"]),
    ]
    return table_html(("", ""), rows, words=2)


def _label_table(values: Mapping[str, Any]) -> Markup:
    head = ("labels", "level", "good", "failed", "of budget", "an hour", "CPU")
    rows = []
    for kind, counts in values["labels"].items():
        budget = counts["budget"]
        rate = values["labels_per_hour"].get(kind)
        rows.append(
            (
                kind,
                counts["level"],
                str(counts["good"]),
                str(counts["failed"]),
                _NONE if budget is None else f"{counts['used']} of {budget}",
                _NONE if rate is None else number_text(rate),
                duration_text(counts["cpu_seconds"]),
            )
        )
    return table_html(head, rows, words=2)


def _notice_table(history: History) -> Markup:
    due = [x for x in read_notices(history.path) if x["state"] == "due"]
    if not due:
        return paragraph("Nothing to tell yet.")
    rows = [
        (local_time(float(x["time"])), str(x.get("about")), str(x.get("text")))
        for x in reversed(due)
    ]
    return table_html(("time", "about", "text"), rows, words=3)


def silence_seconds(history: History, now: float) -> float | None:
    """Return the seconds since the last commit, None before any."""
    if not history.entries:
        return None
    return max(0.0, now - history.entries[-1].time)


def usual_interval(history: History) -> float | None:
    """Return the median of the last intervals between commits, s."""
    times = [entry.time for entry in history.entries[-_INTERVALS:]]
    gaps = [b - a for a, b in pairwise(times)]
    return median(gaps) if gaps else None


def metrics(history: History, now: float) -> str:
    """Return the values of the status in the text format of Prometheus.

    Format: https://prometheus.io/docs/instrumenting/exposition_formats (0.0.4).
    """
    lines = []
    for name, (about, samples) in _samples(history, now).items():
        finite = [(labels, value) for labels, value in samples if value is not None]
        if finite:
            lines += [f"# HELP alloop_{name} {about}", f"# TYPE alloop_{name} gauge"]
            lines += [f"alloop_{name}{_labels(x)} {float(y)!r}" for x, y in finite]
    return "\n".join(lines) + "\n"


def _samples(history: History, now: float) -> dict[str, tuple[str, Any]]:
    values, space = campaign_status(history), disk_space(history.path)
    best, labels = values["best"], values["labels"]
    who = {"campaign": values["name"]}

    def single(value: Any) -> list[tuple[dict[str, str], Any]]:
        return [(who, value)]

    def by(name: str, counts: Mapping[str, Any]) -> list[tuple[dict[str, str], Any]]:
        return [({**who, name: key}, value) for key, value in counts.items()]

    def of_labels(key: str) -> list[tuple[dict[str, str], Any]]:
        return by("level", {level: counts[key] for level, counts in labels.items()})

    error = values["errors"][best - 1] if best else None
    return {
        "state": (
            "1 for the state that it is in",
            by("state", {x: float(x == values["state"]) for x in STATES}),
        ),
        "round": ("Rounds begun", single(values["round"])),
        "generation": ("Generations trained", single(values["generation"])),
        "labels_good": ("Good labels", of_labels("good")),
        "labels_failed": ("Failed labels", of_labels("failed")),
        "labels_used": ("Labels that count against the budget", of_labels("used")),
        "labels_budget": ("Labels of the budget", of_labels("budget")),
        "labels_per_hour": (
            "Good labels in the last hour of work",
            by("level", values["labels_per_hour"]),
        ),
        "open_tasks": ("Tasks asked for", by("kind", values["open"])),
        "force_mae": ("Force MAE of the best generation, eV/Å", single(error)),
        "cpu_seconds": ("CPU time spent", single(values["cpu_seconds"])),
        "cpu_seconds_at_end": (
            "CPU time at the end of the budget",
            single(values["cpu_seconds_at_end"]),
        ),
        "seconds_left": ("Wall time to the end", single(values["time_left"])),
        "utilisation": ("Busy share of the workers", single(values["utilisation"])),
        "seconds_since_commit": (
            "Time without any answer",
            single(silence_seconds(history, now)),
        ),
        "store_bytes": ("Disk space of the store", single(space.used)),
        "disk_free_bytes": ("Free disk space beside it", single(space.free)),
    }


def _labels(labels: Mapping[str, str]) -> str:
    texts = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(texts) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
