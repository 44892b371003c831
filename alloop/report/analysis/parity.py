"""Data for bias and parity plots of levels and models. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.records import LabelSet
from alloop.core.units import Floats, Integers
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.explorations import Explorations
from alloop.report.analysis.proposals import labels_by_frame
from alloop.report.analysis.uncertainty import labels_of_test


@dataclass(frozen=True, slots=True, eq=False)
class ParityData:
    """Predictions of the best generation and labels on the frozen set.

    energies (frames,) in eV relative to the mean label of the composition, forces (3
    atoms,) in eV/Å; frames (frames,) with atoms offsets[i] to offsets[i + 1].
    """

    generation: int
    energies: tuple[Floats, Floats]  # label, model
    forces: tuple[Floats, Floats]
    frames: tuple[FrameId, ...] = ()
    offsets: Integers = field(default_factory=lambda: np.zeros(1, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class BiasData:
    """Mean absolute force differences by frame, eV/Å.

    generation: ASTEROID's B of each cheap label for the model of that generation;
    trained: B is that of its own training, else it was taken when the label came.
    levels: cheap against expensive labels of the same frames.
    """

    generation: Mapping[int, Floats] = field(default_factory=dict)
    trained: bool = False
    levels: Floats = field(default_factory=lambda: np.zeros(0))


def bias_data(history: History, brought: Explorations) -> BiasData:
    """Return the biases of cheap labels found by training, else those at labelling."""
    trained = {
        x.generation: np.asarray(x.history["bias"], dtype=np.float64)
        for _, x in history.of_kind(e.Trained)
        if isinstance(x.history.get("bias"), list) and x.history["bias"]
    }
    return BiasData(
        generation=trained or _biases_when_labelled(brought),
        trained=bool(trained),
        levels=_level_differences(history),
    )


def _biases_when_labelled(brought: Explorations) -> dict[int, Floats]:
    found: dict[int, list[float]] = {}
    for origin in brought.origins.values():
        if "cheap" in origin.apart:
            mean, _ = origin.apart["cheap"]
            found.setdefault(origin.generation, []).append(mean)
    return {number: np.array(values) for number, values in sorted(found.items())}


def _level_differences(history: History) -> Floats:
    levels = history.opened.levels
    if levels.get("cheap") in (None, levels.get("expensive")):
        return np.zeros(0)
    others = labels_by_frame(history, "expensive")
    return np.array(
        [
            float(np.abs(label.forces - others[frame].forces).mean())
            for frame, label in labels_by_frame(history, "cheap").items()
            if frame in others
        ]
    )


def parity_data(history: History) -> ParityData | None:
    """Return the best generation and the labels on the frozen set, None without one."""
    for _, trained in history.best:
        labels, test = labels_of_test(history, trained), trained.evaluation
        if labels is not None and test is not None:
            zero = _composition_means(labels)
            model = test.energies - (test.energies - labels.energies).mean()
            return ParityData(
                generation=trained.generation,
                energies=(labels.energies - zero, model - zero),
                forces=(labels.forces.ravel(), test.forces.ravel()),
                frames=test.frames,
                offsets=labels.batch.offsets,
            )
    return None


def _composition_means(labels: LabelSet) -> Floats:
    """Return the mean label energy of each frame's composition (frames,), eV."""
    keys = np.array(
        [str(sorted(labels.batch.numbers[span])) for span in labels.batch.atom_slices()]
    )
    _, which = np.unique(keys, return_inverse=True)
    sums = np.bincount(which, weights=labels.energies)
    out: Floats = (sums / np.bincount(which))[which]
    return out
