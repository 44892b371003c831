"""The summary of a run: a few lines, and all details with a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alloop.history.acceptance import unaccepted_sentence
from alloop.history.measured_costs import (
    cpu_seconds_by_part,
    worker_utilisation,
)
from alloop.history.reader import History
from alloop.report.analysis.acceptance_facts import set_sentences
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    best_generation,
    generation_facts,
    supplied_validation,
)
from alloop.report.analysis.comparison import TITLES, compare_controls
from alloop.report.analysis.examination import (
    Examination,
    examination_sentences,
    last_examination,
)
from alloop.report.analysis.label_facts import (
    BUDGETED,
    LabelTotals,
    label_totals,
    level_name,
)
from alloop.report.analysis.label_quality import noise_floors
from alloop.report.analysis.level_split import split_sentences
from alloop.report.analysis.limit_coverage import calibration_sentences
from alloop.report.analysis.outcome import outcome_facts
from alloop.report.analysis.refinements import refinement_sentences
from alloop.report.text.event_text import energy_errors_text
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import (
    STAGES,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)

_CAPTION = (
    "exam.: examination, MD on the model; valid.: MAE and RMSE of forces on the "
    "validation set, and MAE of energies after their mean offset is removed"
)
_FIRST_OUT = ("train\nCPU", "energy\nmeV", "RMSE\nmeV/Å")
NO_CONTROLS: Mapping[str, History] = {}


def end_table(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> Table:
    """Return the generations with labels, errors and costs, controls below."""
    table = FittingTable(box=SIMPLE_HEAD, padding=0, first_out=_FIRST_OUT)
    table.caption, table.caption_justify = _CAPTION, "left"
    table.add_column(str(history.attrs["name"]), no_wrap=True)
    for column in (
        *("cheap\nlabels", "exp.\nlabels", "exam.\nmeV/Å", "valid.\nmeV/Å"),
        *("RMSE\nmeV/Å", "energy\nmeV", "train\nCPU", "labels\nCPU"),
    ):
        table.add_column(column, justify="right")
    examined = last_examination(history)
    for facts in generation_facts(history):
        table.add_row(facts.title, *_table_row(facts, examined))
    for name, control in controls.items():
        table.add_section()
        last = best_generation(control)
        if last is not None:
            row = _table_row(last, last_examination(control))
            table.add_row(TITLES.get(name, name), *row)
    return table


def _table_row(facts: GenerationFacts, examined: Examination | None) -> list[str]:
    own = examined if examined and examined.generation == facts.generation else None
    return [
        str(facts.cheap),
        str(facts.expensive),
        milli_text(own.errors.force_mae) if own and own.errors else milli_text(None),
        milli_text(facts.force_mae),
        milli_text(facts.force_rmse),
        milli_text(facts.energy_mae),
        duration_text(facts.cpu_seconds),
        duration_text(facts.label_cost),
    ]


def end_lines(
    history: History,
    controls: Mapping[str, History] = NO_CONTROLS,
    report: Path | None = None,
) -> list[str]:
    """Return what a campaign reached in about five lines, and where to read more."""
    facts = outcome_facts(history, controls)
    lines = [stage_sentence(history)]
    lines += [f"{name + ':':<10}{fact}" for name, fact in facts.items()]
    lines += [f"{'note:':<10}{text}" for text in warning_sentences(history)]
    more = f"`alloop status {quote(str(history.path))} --all` tells the rest"
    place = ("store:", history.path) if report is None else ("report:", report)
    return [*lines, f"{place[0]:<10}{place[1]}; {more}"]


def detail_lines(
    history: History, controls: Mapping[str, History] = NO_CONTROLS
) -> list[str]:
    """Return errors, thresholds, labels, costs and controls in full, as sentences."""
    lines = [stage_sentence(history), *error_sentences(history)]
    lines += calibration_sentences(history)
    lines += [_label_sentence(history, each) for each in label_totals(history)]
    lines += [*split_sentences(history), *refinement_sentences(history)]
    lines += [found.sentence for found in noise_floors(history)]
    lines += [_cost_sentence(history)]
    return [*lines, *(found.sentence for found in compare_controls(history, controls))]


def error_sentences(history: History) -> list[str]:
    """Return the errors of the best generation, in sentences.

    The errors on the leading frames come first, see `ControlComparison`; a warning
    follows if the best generation is not the last one.
    """
    found = [*examination_sentences(history), error_sentence(history)]
    if supplied_validation(history):
        found = [found[-1], *found[:-1]]
    return [*found, *set_sentences(history), *warning_sentences(history)]


def warning_sentences(history: History) -> list[str]:
    """Return warnings of generations that failed checks or got worse, in sentences."""
    unaccepted = unaccepted_sentence(history.state)
    told = [] if unaccepted is None else [unaccepted]
    return [*told, *_later_generation_warning(history)]


def _later_generation_warning(history: History) -> Iterator[str]:
    """Yield a warning where a later generation is worse than the best one."""
    generations, chosen = generation_facts(history), best_generation(history)
    if chosen is None or chosen.generation == generations[-1].generation:
        return
    if not history.state.generations.accepted:
        return
    last = generations[-1]
    yield (
        "`export --model`, `md` and `calculator()` use "
        f"generation {chosen.generation}, which has the smallest error on "
        f"the validation set "
        f"({milli_text(chosen.force_mae)} meV/Å), and not the last one, generation "
        f"{last.generation} ({milli_text(last.force_mae)})."
    )


def stage_sentence(history: History) -> str:
    """Return the reason for the end of a campaign, or its current stage."""
    state, name = history.state, history.attrs["name"]
    rounds = plural(state.exploration.round, "round")
    if state.broken:
        return f"{name} stopped early: {state.broken}."
    if state.finished:
        return f"{name} finished after {rounds}: {state.finished}."
    stage = STAGES.get(state.stage, state.stage)
    open_ = plural(len(state.open), "task")
    return f"{name} is not finished: {stage}, {rounds} begun, {open_} open."


def error_sentence(history: History) -> str:
    """Return the error of the best generation on the validation set, as a sentence."""
    chosen = best_generation(history)
    if chosen is None:
        return "There is no generation yet."
    if chosen.force_mae is None:
        return (
            f"Generation {chosen.generation} was not tested on a validation set: there "
            "is none."
        )
    return (
        f"Generation {chosen.generation} errs by {milli_text(chosen.force_mae)} "
        "meV/Å in "
        f"forces (MAE; RMSE {milli_text(chosen.force_rmse)}) and by "
        f"{energy_errors_text(chosen.energy_mae, chosen.energy_absolute)} in energies "
        f"on {plural(chosen.test, 'frame')} of the validation set, "
        "by which the campaign was steered."
    )


def _label_sentence(history: History, each: LabelTotals) -> str:
    budget = "" if each.budget is None else f" of {each.budget}"
    used = f"{each.used}{budget} used, " if each.kind in BUDGETED else ""
    price = f", {duration_text(each.price)} of CPU time each" if each.price else ""
    counts = {"from a cache": each.cached, "doubtful": each.doubtful}
    among = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    taken = f" ({among})" if among else ""
    lost = (
        f", failed: {failure_counts(each.failures)}" if each.failed else ", none failed"
    )
    name = f"{each.kind} labels ({level_name(history, each)})"
    return f"{name}: {used}{each.good} good{taken}{price}{lost}"


def _cost_sentence(history: History) -> str:
    parts = {
        name: value for name, value in cpu_seconds_by_part(history).items() if value > 0
    }
    total = sum(parts.values())
    if not total:
        return "CPU time: none spent yet"
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in parts.items())
    busy = worker_utilisation(history)
    return f"CPU time: {duration_text(total)}: {shares}{_busy_text(busy)}"


def _busy_text(share: float | None) -> str:
    return "" if share is None else f"; the workers were busy {share:.0%} of the time"
