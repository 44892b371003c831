"""The end of a run in a few lines and one table."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alloop.core.splits import EXAMINATION
from alloop.loop.history import History
from alloop.loop.prices import LABELS, by_part, utilisation
from alloop.report.compare import TITLES, comparisons
from alloop.report.examination import (
    Examination,
    examination,
    sentences,
    threshold_sentences,
)
from alloop.report.facts import (
    BUDGETED,
    Made,
    Stand,
    best,
    brought_test,
    generations,
    level,
    made,
    set_name,
    title,
)
from alloop.report.fitting import FittingTable
from alloop.report.noise import floors
from alloop.report.phrases import energies
from alloop.report.words import STAGES, duration, failures, milli, plural

_CAPTION = (
    "exam.: final examination, MD on the model; {0}: MAE and RMSE of forces on the "
    "{1} set, and MAE of energies after their mean offset is removed"
)
_FIRST_OUT = ("train\nCPU", "energy\nmeV", "RMSE\nmeV/Å")
NO_CONTROLS: Mapping[str, History] = {}


def end_table(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> Table:
    """Generations with their labels, errors and costs; controls below."""
    short = {"validation": "valid."}.get(set_name(history), set_name(history))
    caption = _CAPTION.format(short, set_name(history))
    table = FittingTable(box=SIMPLE_HEAD, padding=0, first_out=_FIRST_OUT)
    table.caption, table.caption_justify = caption, "left"
    table.add_column(str(history.attrs["name"]), no_wrap=True)
    for column in (
        *("cheap\nlabels", "exp.\nlabels", "exam.\nmeV/Å", f"{short}\nmeV/Å"),
        *("RMSE\nmeV/Å", "energy\nmeV", "train\nCPU", "labels\nCPU"),
    ):
        table.add_column(column, justify="right")
    examined = examination(history)
    for stand in generations(history):
        table.add_row(f"generation {stand.generation}", *_row(stand, examined))
    for name, control in controls.items():
        table.add_section()
        last = best(control)
        if last is not None:
            row = _row(last, examination(control))
            table.add_row(TITLES.get(name, name), *row)
    return table


def _row(stand: Stand, examined: Examination | None) -> list[str]:
    own = examined if examined and examined.generation == stand.generation else None
    return [
        str(stand.cheap),
        str(stand.expensive),
        milli(own.errors.force_mae) if own and own.errors else milli(None),
        milli(stand.force_mae),
        milli(stand.force_rmse),
        milli(stand.energy_mae),
        duration(stand.cpu_seconds),
        duration(stand.label_cost),
    ]


def end_lines(
    history: History,
    controls: Mapping[str, History] = NO_CONTROLS,
    report: Path | None = None,
) -> list[str]:
    """Labels, money, controls, and where everything lies; a line each."""
    lines = [how_it_stands(history), *errors(history)]
    lines += threshold_sentences(history)
    lines += [_labels(history, each) for each in made(history)]
    lines += [found.sentence for found in floors(history)]
    lines += [_money(history)]
    lines += [comparison.sentence for comparison in comparisons(history, controls)]
    lines += [f"store: {history.path}"]
    return lines if report is None else [*lines, f"report: {report}"]


def headline(
    history: History, controls: Mapping[str, History] = NO_CONTROLS
) -> list[str]:
    """The campaign in a few sentences, the bad news among them."""
    lines = [how_it_stands(history), *errors(history)]
    if generations(history):
        lines.append(_learned(history))
    return [*lines, *(each.sentence for each in comparisons(history, controls))]


def errors(history: History) -> list[str]:
    """What the best generation is worth: what leads first, see `Comparison`; then
    whether it is the last one."""
    examined, frozen = list(sentences(history)), [error_sentence(history)]
    found = frozen + examined if brought_test(history) else examined + frozen
    return [*found, *_grown(history)]


def _grown(history: History) -> Iterator[str]:
    """A warning where a later generation is worse than the best one."""
    stands, chosen = generations(history), best(history)
    if chosen is None or chosen.generation == stands[-1].generation:
        return
    last = stands[-1]
    yield (
        f"Generation {chosen.generation}, not the last one, is what `export --model`, "
        f"`md` and `calculator()` take: on the {set_name(history)} set it errs least, "
        f"by {milli(chosen.force_mae)} meV/Å; generation {last.generation}, the last, "
        f"by {milli(last.force_mae)}."
    )


def how_it_stands(history: History) -> str:
    """Finished and why, or where it is."""
    state, name = history.state, history.attrs["name"]
    rounds = plural(state.round, "round")
    if state.broken:
        return f"{name} came to a stop: {state.broken}."
    if state.finished:
        return f"{name} finished after {rounds}: {state.finished}."
    stage = STAGES.get(state.stage, state.stage)
    open_ = plural(len(state.open), "task")
    return f"{name} is not finished: {stage}, {rounds} begun, {open_} open."


def error_sentence(history: History) -> str:
    """What the best generation is worth on the frozen set."""
    chosen = best(history)
    if chosen is None:
        return "There is no generation yet."
    if chosen.force_mae is None:
        return (
            f"Generation {chosen.generation} was not tested on a frozen set: there is "
            "none."
        )
    steers = "" if brought_test(history) else ", by which the campaign was steered"
    return (
        f"Generation {chosen.generation} errs by {milli(chosen.force_mae)} meV/Å in "
        f"forces (MAE; RMSE {milli(chosen.force_rmse)}) and by "
        f"{energies(chosen.energy_mae, chosen.energy_absolute)} in energies on "
        f"{plural(chosen.test, 'frame')} of the frozen {set_name(history)} set{steers}."
    )


def _learned(history: History) -> str:
    chosen = best(history) or generations(history)[-1]
    lost = sum(each.failed for each in made(history))
    bad = f" {plural(lost, 'label')} failed." if lost else " No label failed."
    cheap = (
        f"{chosen.cheap} cheap ({title(history, 'cheap')}) and " if chosen.cheap else ""
    )
    apart = (
        f"; {chosen.heldout} more cheap ones are held out, for its threshold"
        if chosen.heldout
        else ""
    )
    return (
        f"Generation {chosen.generation} learned from {cheap}"
        f"{chosen.expensive} expensive "
        f"({title(history, 'expensive')}) labels{apart}.{bad} {_spent(history)}"
    )


def _spent(history: History) -> str:
    """CPU time of the whole campaign, by what took it."""
    parts = dict(by_part(history))
    total = sum(parts.values())
    if not total:
        return "It cost no CPU time here."
    labels = sum(parts.pop(name, 0.0) for name in LABELS if name != EXAMINATION)
    shares = {"labels": labels, **parts}
    told = [f"{duration(cost)} {name}" for name, cost in shares.items() if cost > 0]
    return f"In all it cost {duration(total)} of CPU time: {', '.join(told)}."


def _labels(history: History, each: Made) -> str:
    budget = "" if each.budget is None else f" of {each.budget}"
    used = f"{each.used}{budget} used, " if each.kind in BUDGETED else ""
    price = f", {duration(each.price)} of CPU time each" if each.price else ""
    counts = {"from a cache": each.cached, "doubtful": each.doubtful}
    among = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    taken = f" ({among})" if among else ""
    lost = f", failed: {failures(each.failures)}" if each.failed else ", none failed"
    name = f"{each.kind} labels ({level(history, each)})"
    return f"{name}: {used}{each.good} good{taken}{price}{lost}"


def _money(history: History) -> str:
    parts = {name: value for name, value in by_part(history).items() if value > 0}
    total = sum(parts.values())
    if not total:
        return "CPU time: none spent yet"
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in parts.items())
    busy = utilisation(history)
    return f"CPU time: {duration(total)}: {shares}{_busy(busy)}"


def _busy(share: float | None) -> str:
    return "" if share is None else f"; the workers were busy {share:.0%} of the time"
