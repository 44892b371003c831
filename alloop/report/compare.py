"""A campaign against its controls at equal label cost. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alloop.core.units import Floats
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.report.evidence import labels_of_test
from alloop.report.facts import Stand, generations
from alloop.report.words import duration, milli, plural

_INSTANT = 1e-9  # s: labels that cost nothing that could be measured
TITLES = {"standard": "standard training", "random": "random selection"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The campaign's last generation and the control's whose labels cost most alike.

    Errors are test force MAEs in eV/Å; costs CPU seconds of labels; noise is twice the
    standard error of the mean difference over the shared test frames, None where the
    two were not tested on the same frames.
    """

    name: str
    ours: Stand
    theirs: Stand
    noise: float | None

    @property
    def gain(self) -> float:
        """How much smaller our error is, as a share of theirs."""
        return 1.0 - _error(self.ours) / _error(self.theirs)

    @property
    def certain(self) -> bool:
        """Whether the difference exceeds the noise of the test set."""
        apart = abs(_error(self.ours) - _error(self.theirs))
        return self.noise is not None and apart > self.noise

    @property
    def sentence(self) -> str:
        """Who won, honestly."""
        won = self.gain > 0
        verb = "beat" if won else "did not beat"
        numbers = f"{milli(self.ours.force_mae)} against {milli(self.theirs.force_mae)}"
        who = TITLES.get(self.name, self.name)
        doubt = "" if self.certain else _doubt(self)
        return (
            f"The campaign {verb} {who}: {numbers} meV/Å on the test set, for "
            f"{duration(self.ours.label_cost)} and {duration(self.theirs.label_cost)} "
            f"of labels{doubt}."
        )


def _doubt(comparison: Comparison) -> str:
    if comparison.noise is None:
        return "; the two were tested on different frames"
    frames = plural(comparison.ours.test, "test frame")
    return f"; a difference within the noise of {frames}"


def _error(stand: Stand) -> float:
    return float("nan") if stand.force_mae is None else stand.force_mae


def compare(history: History, name: str, control: History) -> Comparison | None:
    """The comparison, None where either has no tested generation."""
    tested = [x for x in generations(history) if x.force_mae is not None]
    theirs = [x for x in generations(control) if x.force_mae is not None]
    if not tested or not theirs:
        return None
    ours = tested[-1]
    other = min(reversed(theirs), key=lambda x: _apart(x.label_cost, ours.label_cost))
    return Comparison(name, ours, other, _noise(history, ours, control, other))


def _apart(one: float, other: float) -> float:
    """By which factor two costs differ, as a logarithm."""
    return abs(math.log(max(one, _INSTANT) / max(other, _INSTANT)))


def comparisons(
    history: History, controls: Mapping[str, History]
) -> tuple[Comparison, ...]:
    """All comparisons that can be made."""
    found = (compare(history, name, control) for name, control in controls.items())
    return tuple(x for x in found if x is not None)


def _noise(
    history: History, ours: Stand, control: History, theirs: Stand
) -> float | None:
    one = _frame_errors(history, ours.generation)
    other = _frame_errors(control, theirs.generation)
    if one.keys() != other.keys() or len(one) < 2:
        return None
    apart = np.array([one[frame] - other[frame] for frame in sorted(one)])
    return float(2.0 * apart.std(ddof=1) / np.sqrt(len(apart)))


def _frame_errors(history: History, generation: int) -> dict[str, float]:
    """Mean absolute force error by test frame, eV/Å."""
    for _, trained in history.generations:
        if trained.generation == generation and trained.evaluation is not None:
            return _by_frame(history, trained, trained.evaluation)
    return {}


def _by_frame(
    history: History, trained: e.Trained, test: e.Evaluation
) -> dict[str, float]:
    labels = labels_of_test(history, trained)
    if labels is None:
        return {}
    errors: Floats = np.abs(test.forces - labels.forces)
    means = [float(errors[span].mean()) for span in labels.batch.spans()]
    return dict(zip(test.frames, means, strict=True))
