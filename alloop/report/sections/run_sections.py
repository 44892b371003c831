"""Sections of the report on a run: cost, timeline and walkers."""

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from alloop.core.atoms import hill_formula
from alloop.history.measured_costs import cpu_seconds_by_part, worker_utilisation
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    config_value,
    level_title,
)
from alloop.report.analysis.explorations import Explorations, Origin, WalkerMoment
from alloop.report.analysis.label_facts import LabelCost, label_costs
from alloop.report.analysis.level_split import split_sentences
from alloop.report.analysis.refinements import refinement_sentences
from alloop.report.analysis.timeline import (
    axis_length,
    run_spans,
    task_bars,
    worker_lanes,
)
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
from alloop.report.sections.run_figures import (
    cost_figure,
    energy_figure,
    temperature_figure,
    timeline_figures,
)
from alloop.report.sections.svg import MOST_POINTS
from alloop.report.text.formatting import (
    duration_text,
    guard_text,
    number_text,
    plural,
)


def cost_section(history: History) -> Section:
    """Return the section with CPU seconds by part and the cost of labels."""
    name = "Costs"
    parts = cpu_seconds_by_part(history)
    if not sum(parts.values()):
        return Section("cpu", name, missing_note("Nothing has been computed yet."))
    caption = (
        "CPU seconds spent by this campaign, child processes included; labels from a "
        "cache cost nothing. Preparation is relaxing the molecules and the MD that "
        "made the validation set, at the cheap level; noise floor is labels made again."
    )
    body = figure_block(cost_figure(parts), caption) + _label_cost_table(
        history, label_costs(history)
    )
    gained = [*split_sentences(history), *refinement_sentences(history)]
    return Section("cpu", name, body + bullet_list(gained) * bool(gained))


def _label_cost_table(history: History, found: Sequence[LabelCost]) -> Markup:
    if not found:
        return Markup("")
    rows = [
        (
            *(level_title(history, x.fidelity), x.molecule, str(x.labels)),
            *(duration_text(x.each), duration_text(x.most), number_text(x.peak_mb)),
            f"{number_text(x.factor)} (n = {x.predicted})" if x.factor else "–",
        )
        for x in found
    ]
    head = (
        *("level", "molecule", "labels", "CPU each", "at most", "peak memory, MB"),
        "prediction off by a factor of",
    )
    note = (
        "Predictions are those of the cost model in force when the label was asked "
        "for; the factor is a median, 1 is perfect."
    )
    shown = table_html(head, rows, words=2)
    return shown + paragraph(note) if any(x.factor for x in found) else shown


def timeline_section(history: History) -> Section:
    """Return the section on the timeline of tasks and the use of the workers."""
    name = "Timeline"
    found = task_bars(history)
    if not found:
        return Section("timeline", name, missing_note("Nothing has run yet."))
    busy = worker_utilisation(history)
    caption = (
        "A bar is a task on a worker, a gap is waiting: for a round to close, for "
        "training, or for a task to be sent. Pauses of more than a minute between two "
        "runs are cut out. Above it stands where the MD of a round begins, in a bar of "
        "training the number of its generation."
    )
    workers = plural(len(worker_lanes(found)), "worker")
    words = (
        f"{workers} for {duration_text(axis_length(run_spans(found)))}; "
        f"their tasks used {busy or 0.0:.0%} of that CPU time."
    )
    body = figure_block(timeline_figures(found), caption) + paragraph(words)
    return Section("timeline", name, body)


_MOST = 100  # stopped walkers that the page lists, at most


def walker_section(history: History, explored: Explorations) -> Section:
    """Return the section on temperatures, energies and stops of walkers."""
    name = "Walkers"
    if not explored.moments:
        return Section("walkers", name, missing_note("No walker has moved yet."))
    body = paragraph(_overview_text(history, explored)) + _walker_figures(
        history, explored
    )
    return Section("walkers", name, body + _stop_table(history, explored))


def md_timestep(history: History) -> float:
    """Return the time step of the MD in fs; 0.5 where the configuration has none."""
    value = config_value(history, "explore", "timestep")
    return float(value) if isinstance(value, int | float) else 0.5


def _overview_text(history: History, explored: Explorations) -> str:
    moments = explored.moments
    count = len({x.walker for x in moments})
    steps = max(x.step for x in moments)
    stopped = sum(bool(x.stopped) for x in moments)
    longest = 1e-3 * md_timestep(history) * steps
    rounds = plural(len({x.round for x in moments}), "round")
    return (
        f"{plural(count, 'walker')} in {rounds}; the longest walked {steps} steps "
        f"({longest:.3g} ps) without a stop. {_stop_text(stopped)}"
    )


def _stop_text(times: int) -> str:
    if not times:
        return "No guard stopped a walker."
    return (
        f"Guards stopped a walker {plural(times, 'time')}; one that is stopped starts "
        "anew in the next round."
    )


def _walker_figures(history: History, explored: Explorations) -> Text:
    kelvin = config_value(history, "explore", "temperature")
    several = kelvin if isinstance(kelvin, list) else [kelvin]
    baths = [float(x) for x in several if isinstance(x, int | float)]
    step = md_timestep(history)
    drawn = [temperature_figure(explored.moments, baths, step)]
    caption = (
        "Left: a point is a walker at the end of a piece of MD, from its velocities "
        "(centre of mass at rest). Dashed: the thermostats; a band is the spread (one "
        "standard deviation) that so few atoms have at that temperature. Two points "
        "of three should lie in it: a cloud above it is MD that heats up."
    )
    if any(x.energy == x.energy for x in explored.energies):
        atoms = [len(frame) for frame in history.opened.start]
        found = [x for x in explored.energies if x.energy == x.energy]
        drawn.append(energy_figure(found, atoms, step))
        caption += (
            " Right: energies, by the model, of frames that MD brought. The store "
            "keeps no other frames' energies: those drawn at random are a fair "
            "sample, those that surprised are not."
        )
    if max(len(explored.moments), len(explored.energies)) > MOST_POINTS:
        caption += " An even sample of the points is drawn, and all stops."
    return figure_block(drawn, caption)


def _stop_table(history: History, explored: Explorations) -> Text:
    stopped = [x for x in explored.moments if x.stopped]
    if not stopped:
        return Markup("")
    title = heading("Stopped by guards")
    counts = Counter(guard_text(str(x.stopped)) for x in stopped)
    reasons = bullet_list(
        f"{guard}: {plural(n, 'time')}." for guard, n in counts.most_common()
    )
    frames = stop_frames(explored)
    rows = [_stop_row(history, x, frames) for x in stopped[:_MOST]]
    head = (
        *("frame before", "guard", "molecule"),
        *("walker", "round", "generation", "step", "time, ps", "temperature, K"),
    )
    more = len(stopped) - _MOST
    rest = paragraph(f"And {more} more; `alloop log STORE` lists all.")
    shown = title + reasons + table_html(head, rows, words=3)
    return shown + rest if more > 0 else shown


def stop_frames(explored: Explorations) -> dict[tuple[int, int], Origin]:
    """Return the origin of the frame saved before each stop, by round and walker."""
    found = (explored.origins[frame] for frame in explored.stopping)
    return {(origin.round, origin.walker): origin for origin in found}


def _stop_row(
    history: History, at: WalkerMoment, frames: dict[tuple[int, int], Origin]
) -> Sequence[Text]:
    before = frames.get((at.round, at.walker))
    start = history.opened.start
    return (
        frame_link(before.frame) if before else "not kept",
        str(at.stopped),
        hill_formula(start[at.molecule]) if at.molecule < len(start) else "?",
        *map(str, (at.walker, at.round, at.generation, at.step)),
        f"{1e-3 * md_timestep(history) * at.step:.3g}",
        number_text(at.temperature),
    )
