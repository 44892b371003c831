"""Messages on the generation that is taken, and on campaigns where none is fit."""

import warnings
from math import isfinite

from alloop.core.errors import InputError
from alloop.loop.state import LoopState


def unaccepted_sentence(state: LoopState) -> str | None:
    """Return a sentence where no generation passed all its checks, else None."""
    if state.generations.accepted or not state.generations.unaccepted:
        return None
    best = state.generations.best
    return (
        "No generation passed all checks: they are used for exploration only, and "
        f"exported as models only by number (`--at {best}`; `alloop why STORE {best}` "
        "tells what that one, the best, failed)."
    )


def generation_sentence(state: LoopState, number: int | None = None) -> str:
    """Return the generation that is taken, of how many, and why that one.

    number: the one that was asked for, None for the best.
    """
    taken, count = number or state.generations.best, len(state.generations.models)
    if number is not None:
        why = "as asked"
    elif isfinite(state.generations.errors[taken - 1]):
        why = "the one with the smallest error on the validation set"
    else:
        why = "the last that can be used, as none was tested"
    return f"generation {taken} of {count}, {why}"


def require_accepted(state: LoopState) -> None:
    """Raise InputError where no generation passed its checks."""
    if unaccepted_sentence(state) is not None:
        raise InputError(
            "expected a generation that passed its checks, got none; name one to "
            f"export it all the same: `--at {state.generations.best}` (in Python: "
            f"`generation={state.generations.best}`)"
        )


def warn_of_unaccepted(state: LoopState) -> None:
    """Warn the caller's caller where no generation passed its checks."""
    sentence = unaccepted_sentence(state)
    if sentence is not None:
        warnings.warn(sentence, stacklevel=3)
