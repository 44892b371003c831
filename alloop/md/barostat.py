"""Constant pressure by stochastic cell rescaling, with a Metropolis test.

Bernetti & Bussi, J. Chem. Phys. 153, 114107 (2020), for the volume; Del Tatto, Raiteri,
Bernetti & Bussi, Appl. Sci. 12, 1139 (2022), for the shape. Cell and positions are
multiplied by exp(X), velocities by exp(-X), where X = M + s G has the drift

    M = (β h / 3τ) (P_int - P), s² = 2 k_B T β h / (3 τ V)

and G is a standard normal symmetric matrix, or its part along the unit matrix where the
shape is kept. Such a step is accepted by the rule of Metropolis and Hastings, so that
the ensemble does not depend on its length: p ~ exp(-(H + P V) / k_B T), uniform in the
volume (and in the cell over V², which comes to the same for the volume).

| papers | here | unit |
|---|---|---|
| P₀, P_int | pressure, `internal_pressure` | eV/Å³ |
| β_T, τ_p, h | compressibility, time, duration | Å³/eV, fs, fs |
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.settings import COUNT, setting
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import BOLTZMANN, GIGAPASCAL, KINETIC, Booleans, Floats
from alloop.md.integrate import BodyConstants, PhasePoint, kinetic_energy

Shape: TypeAlias = Literal["isotropic", "anisotropic"]
# The point with these positions, velocities and cells.
EvaluateCells: TypeAlias = Callable[[Floats, Floats, Floats], PhasePoint]

_LARGEST = 0.1  # strain of a step; what asks for more is refused
_FREE = {"isotropic": 1, "anisotropic": 6}  # components of the strain


@dataclass(frozen=True, slots=True)
class Barostat:
    """The settings of constant pressure.

    pressure in eV/Å³, compressibility in Å³/eV; only its ratio to the time counts.
    Raises InputError for values that make no sense.
    """

    pressure: float = 0.0
    time: float = setting(
        500.0,
        "relaxation time of the volume of a material with this `compressibility`, fs",
        gt=0,
    )
    compressibility: float = setting(
        0.02,
        "estimate of the material's compressibility, 1/GPa",
        convert=lambda per_gigapascal: per_gigapascal / GIGAPASCAL,
        gt=0,
    )
    interval: int = setting(
        10,
        "MD steps between two changes of the cell, each of which takes a force call "
        "more",
        **COUNT,
    )
    shape: Shape = setting(
        "isotropic",
        "whether the cell keeps its shape, or changes it too, for crystals",
        key="cell",
    )

    def __post_init__(self) -> None:
        for name in ("time", "compressibility", "interval"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"expected a positive {name} of the barostat, got "
                    f"{getattr(self, name)}"
                )
        if not np.isfinite(self.pressure):
            raise InputError(
                f"expected a finite pressure of MD, got {self.pressure}; leave it out "
                "for a constant cell"
            )


class Draws(NamedTuple):
    """Random numbers of a change of all cells.

    normal (walkers, 3, 3), standard; uniform (walkers,) in [0, 1).
    """

    normal: Floats
    uniform: Floats


class CellPoint(NamedTuple):
    """Cells (walkers, 3, 3) in Å with the point in phase space of their atoms."""

    cells: Floats
    phase: PhasePoint


def draw_changes(
    barostat: Barostat, steps: int, rngs: Sequence[np.random.Generator]
) -> Iterator[Draws]:
    """Yield the random numbers of each change of the cells within `steps` MD steps."""
    count = -(-steps // barostat.interval)
    normal = np.array([rng.standard_normal((count, 3, 3)) for rng in rngs])
    uniform = np.array([rng.random(count) for rng in rngs])
    for number in range(count):
        yield Draws(normal[:, number], uniform[:, number])


def require_cells(batch: Batch) -> None:
    """Raise InputError for frames that are not periodic in all directions."""
    if not batch.pbc.all():
        raise InputError(
            "expected cells that repeat in all directions for MD at constant pressure, "
            f"got a frame with pbc {batch.pbc[~batch.pbc.all(axis=1)][0].tolist()}; "
            "leave `pressure` out"
        )


def internal_pressure(now: CellPoint, bodies: BodyConstants) -> Floats:
    """Return (Σ m v vᵀ)/V - stress, (walkers, 3, 3) in eV/Å³.

    Raises InputError where the potential gave no stress.
    """
    # The model's stress alone: it steers the proposals, which any stress may, and the
    # test that follows has the energies of biases.
    stress = now.phase.predictions.stress
    if stress is None:
        raise InputError(
            "expected a potential that gives the stress of cells, got one without; "
            "leave `pressure` out for MD in a constant cell"
        )
    v = now.phase.velocities
    flow = KINETIC * bodies.masses[:, :, None] * v[:, :, None] * v[:, None, :]
    # Stress is positive under tension, as in ASE, pressure under compression: hence
    # the minus below.
    total = np.add.reduceat(flow, bodies.offsets[:-1], axis=0)
    out: Floats = total / _volumes(now.cells)[:, None, None] - tensor_of_voigt(stress)
    return out


def change_cells(  # noqa: PLR0913 - a step with all that it depends on
    barostat: Barostat,
    now: CellPoint,
    bodies: BodyConstants,
    temperatures: Floats,
    timestep: float,
    draws: Draws,
    evaluate: EvaluateCells,
    moving: Booleans,
) -> CellPoint:
    """Propose a change of the cell of each moving walker, and keep it if it passes.

    temperatures (walkers,) in K; at 0 K there is no noise and each change is kept.
    """
    kT = BOLTZMANN * temperatures
    duration = barostat.interval * timestep
    mean, width = _proposal(barostat, now, bodies, kT, duration)
    strain = mean + width[:, None, None] * _projected(barostat, draws.normal)
    possible = moving & _is_small(strain)
    strain = np.where(possible[:, None, None], strain, 0.0)
    there = _strained(now, bodies, strain, evaluate)
    back, narrow = _proposal(barostat, there, bodies, kT, duration)
    # At 0 K nothing is tested; the 1 only stands where 0 would be divided by.
    heat = np.where(kT > 0.0, kT, 1.0)
    growth = np.log(_volumes(there.cells) / _volumes(now.cells))
    work = _enthalpy(barostat, there, bodies) - _enthalpy(barostat, now, bodies)
    forward = _squares(strain - mean) / (2.0 * np.where(kT > 0.0, width, 1.0) ** 2)
    # The way back takes -X from the mean strain there.
    backward = _squares(strain + back) / (2.0 * np.where(kT > 0.0, narrow, 1.0) ** 2)
    # 1: uniform in the volume is not uniform in its logarithm, in which steps are. The
    # rest is the ratio of the proposals' norms, since s² ~ 1/V.
    chance = (1.0 + _FREE[barostat.shape] / 2.0) * growth - work / heat
    with np.errstate(invalid="ignore", over="ignore"):
        # 1 - uniform is in (0, 1], whose logarithm is finite.
        passes = np.log1p(-draws.uniform) <= chance + forward - backward
    accepted = possible & np.isfinite(there.phase.driving_energies)
    return _either(accepted & (passes | (kT == 0.0)), there, now, bodies)


def _proposal(
    barostat: Barostat,
    now: CellPoint,
    bodies: BodyConstants,
    kT: Floats,
    duration: float,
) -> tuple[Floats, Floats]:
    """Return the mean (walkers, 3, 3) and the width (walkers,) of the next strain."""
    speed = barostat.compressibility * duration / (3.0 * barostat.time)
    excess = internal_pressure(now, bodies) - barostat.pressure * np.eye(3)
    width = np.sqrt(2.0 * kT * speed / _volumes(now.cells))
    return speed * _allowed(barostat, excess), width


def _projected(barostat: Barostat, normal: Floats) -> Floats:
    """Return standard normal strains from nine normal numbers a walker."""
    if barostat.shape == "isotropic":
        # The unit matrix over √3 has the norm 1, so that its factor is standard
        # normal.
        along: Floats = normal[:, :1, :1] * np.eye(3) / np.sqrt(3.0)
        return along
    return _allowed(barostat, normal)


def _allowed(barostat: Barostat, tensor: Floats) -> Floats:
    """Return the part of tensors (walkers, 3, 3) by which cells may change."""
    if barostat.shape == "isotropic":
        mean = np.trace(tensor, axis1=1, axis2=2) / 3.0
        out: Floats = mean[:, None, None] * np.eye(3)
    else:
        # The antisymmetric part would only turn the cell. Components off the diagonal
        # stand twice in the norm, and so get half the variance.
        out = 0.5 * (tensor + tensor.transpose(0, 2, 1))
    return out


def _is_small(strain: Floats) -> Booleans:
    """Return True for strains that are finite and within the largest (walkers,)."""
    return np.asarray(np.abs(strain).max(axis=(1, 2)) <= _LARGEST)  # False for NaN


def _strained(
    now: CellPoint, bodies: BodyConstants, strain: Floats, evaluate: EvaluateCells
) -> CellPoint:
    stretch, axes = np.linalg.eigh(strain)
    grow, shrink = (
        np.einsum("wik,wk,wjk->wij", axes, np.exp(sign * stretch), axes)
        for sign in (1.0, -1.0)
    )
    owner, phase = bodies.owner, now.phase
    cells = now.cells @ grow
    positions = np.einsum("ai,aij->aj", phase.positions, grow[owner])
    # As positions grow momenta shrink: the volume in phase space stays, and no
    # Jacobian of the atoms enters the test.
    velocities = np.einsum("ai,aij->aj", phase.velocities, shrink[owner])
    return CellPoint(cells, evaluate(positions, velocities, cells))


def _enthalpy(barostat: Barostat, now: CellPoint, bodies: BodyConstants) -> Floats:
    """Return E + E_kin + P V of each walker (walkers,) in eV."""
    energies = now.phase.driving_energies
    kinetic = kinetic_energy(now.phase.velocities, bodies)
    out: Floats = energies + kinetic + barostat.pressure * _volumes(now.cells)
    return out


def _either(
    chosen: Booleans, point: CellPoint, other: CellPoint, bodies: BodyConstants
) -> CellPoint:
    """Return `one` for the chosen walkers (walkers,) and `other` for the rest."""
    atoms = chosen[bodies.owner][:, None]

    def mixed(new: Predictions, old: Predictions) -> Predictions:
        stress = None
        if new.stress is not None and old.stress is not None:
            stress = np.where(chosen[:, None], new.stress, old.stress)
        energies = np.where(chosen, new.energies, old.energies)
        forces = np.where(atoms, new.forces, old.forces)
        return replace(new, energies=energies, forces=forces, stress=stress)

    new, old = point.phase, other.phase
    bias = None
    if new.bias is not None and old.bias is not None:
        bias = mixed(new.bias, old.bias)
    phase = PhasePoint(
        positions=np.where(atoms, new.positions, old.positions),
        velocities=np.where(atoms, new.velocities, old.velocities),
        predictions=mixed(new.predictions, old.predictions),
        bias=bias,
    )
    return CellPoint(np.where(chosen[:, None, None], point.cells, other.cells), phase)


def _squares(tensor: Floats) -> Floats:
    out: Floats = np.square(tensor).sum(axis=(1, 2))
    return out


def _volumes(cells: Floats) -> Floats:
    out: Floats = np.abs(np.linalg.det(cells))
    return out
