"""Errors on the user's own sets of acceptance, by generation."""

from collections.abc import Iterator

from alloop.history.reader import History
from alloop.loop import events as e

_MILLI = 1e-3


def set_errors(history: History) -> dict[str, list[float | None]]:
    """Return the force MAE (eV/Å) by generation on each set of acceptance.

    None where a generation was not checked on the set.
    """
    events = [event for _, event in history.generations]
    return {
        name: [_error(event, name) for event in events] for name in _set_names(events)
    }


def first_errors(history: History) -> dict[str, float | None]:
    """Return the force MAE (eV/Å) of the model before the first generation, by set.

    None where there was none.
    """
    events = [event for _, event in history.generations]
    found: dict[str, float | None] = dict.fromkeys(_set_names(events))
    for check in events[0].checks if events else ():
        if check.set_name and check.before is not None:
            found[check.set_name] = check.before * _MILLI
    return found


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


def _error(event: e.Trained, name: str) -> float | None:
    found = (check.value for check in event.checks if check.set_name == name)
    value = next(found, None)
    return None if value is None else value * _MILLI
