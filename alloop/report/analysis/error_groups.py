"""Errors of the best generation by molecule, element and frame. Pure functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import FrameId
from alloop.core.label_cost import molecule_key
from alloop.core.records import LabelSet
from alloop.core.units import Booleans, Floats
from alloop.history.reader import History
from alloop.report.analysis.examination import examination, examined_frames
from alloop.report.analysis.summary_facts import brought_test, set_name
from alloop.report.analysis.uncertainty import labels_of_test


@dataclass(frozen=True, slots=True)
class GroupError:
    """Force errors of a molecule or of an element, eV/Å.

    count: frames of the molecule, atoms of the element. mae, rmse: over components.
    largest: length of the largest error on an atom, which is in the frame `worst`.
    typical: RMS of the labels' components. energy_mae (eV): after removal of the mean
    difference over the whole test set. offset (eV): the mean difference that remains
    for the molecule. Both are None for elements.
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
class _Test:
    """Labels and errors: apart (atoms, 3), lengths (atoms,), energies (frames,)."""

    labels: LabelSet
    frames: tuple[FrameId, ...]
    apart: Floats
    lengths: Floats
    energies: Floats


def error_groups(history: History) -> ErrorGroups | None:
    """Return the errors of the best generation, None where it was not tested.

    They are those on the final examination; without one, or with a test set that the
    user brought, those on the frozen set.
    """
    found = (_examined(history), _frozen(history))
    known = [each for each in found if each is not None]
    for generation, where, test in reversed(known) if brought_test(history) else known:
        return ErrorGroups(
            generation,
            where,
            len(test.frames),
            tuple(sorted(_molecules(history, test), key=lambda x: -x.mae)),
            tuple(sorted(_elements(test), key=lambda x: -x.mae)),
        )
    return None


def _examined(history: History) -> tuple[int, str, _Test] | None:
    found, said = examination(history), list(examined_frames(history))
    if found is None or not said:
        return None
    level = history.state.levels["expensive"]
    frames = tuple(candidate.frame.id for candidate, _ in said)
    labels = history.ledger.label_set(level, frames)
    forces = np.concatenate([candidate.forces for candidate, _ in said])
    energies = np.array([candidate.energy for candidate, _ in said])
    test = _test(labels, frames, energies, forces)
    return found.generation, "the final examination", test


def _frozen(history: History) -> tuple[int, str, _Test] | None:
    for _, trained in history.best:
        labels, said = labels_of_test(history, trained), trained.evaluation
        if labels is not None and said is not None:
            test = _test(labels, said.frames, said.energies, said.forces)
            return trained.generation, f"the {set_name(history)} set", test
    return None


def _test(
    labels: LabelSet, frames: tuple[FrameId, ...], energies: Floats, forces: Floats
) -> _Test:
    apart, off = forces - labels.forces, energies - labels.energies
    lengths = np.linalg.norm(apart, axis=1)
    return _Test(labels, frames, apart, lengths, off - off.mean())


def _molecules(history: History, test: _Test) -> Iterator[GroupError]:
    names = np.array([molecule_key(history.ledger.frames[key]) for key in test.frames])
    for name in dict.fromkeys(names.tolist()):
        frames = names == name
        atoms = frames[test.labels.batch.frame_index]
        energies = test.energies[frames]
        yield _group(
            test,
            str(name),
            atoms,
            int(frames.sum()),
            (float(np.abs(energies).mean()), float(energies.mean())),
        )


def _elements(test: _Test) -> Iterator[GroupError]:
    numbers = test.labels.batch.numbers
    for number in np.unique(numbers).tolist():
        atoms = numbers == number
        yield _group(test, chemical_symbol(number), atoms, int(atoms.sum()))


def _group(
    test: _Test,
    name: str,
    atoms: Booleans,
    count: int,
    energy: Sequence[float | None] = (None, None),
) -> GroupError:
    apart, lengths = test.apart[atoms], test.lengths[atoms]
    at = int(lengths.argmax())
    return GroupError(
        name=name,
        count=count,
        mae=float(np.abs(apart).mean()),
        rmse=float(np.sqrt((apart**2).mean())),
        largest=float(lengths[at]),
        worst=test.frames[int(test.labels.batch.frame_index[atoms][at])],
        typical=float(np.sqrt((test.labels.forces[atoms] ** 2).mean())),
        energy_mae=energy[0],
        offset=energy[1],
    )
