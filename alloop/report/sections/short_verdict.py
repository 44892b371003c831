"""The top of the report: errors, weaknesses, failures and cost in short."""

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.comparison import TITLES, compare_controls
from alloop.report.analysis.error_groups import ErrorGroups, GroupError, error_groups
from alloop.report.analysis.examination import examination_sentences
from alloop.report.analysis.label_quality import label_qualities
from alloop.report.analysis.summary_facts import (
    GenerationFacts,
    best,
    brought_test,
    config_value,
    label_tallies,
    level_title,
    set_name,
)
from alloop.report.sections.markup import Text, frame_link
from alloop.report.text.event_text import energies
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)


def short_verdict(
    history: History, controls: Mapping[str, History]
) -> Iterator[tuple[str, Text]]:
    """Yield names and texts, one line each."""
    yield "Error", _error(history)
    found = error_groups(history)
    if found is not None:
        yield "Weakest", _weakest(found)
    yield "Doubts", _doubts(history)
    yield "Failures", _failures(history)
    judged = [_judged(history, name, each) for name, each in controls.items()]
    if any(judged):
        told = and_list(filter(None, judged))
        yield "Controls", f"{told[0].upper()}{told[1:]}."
    yield "Cost", _cost(history)


def tested_on_text(history: History) -> str:
    """Return the origin of the test frames, in words."""
    if brought_test(history):
        return "brought by the user"
    if not any(x.kind == e.Sampled.__name__ for x in history.chronicle.deeds):
        return "of unknown origin"
    kelvin = config_value(history, "test", "temperature")
    warm = f" at {kelvin:g} K" if isinstance(kelvin, int | float) else ""
    return f"of MD at the cheap level ({level_title(history, 'cheap')}){warm}"


def _error(history: History) -> str:
    last, examined = best(history), list(examination_sentences(history))
    if last is None:
        return "Not known: there is no generation yet."
    found = [*examined, _frozen(history, last)]
    return " ".join(found[::-1] if brought_test(history) else found)


def _frozen(history: History, last: GenerationFacts) -> str:
    if last.force_mae is None:
        return (
            f"Not known on a frozen set: generation {last.generation} was not tested, "
            "since there is none."
        )
    return (
        f"Forces {milli_text(last.force_mae)} meV/Å (MAE; RMSE "
        f"{milli_text(last.force_rmse)}), "
        f"energies {energies(last.energy_mae, last.energy_absolute)}, "
        f"against {level_title(history, 'expensive')} on n = "
        f"{plural(last.test, 'frame')} "
        f"{tested_on_text(history)} (the {set_name(history)} set), by "
        f"generation {last.generation}."
    )


def _weakest(found: ErrorGroups) -> Text:
    worst = [
        _worst(kind)
        for kind in (found.molecules, found.elements)
        if len(kind) > 1  # a single one cannot be the worst
    ]
    frame = max(found.molecules, key=lambda x: x.largest)
    link = Markup("{} meV/Å on one atom of frame {}").format(
        milli_text(frame.largest), frame_link(frame.worst)
    )
    return Markup("; ").join([*worst, link]) + f", in {found.where}."


def _worst(kind: tuple[GroupError, ...]) -> str:
    return f"{kind[0].name}, {milli_text(kind[0].mae)} meV/Å (n = {kind[0].count})"


def _doubts(history: History) -> str:
    told = [
        f"{plural(len(frames), f'{each.fidelity} label')} {doubt}"
        for each in label_qualities(history)
        for doubt, frames in each.doubts.items()
    ]
    return "; ".join(told) + "." if told else "No label is in doubt."


def _failures(history: History) -> str:
    lost = [each for each in label_tallies(history) if each.failed]
    told = (
        f"{each.failed} of {each.good + each.failed} {each.kind} labels "
        f"({failure_counts(each.failures)})"
        for each in lost
    )
    return f"{and_list(told)}." if lost else "No label failed."


def _judged(history: History, name: str, control: History) -> str:
    who = TITLES.get(name, name)
    found = compare_controls(history, {name: control})
    if not found:
        return ""
    (each,) = found
    verb = "better than" if each.gain > 0 else "worse than"
    doubt = "" if each.certain else ", within the noise"
    lead = each.duels[0]
    errors = (
        f"{milli_text(lead.ours)} against {milli_text(lead.theirs)} meV/Å on "
        f"{lead.where}"
    )
    return f"{verb} {who} at equal label cost ({errors}{doubt})"


def _cost(history: History) -> str:
    parts = {
        part: spent for part, spent in cpu_seconds_by_part(history).items() if spent > 0
    }
    if not parts:
        return "Nothing has been computed yet."
    total = sum(parts.values())
    said = and_list(f"{part} {duration_text(spent)}" for part, spent in parts.items())
    return f"{total:.4g} CPU seconds ({duration_text(total)}): {said}."
