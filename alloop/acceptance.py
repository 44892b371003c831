"""Checks that a new generation must pass before MD runs on it.

A generation that fails one is kept with its labels, and the one before it goes on
exploring. Fine-tuning can spoil what a model knew already: its errors on frames that it
does not learn from, its short-range repulsion, and MD that stays whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol, runtime_checkable

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import chemical_symbol
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import LabelSet, ModelCheck, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.settings import PARALLEL_COUNT, SHARE, WHOLE, from_milli, setting
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import maxwell_boltzmann

_BONDED = 1.3  # sums of covalent radii
_MILLI = 1e3


@dataclass(frozen=True, slots=True)
class SetLimits:
    """The limits of the force error on a set of the user's, by name; most in eV/Å."""

    name: str
    rise: float | None = setting(
        2.0,
        "largest force error on the set, as a multiple of that of the model before; "
        "null: no such limit",
        key="error",
        ge=1,
    )
    most: float | None = setting(
        None,
        "largest force error on the set, meV/Å; no such limit by default",
        convert=from_milli,
        gt=0,
    )


@dataclass(frozen=True, slots=True)
class AcceptanceSettings:
    """The limits of the checks; None or 0 turns one off.

    sets: the limits of the user's own sets.
    """

    rise: float | None = setting(
        2.0,
        "largest force error on the validation set, as a multiple of that of the "
        "generation before; null: not checked",
        key="error",
        ge=1,
    )
    compression: float | None = setting(
        0.6,
        "share of a bond's length at which its atoms must repel each other; null: not "
        "checked",
        gt=0,
        lt=1,
    )
    steps: int = setting(
        200, "steps of a short MD that must stay whole; 0: not checked", **WHOLE
    )
    walkers: int = setting(8, "walkers of the short MD", **PARALLEL_COUNT)
    stopped: float = setting(
        0.25, "share of these walkers that guards may stop", **SHARE
    )
    sets: tuple[SetLimits, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TrainedWith:
    """The frames, labels and earlier model that a model is checked with.

    frames: that it was trained on, at least one. test: the validation set, if there is
    one. parent: the model before it, if there is one. seed and name: of its random
    streams. test_error: the model's force error on the validation set (eV/Å), where it
    is known already. sets: the user's own sets by name. original: the universal
    potential that fine-tuning began with, if there is one: the model before the first
    generation.
    """

    frames: Sequence[Frame]
    test: LabelSet | None
    parent: Potential | None
    seed: int
    name: str
    test_error: float | None = None
    sets: Mapping[str, LabelSet] = field(default_factory=dict)
    original: Potential | None = None


@runtime_checkable
class ElementwisePotential(Protocol):
    """A potential whose forces need no reference energies of elements."""

    def covering(self, batch: Batch) -> Potential:
        """Return the potential with references for all elements of a batch."""
        ...


def check_model(
    potential: Potential,
    trained: TrainedWith,
    settings: AcceptanceSettings,
    dynamics: DynamicsSettings,
) -> tuple[ModelCheck, ...]:
    """Return the checks of a model, in a fixed order.

    dynamics: those of the campaign's exploration.
    """
    return (
        *_error_check(potential, trained, settings),
        *_set_checks(potential, trained, settings),
        *_repulsion_check(potential, trained, settings),
        *_stability_check(potential, trained, settings, dynamics),
    )


def _error_check(
    potential: Potential, trained: TrainedWith, settings: AcceptanceSettings
) -> Iterator[ModelCheck]:
    test, parent = trained.test, trained.parent
    if settings.rise is None or parent is None or test is None or not len(test):
        return
    measured, before = trained.test_error, _label_error(parent, test)
    now = _label_error(potential, test) if measured is None else measured * _MILLI
    quantity, unit = _quantity(test)
    yield ModelCheck(
        f"{quantity} error on the validation set",
        now,
        settings.rise * before,
        unit,
        before=before,
    )


def _quantity(labels: LabelSet) -> tuple[str, str]:
    """Return what errors are measured of, and their unit."""
    return ("force", "meV/Å") if labels.has_forces else ("energy", "meV")


def _label_error(potential: Potential, labels: LabelSet) -> float:
    """Return the mean absolute force component's error, meV/Å.

    Where no label has forces it is that of the energies less their mean error, in meV.
    """
    if isinstance(potential, ElementwisePotential):
        potential = potential.covering(labels.batch)
    errors = prediction_errors(potential.predict(labels.batch), labels)
    error = errors.force_mae if labels.has_forces else errors.energy_spread
    return error * _MILLI


def _set_checks(
    potential: Potential, trained: TrainedWith, settings: AcceptanceSettings
) -> Iterator[ModelCheck]:
    last = trained.original if trained.parent is None else trained.parent
    for limits in settings.sets:
        labels = trained.sets[limits.name]
        before = None if last is None else _label_error(last, labels)
        quantity, unit = _quantity(labels)
        highest = [] if limits.most is None else [limits.most * _MILLI]
        if limits.rise is not None and before is not None:
            highest.append(limits.rise * before)
        yield ModelCheck(
            f"{quantity} error on the set {limits.name}",
            _label_error(potential, labels),
            min(highest, default=inf),
            unit,
            detail="" if before is None else f"{before:.3g} before",
            set_name=limits.name,
            before=before,
        )


def _repulsion_check(
    potential: Potential, trained: TrainedWith, settings: AcceptanceSettings
) -> Iterator[ModelCheck]:
    if settings.compression is None:
        return
    pressed = _compressed_bonds(_compositions(_calm_frames(trained)), settings)
    if not pressed:
        return
    batch = pack_frames([bond.frame for bond in pressed])
    forces = potential.predict(batch).forces
    pushes = np.array(
        [
            forces[start + bond.atom] @ bond.away
            for start, bond in zip(batch.offsets[:-1], pressed, strict=True)
        ]
    )
    pulled = sorted(
        {b.name for b, push in zip(pressed, pushes, strict=True) if push <= 0}
    )
    yield ModelCheck(
        f"bonds at {settings.compression:g} of their length that attract",
        float(np.sum(~(pushes > 0))),
        0.0,
        detail=", ".join(pulled),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _CompressedBond:
    """A frame with one bond compressed; away: the unit vector from its partner."""

    name: str
    frame: Frame
    atom: int
    away: np.ndarray


def _compressed_bonds(
    frames: Sequence[Frame], settings: AcceptanceSettings
) -> list[_CompressedBond]:
    """Return each frame with its shortest bond of each pair of elements compressed.

    The lighter atom moves. Bonds across the boundary of a cell are left out.
    """
    bonds = []
    for frame in frames:
        seen = set()
        for i, j in _bonds(frame):
            light, heavy = sorted((i, j), key=lambda atom: frame.numbers[atom])
            name = "-".join(
                chemical_symbol(int(frame.numbers[k])) for k in (heavy, light)
            )
            if name in seen:
                continue
            seen.add(name)
            apart = frame.positions[light] - frame.positions[heavy]
            positions = frame.positions.copy()
            positions[light] = frame.positions[heavy] + settings.compression * apart
            away = apart / np.linalg.norm(apart)
            bonds.append(
                _CompressedBond(name, replace(frame, positions=positions), light, away)
            )
    return bonds


def _bonds(frame: Frame) -> list[tuple[int, int]]:
    """Return pairs of bonded atoms, the shortest bonds first."""
    radii = covalent_radii[frame.numbers]
    first, second = np.triu_indices(len(frame), 1)
    apart = np.linalg.norm(frame.positions[first] - frame.positions[second], axis=1)
    near = apart / (radii[first] + radii[second])
    order = [k for k in np.argsort(near, kind="stable") if near[k] < _BONDED]
    return [(int(first[k]), int(second[k])) for k in order]


def _stability_check(
    potential: Potential,
    trained: TrainedWith,
    settings: AcceptanceSettings,
    dynamics: DynamicsSettings,
) -> Iterator[ModelCheck]:
    if not settings.steps:
        return
    calm = _calm_frames(trained)
    rngs = [
        random_stream(trained.seed, f"{trained.name}/stability/{index}")
        for index in range(settings.walkers)
    ]
    walkers = []
    for index, rng in enumerate(rngs):
        frame = calm[index * len(calm) // settings.walkers]
        velocities = maxwell_boltzmann(frame, dynamics.temperature, rng)
        walkers.append(Walker(index, 0, frame, velocities))
    moved = run_dynamics(walkers, potential, dynamics, settings.steps, rngs)
    stops = [walker.stopped for walker in moved.walkers if walker.stopped is not None]
    yield ModelCheck(
        f"share of walkers that guard rails stop within {settings.steps} steps",
        len(stops) / len(walkers),
        settings.stopped,
        detail=stops[0] if stops else "",
    )


def _calm_frames(trained: TrainedWith) -> Sequence[Frame]:
    """Return frames of ordinary MD, where there are some."""
    test = trained.test
    return trained.frames if test is None or not len(test) else test.batch.frames()


def _compositions(frames: Sequence[Frame]) -> list[Frame]:
    """Return the first frame of each composition."""
    first: dict[bytes, Frame] = {}
    for frame in frames:
        first.setdefault(np.sort(frame.numbers).tobytes(), frame)
    return list(first.values())
