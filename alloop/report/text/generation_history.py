"""The history of single generations: what they learned, and why they are used."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from alloop.core.records import ModelCheck
from alloop.core.text import plural
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import (
    GenerationFacts,
    error_unit,
    generation_facts,
)
from alloop.report.analysis.examination import threshold_basis
from alloop.report.text.event_log import check_text
from alloop.report.text.formatting import (
    duration_text,
    milli_text,
    number_text,
    refinement_text,
)


def generation_number(history: History, text: str) -> int | None:
    """Return the number of the generation that the text names, None without one."""
    numbers = {x.event.generation for x in history.generations}
    return int(text) if text.isdecimal() and int(text) in numbers else None


def generation_details(history: History, number: int) -> dict[str, Any]:
    """Return what `describe_generation` tells, fit for `json.dumps`.

    Errors in eV and eV/Å, times in CPU seconds.
    """
    event, facts = _training_event(history, number), _number_facts(history, number)
    checks = [check_values(x) for x in event.checks]
    return {
        **asdict(facts),
        "model": event.model,
        "checks": checks,
        "accepted": number in history.state.generations.accepted,
        "explored_in_rounds": _explored_rounds(history, number),
        "best": history.state.generations.best == number,
    }


def check_values(check: ModelCheck) -> dict[str, Any]:
    """Return a check fit for `json.dumps`; an infinite limit is null."""
    limit = check.limit if isfinite(check.limit) else None
    return {**asdict(check), "limit": limit, "passed": check.passed}


def describe_generation(history: History, number: int) -> Iterator[str]:
    """Yield the history of a generation, line by line."""
    event, facts = _training_event(history, number), _number_facts(history, number)
    yield (
        f"Generation {number}, {_training_text(facts)} in "
        f"{duration_text(facts.cpu_seconds)} CPU; model {event.model}."
    )
    if event.refinement is not None:
        yield f"Its refinement: {refinement_text(event.refinement)}."
    if facts.force_mae is not None:
        yield (
            f"It errs by {milli_text(facts.error)} {error_unit(history)} (MAE) on "
            f"{plural(facts.test, 'validation frame')}."
        )
    if event.threshold is not None:
        basis = threshold_basis(history, event)
        yield f"Its flag threshold is {number_text(event.threshold)}, {basis}."
    yield from tuning_sentences(event.history)
    for check in event.checks:
        yield f"{'Passed' if check.passed else 'Failed'}: {check_text(check)}."
    yield from _use_sentences(history, event)


def tuning_sentences(history: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a training tells of itself.

    That is the error of dipoles, and errors before and after a universal potential's
    fine-tuning, if there are any.
    """
    if (frames := history.get("dipole/frames")) is not None:
        yield _dipole_sentence(frames, history.get("dipole/mae"))
    names = history.get("before/name")
    if isinstance(names, list):
        errors = map(milli_text, history["before/force_mae"])
        rows = (f"{name} {x}" for name, x in zip(names, errors, strict=True))
        yield f"Force MAE before the first step, in meV/Å: {', '.join(rows)}."
    names = history.get("after/name")
    if isinstance(names, list) and names:
        columns = (
            map(milli_text, history[f"after/force_{key}"])
            for key in ("mae", "before", "size")
        )
        rows = (
            f"{name} {mae} (it was {before}, forces are {size})"
            for name, mae, before, size in zip(names, *columns, strict=True)
        )
        yield f"Force MAE elsewhere after training, in meV/Å: {', '.join(rows)}."


def _dipole_sentence(frames: int, error: float | None) -> str:
    if error is None:
        return "It learned no dipoles, since fewer than ten labels have one."
    return (
        f"Its dipoles err by {milli_text(error)} me Å a component (MAE) on "
        f"{plural(frames, 'label')} left out in turn."
    )


def _training_text(facts: GenerationFacts) -> str:
    if facts.refinement is not None:
        many = plural(facts.refinement.frames, "flagged frame")
        return f"the one before it refined on cheap labels of {many}"
    return (
        f"trained on {plural(facts.cheap, 'cheap label')} and "
        f"{plural(facts.expensive, 'expensive one')}"
    )


def _use_sentences(history: History, event: e.Trained) -> Iterator[str]:
    number, state = event.generation, history.state
    if number in state.generations.rejected:
        instead = state.generations.usable_until(number)
        yield (
            f"It is not used, since it failed a check: generation {instead} went on "
            "exploring, and the next one started from that. Its labels are kept."
        )
    elif number in state.generations.unaccepted:
        yield (
            "It is not accepted, since it failed a check. It is used for exploration, "
            f"since none before it was accepted, and exported only by `--at {number}`."
        )
    rounds = _explored_rounds(history, number)
    if rounds:
        which = ", ".join(map(str, rounds))
        yield f"MD ran on it in {'round' if len(rounds) == 1 else 'rounds'} {which}."
    if state.generations.best == number:
        also = "exported and " if number in state.generations.accepted else ""
        yield f"It is the best one, which is {also}examined."


def _explored_rounds(history: History, number: int) -> list[int]:
    """Return the rounds that the generation explored."""
    requests = history.record_index.explorations.values()
    return sorted({x.round for x in requests if x.generation == number})


def _training_event(history: History, number: int) -> e.Trained:
    return next(x for x in history.trained() if x.generation == number)


def _number_facts(history: History, number: int) -> GenerationFacts:
    return next(x for x in generation_facts(history) if x.generation == number)
