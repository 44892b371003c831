"""The state of walkers in MD, and the temperatures of their thermostats."""

from dataclasses import dataclass, field

import numpy as np

from alloop.core.arrays import Place
from alloop.core.units import Booleans, Floats, Integers
from alloop.md.guards import GuardTrip
from alloop.md.integrate import PhasePoint


@dataclass(frozen=True, slots=True, eq=False)
class StopRecord:
    """The guard that stopped a walker, and the step that the walker was put back to."""

    trip: GuardTrip
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class MDState:
    """The state of all walkers after `step` steps.

    cells (walkers, 3, 3) in Å. moving (walkers,): True for those that are not stopped,
    in numpy's array; stops: those that were stopped during this piece, by their index.
    """

    step: int
    phase: PhasePoint
    cells: Floats
    moving: Booleans
    stops: dict[int, StopRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Thermostats:
    """The temperatures of walkers' thermostats, K.

    of_walkers (walkers,), in numpy's array; where other arrays are kept, of_atoms
    (atoms, 1), and divisors (walkers,): the same, infinite where they are 0.
    """

    of_walkers: Floats
    of_atoms: Floats
    divisors: Floats

    @classmethod
    def of(cls, kelvin: Floats, owner: Integers, place: Place) -> "Thermostats":
        """Return those of walkers with these temperatures (walkers,).

        owner (atoms,): the walker of each atom. place: where other arrays are kept.
        """
        divisors = np.where(kelvin > 0.0, kelvin, np.inf)
        return cls(kelvin, place(kelvin[owner][:, None]), place(divisors))
