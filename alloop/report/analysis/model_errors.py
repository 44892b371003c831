"""Errors of the best generation: by group, and the data of parity and bias plots."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import FrameId
from alloop.core.label_cost import molecule_key
from alloop.core.records import LabelSet
from alloop.core.units import Booleans, Floats, Integers
from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import supplied_validation
from alloop.report.analysis.examination import counted_frames, last_examination
from alloop.report.analysis.explorations import Explorations, labels_by_frame


@dataclass(frozen=True, slots=True)
class GroupError:
    """Force errors of a molecule or of an element, eV/Å.

    count: frames of the molecule, atoms of the element. mae, rmse: over components.
    largest: length of the largest error on an atom, which is in the frame `worst`.
    typical: RMS of the labels' components. energy_mae (eV): after removal of the mean
    difference over the whole validation set. offset (eV): the mean difference that
    remains for the molecule. Both are None for elements.
    """

    name: str
    count: int
    mae: float
    rmse: float
    largest: float
    worst: FrameId
    typical: float
    energy_mae: float | None = None
    offset: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ErrorGroups:
    """Errors of one generation by molecule and by element, the worst first.

    frames: their number; where: a description of them.
    """

    generation: int
    where: str
    frames: int
    molecules: tuple[GroupError, ...]
    elements: tuple[GroupError, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _TestErrors:
    """Labels, and errors: difference (atoms, 3), lengths (atoms,), energies."""

    labels: LabelSet
    frames: tuple[FrameId, ...]
    difference: Floats
    lengths: Floats
    energies: Floats


def error_groups(history: History) -> ErrorGroups | None:
    """Return the errors of the best generation, None where it was not tested.

    They are those on the examination; without one, or with a validation set that
    the user supplied, those on the validation set.
    """
    found = (_examination_errors(history), _validation_errors(history))
    known = [each for each in found if each is not None]
    for generation, where, test in (
        reversed(known) if supplied_validation(history) else known
    ):
        return ErrorGroups(
            generation,
            where,
            len(test.frames),
            tuple(sorted(_molecule_errors(history, test), key=lambda x: -x.mae)),
            tuple(sorted(_element_errors(test), key=lambda x: -x.mae)),
        )
    return None


def _examination_errors(history: History) -> tuple[int, str, _TestErrors] | None:
    found, predicted = last_examination(history), list(counted_frames(history))
    if found is None or not predicted:
        return None
    level = history.state.levels["expensive"]
    frames = tuple(candidate.frame.id for candidate, _ in predicted)
    labels = history.label_index.label_set(level, frames)
    forces = np.concatenate([candidate.forces for candidate, _ in predicted])
    energies = np.array([candidate.energy for candidate, _ in predicted])
    test = _test_errors(labels, frames, energies, forces)
    return found.generation, "the examination", test


def _validation_errors(history: History) -> tuple[int, str, _TestErrors] | None:
    for _, trained in history.best:
        labels, predicted = labels_of_test(history, trained), trained.evaluation
        if labels is not None and predicted is not None:
            test = _test_errors(
                labels, predicted.frames, predicted.energies, predicted.forces
            )
            return trained.generation, "the validation set", test
    return None


def _test_errors(
    labels: LabelSet, frames: tuple[FrameId, ...], energies: Floats, forces: Floats
) -> _TestErrors:
    difference, energy_difference = forces - labels.forces, energies - labels.energies
    lengths = np.linalg.norm(difference, axis=1)
    return _TestErrors(
        labels,
        frames,
        difference,
        lengths,
        energy_difference - energy_difference.mean(),
    )


def _molecule_errors(history: History, test: _TestErrors) -> Iterator[GroupError]:
    names = np.array(
        [molecule_key(history.label_index.frames[key]) for key in test.frames]
    )
    for name in dict.fromkeys(names.tolist()):
        frames = names == name
        atoms = frames[test.labels.batch.frame_index]
        energies = test.energies[frames]
        yield _group_error(
            test,
            str(name),
            atoms,
            int(frames.sum()),
            (float(np.abs(energies).mean()), float(energies.mean())),
        )


def _element_errors(test: _TestErrors) -> Iterator[GroupError]:
    numbers = test.labels.batch.numbers
    for number in np.unique(numbers).tolist():
        atoms = numbers == number
        yield _group_error(test, chemical_symbol(number), atoms, int(atoms.sum()))


def _group_error(
    test: _TestErrors,
    name: str,
    atoms: Booleans,
    count: int,
    energy: Sequence[float | None] = (None, None),
) -> GroupError:
    difference, lengths = test.difference[atoms], test.lengths[atoms]
    at = int(lengths.argmax())
    return GroupError(
        name=name,
        count=count,
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt((difference**2).mean())),
        largest=float(lengths[at]),
        worst=test.frames[int(test.labels.batch.frame_index[atoms][at])],
        typical=float(np.sqrt((test.labels.forces[atoms] ** 2).mean())),
        energy_mae=energy[0],
        offset=energy[1],
    )


@dataclass(frozen=True, slots=True, eq=False)
class ParityData:
    """Predictions of the best generation and labels on the validation set.

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


def bias_data(history: History, explored: Explorations) -> BiasData:
    """Return the biases of cheap labels found by training, else those at labelling."""
    trained = {
        x.generation: np.asarray(x.history["bias"], dtype=np.float64)
        for _, x in history.of_kind(e.Trained)
        if isinstance(x.history.get("bias"), list) and x.history["bias"]
    }
    return BiasData(
        generation=trained or _biases_when_labelled(explored),
        trained=bool(trained),
        levels=_level_differences(history),
    )


def _biases_when_labelled(explored: Explorations) -> dict[int, Floats]:
    found: dict[int, list[float]] = {}
    for origin in explored.origins.values():
        if "cheap" in origin.differences:
            mean, _ = origin.differences["cheap"]
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
    """Return the best generation and its validation labels, None without any."""
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
