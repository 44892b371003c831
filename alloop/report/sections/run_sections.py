"""Sections of the report on a run, with their figures: cost, timeline and walkers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isnan

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.atoms import hill_formula
from alloop.core.levels import FIDELITIES
from alloop.history.measured_costs import cpu_seconds_by_part, worker_utilisation
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    config_number,
    config_value,
    level_title,
    refinement_sentences,
    split_sentences,
)
from alloop.report.analysis.explorations import (
    EXPLORERS,
    Explorations,
    Origin,
    WalkerEnergy,
    WalkerMoment,
    explorer_yields,
)
from alloop.report.analysis.label_facts import LabelCost, label_costs
from alloop.report.analysis.timeline import (
    RunSpan,
    TaskBar,
    WorkerLane,
    axis_length,
    axis_position,
    round_starts,
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
    remainder_note,
    table_html,
    wide_or_narrow,
)
from alloop.report.sections.svg import (
    COLOURS,
    INK,
    MOST_POINTS,
    PANEL,
    WIDE,
    Marks,
    add_points,
    draw_legend,
    draw_svg,
    spread_numbers,
    thinning_step,
)
from alloop.report.text.formatting import (
    duration_text,
    guard_text,
    milli_text,
    number_text,
    plural,
)

_PARTS = {
    "cheap labels": "cheap",
    "expensive labels": "expensive",
    "validation set": "test",
    "examination": "examination",
    "training": "training",
    "MD": "MD",
    "noise floor": "noise",
    "preparation": "preparation",
}


def cost_figure(parts: Mapping[str, float]) -> Markup:
    """Draw the CPU seconds by part."""
    shown = {name: value for name, value in parts.items() if value > 0}
    total = sum(shown.values())

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        names = list(shown)[::-1]
        values = [shown[name] for name in names]
        colours = [COLOURS[_PARTS.get(name, "preparation")] for name in names]
        bars = ax.barh(names, values, color=colours, height=0.62)
        notes = [f"{duration_text(value)} · {value / total:.0%}" for value in values]
        ax.bar_label(bars, labels=notes, padding=5)
        ax.set_xlim(0.0, 1.45 * max(values))
        ax.set_xlabel("CPU time, s")
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)

    about = "CPU seconds by part of the campaign"
    return draw_svg("spending", about, 0.6 + 0.3 * len(shown), paint)


def timeline_figures(bars: Sequence[TaskBar]) -> list[Markup]:
    """Draw the tasks of each worker over time, without pauses between runs.

    There are two drawings, a wide one for pages and a narrow one for phones.
    """
    return wide_or_narrow(_draw_timeline(bars, WIDE, 7), _draw_timeline(bars, PANEL, 3))


def _draw_timeline(bars: Sequence[TaskBar], width: float, columns: int) -> Markup:
    runs = run_spans(bars)
    rows = worker_lanes(bars)

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        for lane in rows:
            _draw_lane(ax, lane, runs)
        _draw_rounds(ax, bars, runs)
        _draw_clock(ax, runs)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)), [lane.worker for lane in rows])
        ax.grid(visible=False, axis="y")
        ax.margins(x=0.01)
        handles = {bar.part for bar in bars}
        for part in (x for x in _PARTS if x in handles):
            ax.barh([0], [0], color=COLOURS[_PARTS[part]], label=part)
        draw_legend(ax, ncols=columns, handlelength=0.9, columnspacing=1.2)

    about = "What ran when on each worker"
    height = 1.0 + 0.3 * min(len(rows), 24) + 0.4 * (width < WIDE)
    return draw_svg(f"gantt-{columns}", about, height, paint, width=width)


def _draw_lane(axes: Axes, lane: WorkerLane, runs: Sequence[RunSpan]) -> None:
    for part, spans in lane.spans(runs).items():
        colour = COLOURS[_PARTS.get(part, "preparation")]
        axes.broken_barh(spans, (lane.row - 0.36, 0.72), color=colour, linewidth=0.0)
    for bar in lane.bars:
        if bar.part == "training":
            middle = (
                axis_position(bar.started, runs) + axis_position(bar.ended, runs)
            ) / 2
            number = axes.text(middle, lane.row, str(bar.number), color="white")
            number.set(ha="center", va="center", clip_on=True)


def _draw_rounds(axes: Axes, bars: Sequence[TaskBar], runs: Sequence[RunSpan]) -> None:
    begun = round_starts(bars)
    numbers = spread_numbers(sorted(begun))
    ticks = [axis_position(begun[number], runs) for number in numbers]
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [f"round {number}" for number in numbers])
    above.tick_params(labelsize="x-small", length=3)


def _draw_clock(axes: Axes, runs: Sequence[RunSpan]) -> None:
    for run in runs[1:]:
        axes.axvline(run.at, color=INK, linewidth=1.0, dashes=(1, 2))
        axes.annotate(
            f" paused {run.paused}",
            (run.at, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(1, 3),
            textcoords="offset points",
        )
    axes.set_xlabel("wall time of the runs, s")


def temperature_figure(
    moments: Sequence[WalkerMoment], baths: Sequence[float], timestep: float
) -> Markup:
    """Draw the kinetic temperature of each walker at the end of each piece of MD.

    baths: temperatures of the thermostats in K, drawn with the spread that they allow;
    timestep in fs.
    """
    picks = moments[:: thinning_step(moments)]

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        for bath in baths:
            spread = bath * np.sqrt(2.0 / max(1, 3 * max(x.atoms for x in moments) - 3))
            ax.axhspan(bath - spread, bath + spread, color=COLOURS["cheap"], alpha=0.12)
            ax.axhline(bath, color=INK, linewidth=1.0, dashes=(4, 3))
        walking = [x for x in picks if not x.stopped]
        stopped = [x for x in moments if x.stopped and np.isfinite(x.temperature)]
        marks = [
            _walker_marks(
                axes=ax,
                moments=walking,
                timestep=timestep,
                name="walking",
                shape="small",
                colour=COLOURS["expensive"],
            ),
            _walker_marks(
                axes=ax,
                moments=stopped,
                timestep=timestep,
                name="stopped by a guard",
                shape="diamond",
                colour=COLOURS["warn"],
            ),
        ]
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("time walked, ps")
        ax.set_ylabel("kinetic temperature, K")
        draw_legend(ax)
        return marks

    return draw_svg("temperature", "Kinetic temperature of the walkers", 3.0, paint)


def _picoseconds(step: int, timestep: float) -> float:
    return 1e-3 * timestep * step


def _walker_marks(
    axes: Axes,
    moments: Sequence[WalkerMoment],
    timestep: float,
    name: str,
    shape: str,
    colour: str,
) -> Marks:
    return add_points(
        Marks(
            axes=axes,
            x=np.array([_picoseconds(x.step, timestep) for x in moments]),
            y=np.array([x.temperature for x in moments]),
            colour=colour,
            shape=shape,
            label=f"{name} ({len(moments)})" if moments else "",
        ),
    )


def energy_figure(
    energies: Sequence[WalkerEnergy], atoms: Sequence[int], timestep: float
) -> Markup:
    """Draw the model's energies per atom of the frames that MD returned.

    They are relative to the lowest of the same molecule and generation; atoms: number
    in each molecule; timestep in fs.
    """
    lowest: dict[tuple[int, int], float] = {}
    for x in energies:
        key = (x.molecule, x.generation)
        lowest[key] = min(x.energy, lowest.get(key, x.energy))

    def paint(axes: list[Axes]) -> list[Marks]:
        (ax,) = axes
        marks = add_walker_frames(ax, energies, timestep, height)
        ax.set_ylim(bottom=0.0)
        ax.set_ylabel("energy above lowest, meV/atom")
        return marks

    def height(x: WalkerEnergy) -> float:
        above = x.energy - lowest[x.molecule, x.generation]
        return 1e3 * above / atoms[x.molecule]

    return draw_svg("energies", "Energies of the frames that MD brought", 3.0, paint)


def add_walker_frames(
    ax: Axes,
    energies: Sequence[WalkerEnergy],
    timestep: float,
    height: Callable[[WalkerEnergy], float],
) -> list[Marks]:
    """Draw frames that MD returned against the time that their walkers moved, in ps.

    Those drawn at random have another mark. timestep in fs; height: of a frame.
    """
    marks = []
    kinds = {False: ("most surprising", "small", COLOURS["training"])}
    kinds |= {True: ("drawn at random", "diamond", COLOURS["cheap"])}
    for random, (name, shape, colour) in kinds.items():
        chosen = [x for x in energies if x.random is random]
        chosen = chosen[:: thinning_step(chosen)]
        label = f"{name} ({len(chosen)})" if chosen else ""
        times = np.array([_picoseconds(x.step, timestep) for x in chosen])
        y = np.array([height(x) for x in chosen])
        marks.append(
            add_points(
                Marks(axes=ax, x=times, y=y, colour=colour, shape=shape, label=label),
            )
        )
    ax.set_xlabel("time walked, ps")
    draw_legend(ax)
    return marks


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
    body = figure_block(cost_figure(parts), caption)
    body += _label_cost_table(history, label_costs(history))
    gained = [*split_sentences(history), *refinement_sentences(history)]
    return Section("cpu", name, body + bullet_list(gained) * bool(gained))


def _label_cost_table(history: History, costs: Sequence[LabelCost]) -> Markup:
    if not costs:
        return Markup("")
    rows = [
        (
            *(level_title(history, x.fidelity), x.molecule, str(x.labels)),
            *(duration_text(x.mean), duration_text(x.largest), number_text(x.peak_mb)),
            f"{number_text(x.factor)} (n = {x.predicted})" if x.factor else "–",
        )
        for x in costs
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
    return shown + paragraph(note) if any(x.factor for x in costs) else shown


def timeline_section(history: History) -> Section:
    """Return the section on the timeline of tasks and the use of the workers."""
    name = "Timeline"
    bars = task_bars(history)
    if not bars:
        return Section("timeline", name, missing_note("Nothing has run yet."))
    busy = worker_utilisation(history)
    caption = (
        "A bar is a task on a worker, a gap is waiting: for a round to close, for "
        "training, or for a task to be sent. Pauses of more than a minute between two "
        "runs are cut out. Above it stands where the MD of a round begins, in a bar of "
        "training the number of its generation."
    )
    workers = plural(len(worker_lanes(bars)), "worker")
    words = (
        f"{workers} for {duration_text(axis_length(run_spans(bars)))}; "
        f"their tasks used {busy or 0.0:.0%} of that CPU time."
    )
    body = figure_block(timeline_figures(bars), caption) + paragraph(words)
    return Section("timeline", name, body)


_MOST_STOPS = 100  # stopped walkers that the page lists, at most


def walker_section(history: History, explored: Explorations) -> Section:
    """Return the section on temperatures, energies and stops of walkers."""
    name = "Walkers"
    if not explored.moments:
        return Section("walkers", name, missing_note("No walker has moved yet."))
    body = paragraph(_overview_text(history, explored))
    body += _walker_figures(history, explored) + _explorer_table(history, explored)
    body += _stop_table(history, explored)
    return Section("walkers", name, body)


def md_timestep(history: History) -> float:
    """Return the time step of the MD in fs; 0.5 where the configuration has none."""
    timestep = config_number(history, "explore", "timestep")
    return 0.5 if timestep is None else timestep


def _overview_text(history: History, explored: Explorations) -> str:
    moments = explored.moments
    count = len({x.walker for x in moments})
    steps = max(x.step for x in moments)
    stopped = sum(bool(x.stopped) for x in moments)
    longest = _picoseconds(steps, md_timestep(history))
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


def _walker_figures(history: History, explored: Explorations) -> Markup:
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
    energies = [x for x in explored.energies if not isnan(x.energy)]
    if energies:
        atoms = [len(frame) for frame in history.opened.start]
        drawn.append(energy_figure(energies, atoms, step))
        caption += (
            " Right: energies, by the model, of frames that MD brought. The store "
            "keeps no other frames' energies: those drawn at random are a fair "
            "sample, those that surprised are not."
        )
    if max(len(explored.moments), len(explored.energies)) > MOST_POINTS:
        caption += " An even sample of the points is drawn, and all stops."
    return figure_block(drawn, caption)


def _explorer_table(history: History, explored: Explorations) -> Markup:
    """Return what each explorer brought; empty where MD alone proposed frames."""
    yields = explorer_yields(history, explored)
    if {x.explorer for x in yields} <= {"md"}:
        return Markup("")
    text = (
        "What each explorer brought, without control frames: the error is the median "
        "over frames, of the model which proposed them, before they were labelled."
    )
    head = ["explorer", "scored", "cheap labels", "error, meV/Å"]
    head += ["expensive labels", "error, meV/Å", "labels, CPU s"]
    rows = [
        [
            EXPLORERS[x.explorer],
            str(x.scored),
            *(
                cell
                for fidelity in FIDELITIES
                for cell in (str(x.labels[fidelity]), milli_text(x.errors[fidelity]))
            ),
            f"{x.seconds:.3g}",
        ]
        for x in yields
    ]
    return paragraph(text) + table_html(head, rows) + _path_sentence(history)


def _path_sentence(history: History) -> Markup:
    """Return how far the reaction paths are, empty without any."""
    paths = history.state.exploration.all_paths
    if not paths:
        return Markup("")
    text = f"The last round knew {plural(len(paths), 'reaction path')}."
    errors = [abs(path.error) for path in paths if path.error is not None]
    if errors:
        low, high = milli_text(min(errors)), milli_text(max(errors))
        text += (
            f" At the tops of {len(errors)} the model's energy was {low} to {high} meV "
            "off the expensive label; `alloop paths` shows them on the best model."
        )
    return paragraph(text)


def _stop_table(history: History, explored: Explorations) -> Markup:
    stopped = [x for x in explored.moments if x.stopped]
    if not stopped:
        return Markup("")
    title = heading("Stopped by guards")
    counts = Counter(guard_text(str(x.stopped)) for x in stopped)
    reasons = bullet_list(
        f"{guard}: {plural(n, 'time')}." for guard, n in counts.most_common()
    )
    frames = stop_frames(explored)
    rows = [_stop_row(history, x, frames) for x in stopped[:_MOST_STOPS]]
    head = (
        *("frame before", "guard", "molecule"),
        *("walker", "round", "generation", "step", "time, ps", "temperature, K"),
    )
    rest = remainder_note(len(stopped), _MOST_STOPS)
    return title + reasons + table_html(head, rows, words=3) + rest


def stop_frames(explored: Explorations) -> dict[tuple[int, int], Origin]:
    """Return the origin of the frame saved before each stop, by round and walker."""
    origins = (explored.origins[frame] for frame in explored.stopping)
    return {(origin.round, origin.walker): origin for origin in origins}


def _stop_row(
    history: History, moment: WalkerMoment, frames: dict[tuple[int, int], Origin]
) -> Sequence[Text]:
    before = frames.get((moment.round, moment.walker))
    start = history.opened.start
    return (
        frame_link(before.frame) if before else "not kept",
        str(moment.stopped),
        hill_formula(start[moment.molecule]) if moment.molecule < len(start) else "?",
        *map(str, (moment.walker, moment.round, moment.generation, moment.step)),
        f"{_picoseconds(moment.step, md_timestep(history)):.3g}",
        number_text(moment.temperature),
    )
