"""The MD sections of the report: state of the walkers, and the map of descriptors."""

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from alloop.core.atoms import hill_formula
from alloop.history.reader import History
from alloop.report.analysis.descriptor_map import DescriptorMap
from alloop.report.analysis.explorations import Explorations, Origin, WalkerMoment
from alloop.report.analysis.summary_facts import config_value
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
from alloop.report.text.formatting import number_text, plural

_MOST = 100  # stopped walkers that the page lists, at most
_GUARDS = {
    "not finite": "a position, velocity or force was no number",
    "force": "a force grew beyond the limit",
    "contact": "two atoms came too close",
    "bond": "a bond of the start was stretched too far",
    "temperature": "it grew too hot",
    "surprise ceiling": "its surprise went through the ceiling",
}


def walker_section(history: History, brought: Explorations) -> Section:
    """Return the section on temperatures, energies and stops of walkers."""
    name = "Walkers"
    if not brought.moments:
        return Section("walkers", name, missing_note("No walker has moved yet."))
    body = paragraph(_overview(history, brought)) + _figures(history, brought)
    return Section("walkers", name, body + _stops(history, brought))


def md_timestep(history: History) -> float:
    """Return the time step of the MD in fs; 0.5 where the configuration has none."""
    told = config_value(history, "explore", "timestep")
    return float(told) if isinstance(told, int | float) else 0.5


def _overview(history: History, brought: Explorations) -> str:
    moments = brought.moments
    count = len({x.walker for x in moments})
    steps = max(x.step for x in moments)
    stopped = sum(bool(x.stopped) for x in moments)
    longest = 1e-3 * md_timestep(history) * steps
    rounds = plural(len({x.round for x in moments}), "round")
    return (
        f"{plural(count, 'walker')} in {rounds}; the longest walked {steps} steps "
        f"({longest:.3g} ps) without a stop. {_stopped(stopped)}"
    )


def _stopped(times: int) -> str:
    if not times:
        return "No guard stopped a walker."
    return (
        f"Guards stopped a walker {plural(times, 'time')}; one that is stopped starts "
        "anew in the next round."
    )


def _figures(history: History, brought: Explorations) -> Text:
    kelvin = config_value(history, "explore", "temperature")
    bath = float(kelvin) if isinstance(kelvin, int | float) else None
    step = md_timestep(history)
    drawn = [figures.temperatures(brought.moments, bath, step)]
    how = (
        "Left: a point is a walker at the end of a piece of MD, from its velocities "
        "(centre of mass at rest). Dashed: the thermostat; the band is the spread (one "
        "standard deviation) that so few atoms have at that temperature. Two points "
        "of three should lie in it: a cloud above it is MD that heats up."
    )
    if any(x.energy == x.energy for x in brought.energies):
        atoms = [len(frame) for frame in history.opened.start]
        found = [x for x in brought.energies if x.energy == x.energy]
        drawn.append(figures.energies(found, atoms, step))
        how += (
            " Right: energies, by the model, of frames that MD brought. The store "
            "keeps no other frames' energies: those drawn at random are a fair "
            "sample, those that surprised are not."
        )
    if max(len(brought.moments), len(brought.energies)) > figures.MOST:
        how += " An even sample of the points is drawn, and all stops."
    return figure_block(drawn, how)


def _stops(history: History, brought: Explorations) -> Text:
    stopped = [x for x in brought.moments if x.stopped]
    if not stopped:
        return Markup("")
    title = heading("Stopped by guards")
    counts = Counter(str(x.stopped) for x in stopped)
    said = bullet_list(
        f"{guard}: {plural(n, 'time')}; {_GUARDS.get(guard, 'it could not go on')}."
        for guard, n in counts.most_common()
    )
    frames = stop_frames(brought)
    rows = [_stop(history, x, frames) for x in stopped[:_MOST]]
    head = (
        *("frame before", "guard", "molecule"),
        *("walker", "round", "generation", "step", "time, ps", "temperature, K"),
    )
    more = len(stopped) - _MOST
    rest = paragraph(f"And {more} more; `alloop log STORE` tells all.")
    shown = title + said + table_html(head, rows, words=3)
    return shown + rest if more > 0 else shown


def stop_frames(brought: Explorations) -> dict[tuple[int, int], Origin]:
    """Return the origin of the frame saved before each stop, by round and walker."""
    found = (brought.origins[frame] for frame in brought.stopping)
    return {(origin.round, origin.walker): origin for origin in found}


def _stop(
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


def descriptor_section(found: DescriptorMap | None) -> Section:
    """Return the section with the map of descriptors."""
    name = "Map of descriptors"
    if found is None:
        why = (
            "Nothing to draw: there is no generation yet, or neither the store nor "
            "its models hold descriptors."
        )
        return Section("map", name, missing_note(why))
    how = (
        f"Each point is a frame: its descriptors by generation {found.generation}, "
        "averaged over its atoms, in the plane in which they differ most (principal "
        "components). Neighbours look alike to the model. Flagged frames should lie "
        "at the rim of the first labels, the test set should cover what it is to "
        "judge: test frames far from all others, or regions without any, are where "
        "the error is not known."
    )
    if not found.complete:
        how += (
            " The model could not be opened here: drawn are the frames that it "
            "proposed, as the journal describes them; it holds no others."
        )
    if len(found.frames) < found.of:
        how += f" {len(found.frames)} of {found.of} frames are drawn, evenly."
    return Section("map", name, figure_block(figures.descriptor_map(found), how))
