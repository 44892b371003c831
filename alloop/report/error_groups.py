"""Test errors of the last generation by molecule, by element and by frame. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alloop.core.atoms import symbol
from alloop.core.cost import molecule
from alloop.core.frame import FrameId
from alloop.core.records import LabelSet
from alloop.core.units import Booleans, Floats
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.report.evidence import labels_of_test


@dataclass(frozen=True, slots=True)
class GroupError:
    """Force errors of a molecule or of an element on the test set, eV/Å.

    count: frames of the molecule, atoms of the element. mae and rmse over components;
    largest: length of the largest error on an atom, in the frame `worst`. typical: RMS
    of the labels' components. energy_mae (eV): after the mean difference over the whole
    test set was removed, offset: what then remains on average; None for elements.
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
    """Errors of one generation by molecule and by element, the worst first."""

    generation: int
    frames: int
    molecules: tuple[GroupError, ...]
    elements: tuple[GroupError, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Test:
    """Labels and errors: apart (atoms, 3), lengths and owner (atoms,), energies
    (frames,)."""

    labels: LabelSet
    frames: tuple[FrameId, ...]
    apart: Floats
    lengths: Floats
    energies: Floats


def error_groups(history: History) -> ErrorGroups | None:
    """Errors of the last generation, None where it was not tested."""
    for _, trained in history.best:
        labels, said = labels_of_test(history, trained), trained.evaluation
        if labels is not None and said is not None:
            test = _test(labels, said)
            return ErrorGroups(
                trained.generation,
                len(said.frames),
                tuple(sorted(_molecules(history, test), key=lambda x: -x.mae)),
                tuple(sorted(_elements(test), key=lambda x: -x.mae)),
            )
    return None


def _test(labels: LabelSet, said: e.Evaluation) -> _Test:
    apart = said.forces - labels.forces
    energies = said.energies - labels.energies
    lengths = np.linalg.norm(apart, axis=1)
    return _Test(labels, said.frames, apart, lengths, energies - energies.mean())


def _molecules(history: History, test: _Test) -> Iterator[GroupError]:
    names = np.array([molecule(history.ledger.frames[key]) for key in test.frames])
    for name in dict.fromkeys(names.tolist()):
        frames = names == name
        atoms = frames[test.labels.batch.owner]
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
        yield _group(test, symbol(number), atoms, int(atoms.sum()))


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
        worst=test.frames[int(test.labels.batch.owner[atoms][at])],
        typical=float(np.sqrt((test.labels.forces[atoms] ** 2).mean())),
        energy_mae=energy[0],
        offset=energy[1],
    )
