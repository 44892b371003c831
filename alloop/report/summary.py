"""The end of a run in a few lines and one table."""

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alloop.loop.history import History
from alloop.loop.prices import by_part, utilisation
from alloop.report.compare import TITLES, comparisons
from alloop.report.facts import Made, Stand, generations, level, made, title
from alloop.report.fitting import FittingTable
from alloop.report.noise import floors
from alloop.report.words import STAGES, duration, failures, milli, number, plural

_COLUMNS = (
    *("cheap\nlabels", "exp.\nlabels", "forces\nmeV/Å", "RMSE\nmeV/Å"),
    *("energy\nmeV", "flag\nabove", "train\nCPU", "labels\nCPU"),
)
_FIRST_OUT = ("train\nCPU", "flag\nabove", "energy\nmeV", "RMSE\nmeV/Å")
NO_CONTROLS: Mapping[str, History] = {}


def end_table(history: History, controls: Mapping[str, History] = NO_CONTROLS) -> Table:
    """Generations with their labels, test errors and costs; controls below."""
    table = FittingTable(box=SIMPLE_HEAD, padding=0, first_out=_FIRST_OUT)
    table.add_column(str(history.attrs["name"]), no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for stand in generations(history):
        table.add_row(f"generation {stand.generation}", *_row(stand))
    for name, control in controls.items():
        table.add_section()
        for stand in generations(control)[-1:]:
            table.add_row(TITLES.get(name, name), *_row(stand))
    return table


def _row(stand: Stand) -> list[str]:
    return [
        str(stand.cheap),
        str(stand.expensive),
        milli(stand.force_mae),
        milli(stand.force_rmse),
        milli(stand.energy_mae),
        number(stand.threshold),
        duration(stand.cpu_seconds),
        duration(stand.label_cost),
    ]


def end_lines(
    history: History,
    controls: Mapping[str, History] = NO_CONTROLS,
    report: Path | None = None,
) -> list[str]:
    """Labels, money, controls, and where everything lies; a line each."""
    lines = [how_it_stands(history)]
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
    lines = [how_it_stands(history), error_sentence(history)]
    if generations(history):
        lines.append(_learned(history))
    return [*lines, *(each.sentence for each in comparisons(history, controls))]


def how_it_stands(history: History) -> str:
    """Finished and why, or where it is."""
    state, name = history.state, history.attrs["name"]
    rounds = plural(state.round, "round")
    if state.finished:
        return f"{name} finished after {rounds}: {state.finished}."
    if state.broken:
        return f"{name} came to a stop: {state.broken}."
    stage = STAGES.get(state.stage, state.stage)
    open_ = plural(len(state.open), "task")
    return f"{name} is not finished: {stage}, {rounds} begun, {open_} open."


def error_sentence(history: History) -> str:
    """What the last generation is worth."""
    stands = generations(history)
    if not stands:
        return "There is no generation yet."
    last = stands[-1]
    if last.force_mae is None:
        return (
            f"Generation {last.generation} was not tested: there is no test set, so "
            "its error is not known."
        )
    return (
        f"Generation {last.generation} errs by {milli(last.force_mae)} meV/Å in forces "
        f"(MAE; RMSE {milli(last.force_rmse)}) and by {milli(last.energy_mae)} meV in "
        f"energies on {plural(last.test, 'frozen test frame')}."
    )


def _learned(history: History) -> str:
    last = generations(history)[-1]
    lost = sum(each.failed for each in made(history))
    bad = f" {plural(lost, 'label')} failed." if lost else " No label failed."
    cheap = f"{last.cheap} cheap ({title(history, 'cheap')}) and " if last.cheap else ""
    return (
        f"It learned from {cheap}{last.expensive} expensive "
        f"({title(history, 'expensive')}) labels, which cost "
        f"{duration(last.label_cost)} of CPU time.{bad}"
    )


def _labels(history: History, each: Made) -> str:
    budget = "" if each.budget is None else f" of {each.budget}"
    used = "" if each.kind == "test" else f"{each.used}{budget} used, "
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
