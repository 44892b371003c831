"""Facts on configuration, levels and generations, from the journal alone."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import yaml

from alloop.config.yaml_text import rename_test_section
from alloop.core.levels import Fidelity
from alloop.core.records import Refinement
from alloop.core.splits import VALIDATION
from alloop.history.label_entries import label_entries
from alloop.history.measured_costs import is_learned
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry, TrainingRequest
from alloop.loop import events as e
from alloop.loop.commands import Train


@dataclass(frozen=True, slots=True)
class GenerationFacts:
    """The labels, costs and frozen-set errors of a generation.

    Errors are in eV and eV/Å, None without a validation set. heldout: further cheap
    labels, which calibrate its surprise. energy_mae: after the mean difference is
    removed; energy_absolute: with it, None where unknown. label_cost: CPU seconds of
    all labels so far, failures included, whoever paid for them; the validation set is
    left out, and so are cheap labels where the generation learned from none.
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
    test: int
    heldout: int = 0
    energy_absolute: float | None = None
    refinement: Refinement | None = None

    @property
    def title(self) -> str:
        """A short name for tables: `generation 2`, `generation 3, refined`."""
        refined = "" if self.refinement is None else ", refined"
        return f"generation {self.generation}{refined}"


def level_title(history: History, fidelity: Fidelity) -> str:
    """Return the level's readable name, such as `HF/STO-3G`."""
    known = history.attrs.get("levels", {}).get(fidelity, {})
    return str(known.get("title") or fidelity)


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
    return rename_test_section(tree, "") if isinstance(tree, dict) else tree


def is_single(history: History) -> bool:
    """Return True if the campaign never asked for a cheap label."""
    return not any(x.fidelity == "cheap" for x in history.state.labels.entries())


def integer_or_none(value: Any) -> int | None:
    """Return a number of the configuration as an integer, None if it is none."""
    return int(value) if isinstance(value, int | float) else None


def generation_facts(history: History) -> tuple[GenerationFacts, ...]:
    """Return the facts of all generations, in order."""
    asked = {training.name: training for training in history.record_index.trainings}
    labels = [label for label in label_entries(history) if is_learned(label)]
    expensive = [label for label in labels if label.fidelity == "expensive"]
    all_labels, expensive_only = _cost_by_record(labels), _cost_by_record(expensive)
    return tuple(
        _generation_facts(event, asked[event.name], costs(seq))
        for seq, event in history.generations
        for costs in [all_labels if asked[event.name].learned else expensive_only]
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
    kelvin = config_value(history, "validation", "temperature")
    warm = f" at {kelvin:g} K" if isinstance(kelvin, int | float) else ""
    return f"of MD at the cheap level ({level_title(history, 'cheap')}){warm}"


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
    event: e.Trained, asked: TrainingRequest, cost: float
) -> GenerationFacts:
    test = event.evaluation
    return GenerationFacts(
        generation=event.generation,
        cheap=asked.cheap,
        expensive=asked.expensive,
        label_cost=cost,
        cpu_seconds=event.timing.cpu_seconds,
        threshold=event.threshold,
        force_mae=None if test is None else test.force_mae,
        force_rmse=None if test is None else test.force_rmse,
        energy_mae=None if test is None else test.energy_mae,
        test=0 if test is None else len(test.frames),
        heldout=asked.heldout,
        energy_absolute=None if test is None else test.energy_absolute,
        refinement=event.refinement,
    )
