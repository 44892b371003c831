"""Sentences on the gain from each level's labels and the split of the money."""

from collections.abc import Iterator
from math import exp

from alloop.history.reader import History
from alloop.loop.level_gains import LevelGains, Measured, level_gains
from alloop.loop.level_split import (
    FLOOR,
    alone_is_better,
    cheap_is_idle,
    cheap_share,
    expensive_is_idle,
)
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.text.formatting import milli_text, plural

_STOP = "no more are bought"


def split_sentences(history: History) -> tuple[str, ...]:
    """Return how the money is split between the levels and why, in sentences.

    None where the counts of the budget stand.
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
        f"Twice the cheap labels lower the error by {_fall(gains.cheap)}, twice the "
        f"expensive ones by {_fall(gains.expensive)}; for the money of both, expensive "
        f"labels alone would err {_times(gains.advantage)} as much (short trainings "
        f"beside {plural(gains.measured, 'generation')}, the last one "
        f"{gains.generation}, where all labels err by {milli_text(gains.both)} meV/Å)."
    )
    if cheap_is_idle(gains):
        yield (
            "Cheap labels are not worth their price: they lower the error too little "
            f"to deserve {FLOOR:.0%} of the money; {_STOP}."
        )
    elif alone_is_better(gains):
        yield (
            "Cheap labels are not worth their price: for the same money expensive "
            f"labels alone would err less; {_STOP}."
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


def _fall(exponent: Measured) -> str:
    """Return by how much twice the labels lower an error, in percent."""
    fall = 1 - 2**-exponent.value
    doubt = abs(2**-exponent.value - 2 ** -(exponent.value + exponent.error))
    return f"{100 * fall:.0f} ± {100 * doubt:.0f} %"


def _times(advantage: Measured) -> str:
    low, high = (exp(advantage.value + s * advantage.error) for s in (-1, 1))
    return f"{exp(advantage.value):.2f} times ({low:.2f} to {high:.2f})"
