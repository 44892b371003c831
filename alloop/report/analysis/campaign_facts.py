"""Configuration, levels and generations, from the journal alone.

Facts on each generation, and sentences on what labels gained: errors on the user's own
sets, the split of the money between the levels, and refinements.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import exp
from statistics import median
from typing import Any

import yaml

from alloop.config.yaml_text import rename_old_keys
from alloop.core.errors import DamagedError
from alloop.core.levels import Fidelity, gives_forces
from alloop.core.records import Refinement
from alloop.core.seeds import VALIDATION
from alloop.history.label_entries import label_entries
from alloop.history.measured_costs import is_learned
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry, TrainingRequest
from alloop.loop import events as e
from alloop.loop.commands import Train
from alloop.loop.level_gains import LevelGains, Measured, level_gains
from alloop.loop.level_split import (
    FLOOR,
    alone_is_better,
    cheap_is_idle,
    cheap_share,
    expensive_is_idle,
)
from alloop.report.text.formatting import milli_text, plural


@dataclass(frozen=True, slots=True)
class GenerationFacts:
    """The labels and costs of a generation, and its errors on the validation set.

    Errors are in eV and eV/Å, None without a validation set; those of forces are NaN at
    an expensive level without forces, and `error` is the one that decides. heldout:
    further cheap labels, which calibrate its surprise. energy_mae: after the mean
    difference is removed; energy_absolute: with it, None where unknown. label_cost: CPU
    seconds of all labels so far, failures included, whoever paid for them; the
    validation set is left out, and so are cheap labels where the generation learned
    from none.
    refinement: of the generation before, where it was refined rather than trained.
    """

    generation: int
    cheap: int
    expensive: int
    label_cost: float
    cpu_seconds: float
    threshold: float | None
    force_mae: float | None
    force_rmse: float | None
    energy_mae: float | None
    error: float | None
    test: int
    heldout: int = 0
    energy_absolute: float | None = None
    refinement: Refinement | None = None

    @property
    def title(self) -> str:
        """A short name for tables: `generation 2`, `generation 3, refined`."""
        refined = "" if self.refinement is None else ", refined"
        return f"generation {self.generation}{refined}"


def has_forces(history: History) -> bool:
    """Return False where the expensive level gives energies alone."""
    level = history.attrs.get("levels", {}).get("expensive", {})
    return gives_forces(level.get("settings", {}))


def error_unit(history: History) -> str:
    """Return the unit of the errors that decide, in thousandths: meV/Å, or meV."""
    return "meV/Å" if has_forces(history) else "meV"


def level_title(history: History, fidelity: Fidelity) -> str:
    """Return the level's readable name, such as `HF/STO-3G`."""
    level = history.attrs.get("levels", {}).get(fidelity, {})
    return str(level.get("title") or fidelity)


def config_value(history: History, *path: str) -> Any:
    """Return a value of the configuration in force, None where it is not there."""
    tree = _config_tree(history.config)
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@lru_cache(maxsize=8)
def _config_tree(config: str) -> Any:
    try:
        tree = yaml.safe_load(config)
    except yaml.YAMLError:
        return None
    return rename_old_keys(tree, "") if isinstance(tree, dict) else tree


def is_single(history: History) -> bool:
    """Return True if the campaign never asked for a cheap label."""
    return not any(x.fidelity == "cheap" for x in history.state.labels.entries())


def config_number(history: History, *path: str) -> float | None:
    """Return a number of the configuration in force, None where there is none."""
    value = config_value(history, *path)
    return float(value) if isinstance(value, int | float) else None


def config_integer(history: History, *path: str) -> int | None:
    """Return a number of the configuration as an integer, None where there is none."""
    number = config_number(history, *path)
    return None if number is None else int(number)


def generation_facts(history: History) -> tuple[GenerationFacts, ...]:
    """Return the facts of all generations, in order."""
    requests = {training.name: training for training in history.record_index.trainings}
    for seq, event in history.generations:
        if event.name not in requests:
            raise DamagedError(
                f"record {seq} of {history.place} holds a training that no record "
                "requests; restore the store from a copy"
            )
    labels = [label for label in label_entries(history) if is_learned(label)]
    expensive = [label for label in labels if label.fidelity == "expensive"]
    all_labels, expensive_only = _cost_by_record(labels), _cost_by_record(expensive)
    return tuple(
        _generation_facts(event, requests[event.name], costs(seq))
        for seq, event in history.generations
        for costs in [all_labels if requests[event.name].learned else expensive_only]
    )


def best_generation(history: History) -> GenerationFacts | None:
    """Return the generation that is used where none is named, see `LoopState.best`."""
    number = history.state.generations.best
    return next((x for x in generation_facts(history) if x.generation == number), None)


def supplied_validation(history: History) -> bool:
    """Return whether the user supplied the validation set."""
    entries = history.state.labels.entries()
    return any(x.supplied and x.purpose == VALIDATION for x in entries)


def validation_origin(history: History) -> str:
    """Return the origin of the validation set in words that follow `12 frames`."""
    if supplied_validation(history):
        return "supplied by the user"
    if not any(x.kind == e.Sampled.__name__ for x in history.record_index.tasks):
        return "of unknown origin"
    level = level_title(history, "cheap")
    return f"of MD at the cheap level ({level}){temperature_text(history)}"


def temperature_text(history: History) -> str:
    """Return the temperature of the MD that made the validation set: ` at 400 K`."""
    kelvin = config_number(history, "validation", "temperature")
    return "" if kelvin is None else f" at {kelvin:g} K"


def training_commands(
    history: History, trainings: Iterable[TrainingRequest]
) -> Iterator[Train]:
    """Yield the commands of these trainings, with the frames that they learn from."""
    last = {training.name: training.seq for training in trainings}
    for entry in history.select(sorted({*last.values()})):
        for command in entry.turn.commands:
            if isinstance(command, Train) and last.get(command.name) == entry.seq:
                yield command


def _cost_by_record(labels: Sequence[LabelEntry]) -> Callable[[int], float]:
    """Return the total CPU seconds of labels as a function of the record number."""
    ends = [label.answered for label in labels]
    sums = [0.0, *accumulate(label.cpu_seconds for label in labels)]
    return lambda seq: sums[bisect_left(ends, seq)]


def _generation_facts(
    event: e.Trained, request: TrainingRequest, cost: float
) -> GenerationFacts:
    test = event.evaluation
    return GenerationFacts(
        generation=event.generation,
        cheap=request.cheap,
        expensive=request.expensive,
        label_cost=cost,
        cpu_seconds=event.timing.cpu_seconds,
        threshold=event.threshold,
        force_mae=None if test is None else test.force_mae,
        force_rmse=None if test is None else test.force_rmse,
        energy_mae=None if test is None else test.energy_mae,
        error=None if test is None else test.error,
        test=0 if test is None else len(test.frames),
        heldout=request.heldout,
        energy_absolute=None if test is None else test.energy_absolute,
        refinement=event.refinement,
    )


_MILLI = 1e-3


def set_errors(history: History) -> dict[str, list[float | None]]:
    """Return the force MAE (eV/Å) by generation on each set of acceptance.

    None where a generation was not checked on the set.
    """
    events = [event for _, event in history.generations]
    return {
        name: [_set_error(event, name) for event in events]
        for name in _set_names(events)
    }


def first_errors(history: History) -> dict[str, float | None]:
    """Return the force MAE (eV/Å) of the model before the first generation, by set.

    None where there was none.
    """
    events = [event for _, event in history.generations]
    errors: dict[str, float | None] = dict.fromkeys(_set_names(events))
    for check in events[0].checks if events else ():
        if check.set_name and check.before is not None:
            errors[check.set_name] = check.before * _MILLI
    return errors


def set_sentences(history: History) -> Iterator[str]:
    """Yield the error of the newest usable generation on each set, as a sentence."""
    state, before = history.state, first_errors(history)
    number = state.generations.usable_until(len(state.generations.models))
    for name, errors in set_errors(history).items():
        now, first = errors[number - 1] if number else None, before[name]
        if now is None:
            continue
        origin = "" if first is None else f"; before fine-tuning {first / _MILLI:.3g}"
        yield (
            f"Generation {number} errs by {now / _MILLI:.3g} meV/Å in forces on the "
            f"set {name}{origin}."
        )


def _set_names(events: list[e.Trained]) -> list[str]:
    names = (check.set_name for event in events for check in event.checks)
    return list(dict.fromkeys(name for name in names if name))


def _set_error(event: e.Trained, name: str) -> float | None:
    values = (check.value for check in event.checks if check.set_name == name)
    value = next(values, None)
    return None if value is None else value * _MILLI


_NO_MORE = "no more are bought"


def split_sentences(history: History) -> tuple[str, ...]:
    """Return how the money is split between the levels and why, in sentences.

    Empty where the budget is one of counts.
    """
    if config_value(history, "budget", "split") != "measured":
        return ()
    gains = level_gains(history.state)
    if gains is None:
        return (
            "The split between the levels was not measured yet: the counts of the "
            "budget stand.",
        )
    return tuple(_gain_sentences(gains))


def _gain_sentences(gains: LevelGains) -> Iterator[str]:
    yield (
        f"Twice the cheap labels lower the error by {_error_drop(gains.cheap)}, twice "
        f"the expensive ones by {_error_drop(gains.expensive)}; for the money of both, "
        f"expensive labels alone would err {_ratio_text(gains.advantage)} as much "
        f"(short trainings beside {plural(gains.measured, 'generation')}, the last one "
        f"{gains.generation}, where all labels err by {milli_text(gains.both)} meV/Å)."
    )
    if cheap_is_idle(gains):
        yield (
            "Cheap labels are not worth their price: they lower the error too little "
            f"to deserve {FLOOR:.0%} of the money; {_NO_MORE}."
        )
    elif alone_is_better(gains):
        yield (
            "Cheap labels are not worth their price: for the same money expensive "
            f"labels alone would err less; {_NO_MORE}."
        )
    else:
        yield from _share_sentences(gains)


def _share_sentences(gains: LevelGains) -> Iterator[str]:
    share = cheap_share(gains)
    if share is None:
        yield "Neither level's labels gain anything: the counts of the budget stand."
        return
    if expensive_is_idle(gains):
        yield (
            "Expensive labels are not worth their price: they lower the error too "
            f"little to deserve {FLOOR:.0%} of the money, which they get all the same."
        )
        return
    yield (
        f"Cheap labels are to have {share:.0%} of all money, and each level at least "
        f"{FLOOR:.0%} of a round's."
    )


def _error_drop(exponent: Measured) -> str:
    """Return by how much twice the labels lower an error, in percent."""
    fall = 1 - 2**-exponent.value
    doubt = abs(2**-exponent.value - 2 ** -(exponent.value + exponent.error))
    return f"{100 * fall:.0f} ± {100 * doubt:.0f} %"


def _ratio_text(advantage: Measured) -> str:
    low, high = (exp(advantage.value + s * advantage.error) for s in (-1, 1))
    return f"{exp(advantage.value):.2f} times ({low:.2f} to {high:.2f})"


def refinement_sentences(history: History) -> tuple[str, ...]:
    """Return how often refinements were kept and what they changed, in sentences.

    Empty where nothing was refined.
    """
    refinements = [x.event.refinement for x in history.generations]
    refined = [x for x in refinements if x is not None]
    return tuple(_refinement_texts(refined)) if refined else ()


def _refinement_texts(refined: Sequence[Refinement]) -> Iterator[str]:
    applied = [x for x in refined if x.share]
    yield (
        f"{plural(len(refined), 'generation')} refined by cheap labels of flagged "
        f"frames, {len(applied)} of them kept."
    )
    if applied:
        cheap, held = (
            median(after / before for before, after in errors if before)
            for errors in ([x.cheap for x in applied], [x.held for x in applied])
        )
        yield (
            f"Where kept, the error on these labels became {cheap:.2f} times what it "
            f"was, that on held-out expensive ones {held:.2f} times (medians)."
        )
