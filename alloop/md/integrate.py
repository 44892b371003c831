"""Integrators on packed arrays, numpy's or a device's: velocity Verlet, BAOAB Langevin.

Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34: the Langevin equation is split
into B (kick by the force), A (drift), O (friction and noise, solved exactly).

| paper | here | unit |
|---|---|---|
| q, p/m | positions, velocities | Å, Å/fs |
| h, γ, k_B T | timestep, friction, BOLTZMANN * temperature | fs, 1/fs, eV |
| exp(-γh) | decay | 1 |
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from alloop.core.arrays import Place, library, on_host, segment_sums
from alloop.core.atoms import frame_masses
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.settings import setting
from alloop.core.units import (
    BOLTZMANN,
    FORCE_TO_ACCELERATION,
    KINETIC,
    Booleans,
    Floats,
    Integers,
)

_BLOCK = 64  # steps of noise that are drawn at once


@dataclass(frozen=True, slots=True, eq=False)
class BodyConstants:
    """The constants of moving walkers.

    masses (atoms, 1) and their sums totals (walkers, 1) in amu; offsets (walkers + 1,),
    owner (atoms,); held (walkers, 1): True where the centre of mass is kept at rest,
    None where it is nowhere; freedom (walkers,): degrees of freedom, 3N - 3 where it is
    held and 3N where it is not.
    """

    masses: Floats
    totals: Floats
    offsets: Integers
    owner: Integers
    held: Booleans | None
    freedom: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PhasePoint:
    """A point in phase space, with the potential's predictions there.

    positions (atoms, 3) in Å, velocities (atoms, 3) in Å/fs. predictions: the model's
    alone, which candidates, trajectories and errors hold; bias: the sum of the bias
    potentials that move the walkers besides, None without any.
    """

    positions: Floats
    velocities: Floats
    predictions: Predictions
    bias: Predictions | None = None

    @property
    def driving_forces(self) -> Floats:
        """The forces that move the walkers, bias included (atoms, 3)."""
        if self.bias is None:
            return self.predictions.forces
        total: Floats = self.predictions.forces + self.bias.forces
        return total

    @property
    def driving_energies(self) -> Floats:
        """The energies in which the walkers move, bias included (walkers,)."""
        if self.bias is None:
            return self.predictions.energies
        total: Floats = self.predictions.energies + self.bias.energies
        return total

    def moved(self, place: Place) -> "PhasePoint":
        """Return the point with all of its arrays moved to another place."""
        return PhasePoint(
            positions=place(self.positions),
            velocities=place(self.velocities),
            predictions=self.predictions.moved(place),
            bias=None if self.bias is None else self.bias.moved(place),
        )


# The point with these positions (atoms, 3) in Å and velocities (atoms, 3) in Å/fs.
Evaluate: TypeAlias = Callable[[Floats, Floats], PhasePoint]


@dataclass(frozen=True, slots=True)
class StepConditions:
    """The conditions of a step: timestep in fs, temperature of a thermostat in K.

    temperature: of all atoms, or of each (atoms, 1).
    """

    timestep: float
    temperature: float | Floats = 0.0


class Integrator(Protocol):
    """An algorithm by which walkers move; a frozen dataclass of its own settings.

    kind: its name in files. is_stochastic: True if its steps need random numbers.
    """

    kind: ClassVar[str]
    is_stochastic: ClassVar[bool]

    def fixed_centres(self, batch: Batch) -> Booleans:
        """Return True for walkers whose centre of mass must not move (walkers,)."""

    def step(
        self,
        phase: PhasePoint,
        bodies: BodyConstants,
        conditions: StepConditions,
        noise: Floats,
        evaluate: Evaluate,
    ) -> PhasePoint:
        """Advance by one step; noise (atoms, 3) standard normal, or empty."""


@dataclass(frozen=True, slots=True)
class VelocityVerlet:
    """Velocity Verlet: constant energy, no centre of mass moves."""

    kind: ClassVar[str] = "verlet"
    is_stochastic: ClassVar[bool] = False

    def fixed_centres(self, batch: Batch) -> Booleans:
        """Return True for all walkers (walkers,)."""
        return np.ones(len(batch), dtype=np.bool_)

    def step(
        self,
        phase: PhasePoint,
        bodies: BodyConstants,
        conditions: StepConditions,
        noise: Floats,  # noqa: ARG002
        evaluate: Evaluate,
    ) -> PhasePoint:
        """Advance by one step."""
        h, m = conditions.timestep, bodies.masses
        v = kick_velocities(phase.velocities, phase.driving_forces, m, h / 2)
        q = drift_positions(phase.positions, v, h)
        after = evaluate(q, v)
        v = kick_velocities(v, after.driving_forces, m, h / 2)
        # A network's forces sum to zero within rounding only, which millions of steps
        # would add up.
        return replace(after, velocities=without_drift(v, bodies))


@dataclass(frozen=True, slots=True)
class Langevin:
    """BAOAB Langevin dynamics.

    Where the centre of mass is held, its momentum is projected out after O, which
    leaves the canonical distribution of the other 3N - 3 momenta. Raises InputError for
    a negative friction.
    """

    kind: ClassVar[str] = "langevin"
    is_stochastic: ClassVar[bool] = True
    friction: float = setting(0.01, "friction of the thermostat, 1/fs", gt=0)

    def __post_init__(self) -> None:
        if not self.friction >= 0.0:
            raise InputError(
                f"expected friction of MD not below 0, got {self.friction}"
            )

    def fixed_centres(self, batch: Batch) -> Booleans:
        """Return True without a cell (walkers,): noise would carry a molecule away."""
        return ~np.asarray(batch.pbc.any(axis=1), dtype=np.bool_)

    def step(
        self,
        phase: PhasePoint,
        bodies: BodyConstants,
        conditions: StepConditions,
        noise: Floats,
        evaluate: Evaluate,
    ) -> PhasePoint:
        """Advance by one step; noise (atoms, 3) standard normal."""
        h, m = conditions.timestep, bodies.masses
        v = kick_velocities(phase.velocities, phase.driving_forces, m, h / 2)  # B
        q = drift_positions(phase.positions, v, h / 2)  # A
        # O between the drifts: positions of a harmonic well are then distributed
        # exactly, whatever the timestep.
        v = without_drift(self._thermostat(v, noise, m, conditions), bodies)  # O
        q = drift_positions(q, v, h / 2)  # A
        after = evaluate(q, v)
        v = kick_velocities(v, after.driving_forces, m, h / 2)  # B
        return replace(after, velocities=v)

    def _thermostat(
        self, v: Floats, noise: Floats, mass: Floats, conditions: StepConditions
    ) -> Floats:
        """Apply the exact Ornstein-Uhlenbeck step: friction and noise over h fs."""
        decay = np.exp(-self.friction * conditions.timestep)
        variance = _thermal_variance(mass, conditions.temperature)
        # What friction takes from the variance, noise gives back: k_B T/m stays.
        share = float(1.0 - decay**2)
        spread = library(mass).sqrt(share * variance)  # (atoms, 1) Å/fs
        out: Floats = float(decay) * v + spread * noise
        return out


def draw_noise(
    integrator: Integrator,
    sizes: Sequence[int],
    steps: int,
    rngs: Sequence[np.random.Generator],
    place: Place = on_host,
) -> Iterator[Floats]:
    """Yield normal numbers (atoms, 3) for each step, from each walker's own stream.

    sizes: the walkers' numbers of atoms. place: where they are wanted, which gets
    several steps at once. Arrays are empty for integrators without random numbers.
    """
    if not integrator.is_stochastic:
        yield from repeat(place(np.zeros((0, 3))), steps)
        return
    for start in range(0, steps, _BLOCK):
        count = min(_BLOCK, steps - start)
        # A walker's numbers are its own stream's, step after step: they depend neither
        # on the other walkers nor on the size of a block.
        drawn = [
            rng.standard_normal((count, size, 3))
            for rng, size in zip(rngs, sizes, strict=True)
        ]
        yield from place(np.concatenate(drawn, axis=1))


def body_constants(
    batch: Batch, held: Booleans, place: Place = on_host
) -> BodyConstants:
    """Return the constants of a batch.

    held (walkers,): True where the centre of mass is kept at rest. place: where they
    are wanted.
    """
    masses = frame_masses(batch.numbers)[:, None]
    held = np.asarray(held, dtype=np.bool_)
    return BodyConstants(
        masses=place(masses),
        totals=place(segment_sums(masses, batch.offsets)),
        offsets=place(batch.offsets),
        owner=place(batch.frame_index),
        held=place(held[:, None]) if held.any() else None,
        freedom=place(3.0 * batch.sizes - 3.0 * held),
    )


def kick_velocities(v: Floats, force: Floats, mass: Floats, h: float) -> Floats:
    """Return v + h F/m; force (atoms, 3) in eV/Å, mass (atoms, 1) in amu, h in fs."""
    return v + (h * FORCE_TO_ACCELERATION) * force / mass


def drift_positions(q: Floats, v: Floats, h: float) -> Floats:
    """Return q + h v."""
    return q + h * v


def without_drift(v: Floats, bodies: BodyConstants) -> Floats:
    """Return velocities v with the centre of mass at rest where it is held."""
    if bodies.held is None:
        return v
    momentum = segment_sums(bodies.masses * v, bodies.offsets)  # (walkers, 3)
    out: Floats = v - (bodies.held * momentum / bodies.totals)[bodies.owner]
    return out


def without_rotation(positions: Floats, velocities: Floats, mass: Floats) -> Floats:
    """Return velocities (atoms, 3) of one molecule without angular momentum.

    Positions in Å, mass (atoms, 1); an atom or a linear molecule is no special case.
    """
    r = positions - (mass * positions).sum(axis=0) / mass.sum()
    angular = (mass * np.cross(r, velocities)).sum(axis=0)  # L, amu Å²/fs
    squares = (mass * r**2).sum() * np.eye(3)
    inertia = squares - (mass * r).T @ r  # I = Σ m (r² 1 - r rᵀ), amu Å²
    # About the axis of a linear molecule the inertia is rounding error, whose inverse
    # would be huge.
    omega = np.linalg.pinv(inertia, rcond=1e-10) @ angular  # 1/fs
    out: Floats = velocities - np.cross(omega, r)
    return out


def maxwell_boltzmann(
    frame: Frame, temperature: float, rng: np.random.Generator, *, rotation: bool = True
) -> Floats:
    """Return thermal velocities (atoms, 3) in Å/fs with the centre of mass at rest.

    temperature in K, over the 3N - 3 other degrees of freedom; without `rotation` the
    molecule does not turn either (3N - 6, or 3N - 5 where it is linear).
    """
    m = frame_masses(frame.numbers)[:, None]
    drawn = rng.standard_normal((len(frame), 3))
    v = np.sqrt(_thermal_variance(m, temperature)) * drawn
    # Projected and not rescaled: the other momenta keep their thermal variance, and
    # the temperature is right on average.
    v = v - (m * v).sum(axis=0) / m.sum()
    return v if rotation else without_rotation(frame.positions, v, m)


def kinetic_energy(velocities: Floats, bodies: BodyConstants) -> Floats:
    """Return Σ m v²/2 of each walker (walkers,) in eV."""
    per_atom = 0.5 * KINETIC * bodies.masses[:, 0] * (velocities**2).sum(axis=1)
    out: Floats = segment_sums(per_atom, bodies.offsets)
    return out


def velocity_temperature(velocities: Floats, bodies: BodyConstants) -> Floats:
    """Return 2 E_kin / (f k_B) of each walker (walkers,) in K; 0 where f is 0."""
    functions = library(velocities)
    # A single atom with its centre held has no freedom, and 0/0 no temperature.
    f = functions.clip(bodies.freedom, 1.0, None)
    kelvin = 2.0 * kinetic_energy(velocities, bodies) / (f * BOLTZMANN)
    out: Floats = functions.where(bodies.freedom > 0.0, kelvin, 0.0)
    return out


def _thermal_variance(mass: Floats, temperature: float | Floats) -> Floats:
    """Return k_B T/m in (Å/fs)²."""
    return BOLTZMANN * temperature * FORCE_TO_ACCELERATION / mass
