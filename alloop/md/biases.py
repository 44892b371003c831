"""Biases on collective variables, which move walkers beside the model's forces.

Well-tempered metadynamics: Barducci, Bussi & Parrinello, Phys. Rev. Lett. 100, 020603
(2008), with several walkers: Raiteri et al., J. Phys. Chem. B 110, 3533 (2006).

| paper | here | unit |
|---|---|---|
| s, σ | values, widths | of the variable |
| V(s, t), ω τ_G | energies, heights | eV |
| ΔT = (γ - 1) T | (factor - 1) temperatures | K |

They are given to `alloop.md.dynamics.run_dynamics` as `biases`. A force above a limit
is scaled down for all atoms of its walker, so that it keeps its direction and turns no
molecule; it is no gradient then. What goes wrong all the same ends at the guards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from alloop.core.arrays import (
    Place,
    library,
    on_host,
    segment_maxima,
    to_numpy,
)
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.settings import COUNT, setting
from alloop.core.units import BOLTZMANN, Booleans, Floats, Integers
from alloop.md.collective_variables import (
    CollectiveVariable,
    Unit,
    WalkerVariables,
    nearest_difference,
    rotatable_torsions,
    transfer_differences,
    walker_variables,
)

VariableChoice: TypeAlias = Literal["torsions", "transfers", "both", "shape"]


@runtime_checkable
class AdaptiveBias(Potential, Protocol):
    """A bias that learns from the walkers as they move, in place."""

    def adapt(self, step: int, batch: Batch, moving: Booleans) -> None:
        """Take in the frames after a step of MD.

        step: from 1 on in a piece; moving (walkers,): True for walkers not stopped.
        """


@dataclass(frozen=True, slots=True)
class MetadynamicsSettings:
    """Well-tempered metadynamics, as it moves copies of the walkers of a round.

    named: variables of every molecule in place of those chosen by `variables`.
    """

    share: float = setting(
        0.3, "share of a round's labels of flagged frames for these", gt=0, lt=1
    )
    steps: int = setting(500, "biased MD steps of each walker in a round", **COUNT)
    variables: VariableChoice = setting(
        "torsions",
        "what is biased: torsions of bonds that turn, hydrogens between a donor and an "
        "acceptor, both in turn, or the shape: the distance from those visited before",
    )
    dimensions: int = setting(
        2, "collective variables of a molecule that are biased together", ge=1, le=3
    )
    height: float = setting(0.05, "height of the first hills, eV", gt=0, le=10)
    pace: int = setting(20, "MD steps between two hills of a walker", **COUNT)
    factor: float = setting(
        10.0, "bias factor: how much hotter the variables become", gt=1, le=1000
    )
    angle_width: float = setting(
        0.3, "width of hills in angles and torsions, rad", gt=0, le=3
    )
    length_width: float = setting(0.1, "width of hills in distances, Å", gt=0, le=10)
    shape_width: float = setting(
        0.3,
        "width of hills in shapes: root mean square distance of heavy atoms, Å",
        gt=0,
        le=10,
    )
    reach: float = setting(
        3.0, "largest distance of a hydrogen from its acceptor, Å", gt=0, le=10
    )
    force: float = setting(
        5.0,
        "largest force of the bias on an atom, eV/Å; a larger one is scaled down",
        gt=0,
    )
    coordination_width: float = setting(
        0.1, "width of hills in coordination numbers", gt=0, le=10
    )
    named: tuple[CollectiveVariable, ...] = ()

    def width(self, unit: Unit) -> float:
        """Return the width of hills in a variable with this unit."""
        widths = {"rad": self.angle_width, "Å": self.length_width}
        return widths.get(unit, self.coordination_width)


@dataclass(frozen=True, slots=True)
class UncertaintySettings:
    """Uncertainty-driven dynamics, as it moves copies of the walkers of a round."""

    share: float = setting(
        0.3, "share of a round's labels of flagged frames for these", gt=0, lt=1
    )
    steps: int = setting(500, "biased MD steps of each walker in a round", **COUNT)
    strength: float = setting(1.0, "depth of the bias, eV", gt=0, le=100)
    width: float = setting(
        2.0,
        "surprise, as a multiple of the threshold, at which two thirds of the depth "
        "are reached",
        gt=0,
    )
    repulsion: float = setting(
        0.0,
        "height of the hills by which walkers of a molecule keep apart in the space of "
        "descriptors, eV; 0: none",
        ge=0,
        le=100,
    )
    spacing: float = setting(
        0.5,
        "width of these hills, as a multiple of the spread of the training frames",
        gt=0,
    )
    force: float = setting(
        5.0,
        "largest force of the bias on an atom, eV/Å; a larger one is scaled down",
        gt=0,
    )


def chosen_variables(
    frame: Frame, settings: MetadynamicsSettings, turn: int = 0
) -> tuple[CollectiveVariable, ...]:
    """Return the variables of a molecule that are biased together; none if it has none.

    turn: each takes the next ones, so that rounds bias them all.
    """
    if settings.named:
        return settings.named
    torsions = rotatable_torsions(frame)
    transfers = transfer_differences(frame, settings.reach)
    pool: list[CollectiveVariable] = []
    if settings.variables == "torsions":
        pool += torsions
    elif settings.variables == "transfers":
        pool += transfers
    else:
        for place in range(max(len(torsions), len(transfers))):
            pool += [*torsions[place : place + 1], *transfers[place : place + 1]]
    count = min(settings.dimensions, len(pool))
    first = turn * count
    return tuple(pool[(first + place) % len(pool)] for place in range(count))


@dataclass(frozen=True, slots=True, eq=False)
class Hills:
    """Gaussian hills of metadynamics, in the order in which they were made.

    centres and widths (hills, variables) in the units of the variables, heights
    (hills,) in eV; molecules (hills,): those whose walkers feel them.
    """

    centres: Floats
    heights: Floats
    widths: Floats
    molecules: Integers

    @classmethod
    def none(cls, variables: int) -> "Hills":
        """Return no hills in so many variables, in numpy's arrays."""
        empty = np.zeros((0, variables))
        return cls(empty, np.zeros(0), empty, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.heights)

    def joined(self, later: "Hills") -> "Hills":
        """Return these hills, then the later ones."""
        functions = library(self.heights)
        return Hills(
            functions.concatenate([self.centres, later.centres]),
            functions.concatenate([self.heights, later.heights]),
            functions.concatenate([self.widths, later.widths]),
            functions.concatenate([self.molecules, later.molecules]),
        )

    def moved(self, place: Place) -> "Hills":
        """Return the hills with their arrays moved to another place."""
        return Hills(
            place(self.centres),
            place(self.heights),
            place(self.widths),
            place(self.molecules),
        )

    def evaluate(
        self, values: Floats, molecules: Integers, periods: Floats
    ) -> tuple[Floats, Floats]:
        """Return the sums V (points,) in eV and dV/ds (points, variables).

        values and periods (points, variables), molecules (points,). Time and memory
        grow as points times hills.
        """
        functions = library(values)
        reduced = []
        for d in range(values.shape[1]):  # sums over a short last axis are slow
            off = values[:, None, d] - self.centres[:, d]
            off = nearest_difference(off, periods[:, None, d])
            reduced.append(off / self.widths[:, d])
        squares = sum(z * z for z in reduced)
        # A factor and no selection: shapes stay those of all walkers, on a device too.
        shared = molecules[:, None] == self.molecules
        terms = self.heights * functions.exp(-0.5 * squares) * shared
        slopes = [
            -(terms * z / self.widths[:, d]).sum(1) for d, z in enumerate(reduced)
        ]
        return terms.sum(1), functions.stack(slopes, 1)


@dataclass(slots=True, eq=False)
class Metadynamics:
    """Well-tempered metadynamics; an AdaptiveBias.

    All walkers of a molecule make and feel the same hills, each `settings.pace` steps
    of a piece; those made together are as high as the sum before them says. hills:
    those so far, where arrays are kept; `Hills.moved(to_numpy)` brings them back. A
    piece is repeated with the hills that it began with, in a new object.
    temperatures (walkers,) in K: of the thermostats, of which each scales its walker's
    hills; free energies need the same one for all. widths (walkers, variables).
    """

    variables: WalkerVariables
    settings: MetadynamicsSettings
    temperatures: Floats
    widths: Floats
    molecules: Integers
    hills: Hills

    @classmethod
    def of(
        cls,
        walkers: Sequence[Walker],
        variables: Mapping[int, Sequence[CollectiveVariable]],
        settings: MetadynamicsSettings,
        *,
        temperature: float,
        hills: Hills | None = None,
        place: Place = on_host,
    ) -> "Metadynamics":
        """Return the bias of walkers.

        variables: by molecule, one to three; a molecule without moves unbiased.
        temperature in K: for walkers without one of their own. hills: those made in
        earlier pieces, in numpy's arrays. place: where the potential keeps arrays.
        Raises InputError for a temperature of 0, for hills in another number of
        variables, and as `walker_variables`.
        """
        kelvin = _thermostat_temperatures(walkers, temperature)
        rows = [tuple(variables.get(walker.molecule, ())) for walker in walkers]
        batch = pack_frames([walker.frame for walker in walkers])
        placed = walker_variables(batch, rows, place)
        columns = placed.used.shape[1]
        hills = Hills.none(columns) if hills is None else hills
        if hills.centres.shape[1] != columns:
            raise InputError(
                f"expected hills in as many variables as the walkers', {columns}, got "
                f"{hills.centres.shape[1]}"
            )
        # 1 for a variable that a walker lacks, since hills are divided by widths.
        widths = np.ones((len(walkers), columns))
        for index, row in enumerate(rows):
            widths[index, : len(row)] = [settings.width(x.unit) for x in row]
        return cls(
            variables=placed,
            settings=settings,
            temperatures=place(np.array(kelvin)),
            widths=place(widths),
            molecules=place(np.array([walker.molecule for walker in walkers])),
            hills=hills.moved(place),
        )

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return the bias (walkers,) in eV and its forces (atoms, 3) in eV/Å."""
        values, gradients = self.variables.evaluate(batch.positions)
        energies, slopes = self._evaluate(values)
        forces = self.variables.forces(batch.positions, gradients, slopes)
        return Predictions(
            energies, _capped(self.variables, forces, self.settings.force)
        )

    def adapt(self, step: int, batch: Batch, moving: Booleans) -> None:
        """Make a hill at each moving walker, every `settings.pace` steps."""
        if step % self.settings.pace:
            return
        values, _ = self.variables.evaluate(batch.positions)
        energies, _ = self._evaluate(values)
        # The bias factor is γ = (T + ΔT)/T.
        scale = BOLTZMANN * (self.settings.factor - 1.0) * self.temperatures  # k_B ΔT
        heights = self.settings.height * library(values).exp(-energies / scale)
        # Who has no first variable has none, and no place to put a hill.
        makers = self.variables.place(moving) & (self.variables.used[:, 0] > 0.0)
        hills = Hills(values, heights, self.widths, self.molecules)
        self.hills = self.hills.joined(hills.moved(lambda array: array[makers]))

    def _evaluate(self, values: Floats) -> tuple[Floats, Floats]:
        return self.hills.evaluate(values, self.molecules, self.variables.periods)


@dataclass(slots=True, eq=False)
class ShapeMetadynamics:
    """Metadynamics on the distance from shapes visited before; an AdaptiveBias.

    V = Σ h exp(-d²/2σ²), d the root mean square distance of heavy atoms once one shape
    lies on the other (Grimme, J. Chem. Theory Comput. 15, 2847 (2019), eq. 1): no
    variable needs to be chosen. Heights, sharing and repeats are as in `Metadynamics`.
    weights (atoms,): 1 for heavy atoms, else 0; all 1 in a molecule with fewer than
    three. shapes: arrays (atoms of the molecule, 3) by molecule, with heights in eV.
    """

    batch: Batch
    settings: MetadynamicsSettings
    temperatures: tuple[float, ...]
    molecules: tuple[int, ...]
    weights: tuple[Floats, ...]
    shapes: dict[int, list[tuple[float, Floats]]] = field(default_factory=dict)
    place: Place = on_host

    @classmethod
    def of(
        cls,
        walkers: Sequence[Walker],
        settings: MetadynamicsSettings,
        *,
        temperature: float,
        place: Place = on_host,
    ) -> "ShapeMetadynamics":
        """Return the bias of walkers; the other arguments as in `Metadynamics.of`.

        Raises InputError for a temperature of 0, and for walkers with a cell.
        """
        kelvin = _thermostat_temperatures(walkers, temperature)
        batch = pack_frames([walker.frame for walker in walkers])
        if batch.pbc.any():
            raise InputError("expected molecules without a cell to bias, got a cell")
        heavy = [walker.frame.numbers > 1 for walker in walkers]
        weights = tuple(
            np.where(x, 1.0, 0.0) if x.sum() > 2 else np.ones(len(x)) for x in heavy
        )
        molecules = tuple(walker.molecule for walker in walkers)
        return cls(
            batch=batch,
            settings=settings,
            temperatures=tuple(kelvin),
            molecules=molecules,
            weights=weights,
            place=place,
        )

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return the bias (walkers,) in eV and its forces (atoms, 3) in eV/Å."""
        terms = [self._of_walker(x, i) for i, x in enumerate(self._parts(batch))]
        forces = np.concatenate([force for _, force in terms])
        energies = np.array([energy for energy, _ in terms])
        offsets, owner = self.batch.offsets, self.batch.frame_index
        forces = capped_forces(forces, offsets, owner, self.settings.force)
        return Predictions(self.place(energies), self.place(forces))

    def adapt(self, step: int, batch: Batch, moving: Booleans) -> None:
        """Make a hill at each moving walker, every `settings.pace` steps."""
        if step % self.settings.pace:
            return
        hills = []
        for index, x in enumerate(self._parts(batch)):
            scale = BOLTZMANN * (self.settings.factor - 1.0) * self.temperatures[index]
            energy, _ = self._of_walker(x, index)
            height = self.settings.height * float(np.exp(-energy / scale))
            hills.append((self.molecules[index], height, np.array(x)))
        for (molecule, height, x), moves in zip(hills, moving, strict=True):
            if moves:
                self.shapes.setdefault(molecule, []).append((height, x))

    def _parts(self, batch: Batch) -> list[Floats]:
        return np.split(to_numpy(batch.positions), self.batch.offsets[1:-1])

    def _of_walker(self, positions: Floats, index: int) -> tuple[float, Floats]:
        """Return V and -dV/dx (atoms, 3) of one walker."""
        hills = self.shapes.get(self.molecules[index], [])
        if not hills:
            return 0.0, np.zeros_like(positions)
        w = self.weights[index]
        heights = np.array([height for height, _ in hills])
        shapes = np.stack([shape for _, shape in hills])
        off = superposed(positions, shapes, w)  # x - R y, (hills, atoms, 3)
        variance = self.settings.shape_width**2
        squares = (w[:, None] * off**2).sum(axis=(1, 2)) / w.sum()
        terms = heights * np.exp(-0.5 * squares / variance)
        # The rotation is the best one: to first order it does not change d².
        slopes = np.einsum("h,hai->ai", terms, off) * w[:, None] / w.sum() / variance
        return float(terms.sum()), slopes


def superposed(positions: Floats, shapes: Floats, weights: Floats) -> Floats:
    """Return x - R y (shapes, atoms, 3) of positions x, and shapes y turned onto them.

    positions (atoms, 3), shapes (shapes, atoms, 3) in Å; both are moved to their
    centres, and turned so that the weighted squares are least (Kabsch, 1976).
    """
    mean = weights / weights.sum()
    x = positions - mean @ positions
    y = shapes - np.einsum("a,sai->si", mean, shapes)[:, None]
    covariance = np.einsum("a,sai,aj->sij", weights, y, x)
    left, _, right = np.linalg.svd(covariance)
    signs = np.ones((len(shapes), 3))
    signs[:, 2] = np.sign(np.linalg.det(left @ right))  # no mirror images
    rotation = (left * signs[:, None]) @ right
    out: Floats = x - y @ rotation
    return out


@dataclass(frozen=True, slots=True, eq=False)
class HarmonicWindows:
    """A harmonic window for each walker: Σ k (s - centre)² / 2.

    centres and stiffness (walkers, variables), k in eV per squared unit, brought to the
    variables by `variables.place`. force in eV/Å: the largest on an atom, None without
    a limit; where it acts, the walker is in no harmonic window, and
    `window_free_energy` is wrong.
    """

    variables: WalkerVariables
    centres: Floats
    stiffness: Floats
    force: float | None = None

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return the bias (walkers,) in eV and its forces (atoms, 3) in eV/Å."""
        values, gradients = self.variables.evaluate(batch.positions)
        off = nearest_difference(values - self.centres, self.variables.periods)
        slopes = self.stiffness * off * self.variables.used
        energies = 0.5 * (slopes * off).sum(1)
        forces = self.variables.forces(batch.positions, gradients, slopes)
        return Predictions(energies, _capped(self.variables, forces, self.force))


@dataclass(frozen=True, slots=True, eq=False)
class Walls:
    """Half parabolas that keep variables between limits: k (s - limit)² / 2 beyond.

    lower and upper (walkers, variables), infinite where there is none, brought to the
    variables by `variables.place`; stiffness: k in eV per squared unit. force in eV/Å:
    the largest on an atom. Raises InputError for a limit of a torsion, which has no
    beyond.
    """

    variables: WalkerVariables
    lower: Floats
    upper: Floats
    stiffness: float
    force: float | None = 10.0

    def __post_init__(self) -> None:
        limits = np.isfinite(to_numpy(self.lower)) | np.isfinite(to_numpy(self.upper))
        if (limits & (to_numpy(self.variables.periods) > 0.0)).any():
            raise InputError(
                "expected walls on variables without a period, got one on a torsion; "
                "use a harmonic window"
            )

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return the bias (walkers,) in eV and its forces (atoms, 3) in eV/Å."""
        values, gradients = self.variables.evaluate(batch.positions)
        functions = library(values)
        above = functions.clip(values - self.upper, 0.0, None)
        below = functions.clip(self.lower - values, 0.0, None)
        off = (above - below) * self.variables.used
        slopes = self.stiffness * off
        energies = 0.5 * (slopes * off).sum(1)
        forces = self.variables.forces(batch.positions, gradients, slopes)
        return Predictions(energies, _capped(self.variables, forces, self.force))


def capped_forces(
    forces: Floats, offsets: Integers, owner: Integers, largest: float | None
) -> Floats:
    """Return forces (atoms, 3), each walker's scaled so that none is above `largest`.

    In eV/Å; None for no limit. offsets (walkers + 1,): of the walkers' atoms; owner
    (atoms,): their walkers.
    """
    if largest is None:
        return forces
    functions = library(forces)
    squares = segment_maxima((forces * forces).sum(-1), offsets)
    lengths = functions.sqrt(functions.clip(squares, largest**2, None))
    out: Floats = forces * (largest / lengths)[owner][:, None]
    return out


def _capped(
    variables: WalkerVariables, forces: Floats, largest: float | None
) -> Floats:
    return capped_forces(forces, variables.atom_offsets, variables.owner, largest)


def _thermostat_temperatures(
    walkers: Sequence[Walker], temperature: float
) -> list[float]:
    """Return the temperatures of the walkers in K, `temperature` where one has none."""
    kelvin = [temperature if x.temperature is None else x.temperature for x in walkers]
    if not min(kelvin) > 0.0:
        raise InputError(
            "expected a temperature above 0 for well-tempered metadynamics, got 0"
        )
    return kelvin
