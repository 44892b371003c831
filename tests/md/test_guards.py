"""Each guard rail trips, picks a frame before, and leaves the others walking."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from ase.data import atomic_numbers

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.contacts import all_pairs, closest_contact, relative_distances
from alloop.md.dynamics import DynamicsSettings, Exploration, run_dynamics
from alloop.md.guards import (
    GuardReadings,
    Guards,
    guard_geometry,
    proton_transfers,
    tripped_guards,
)
from alloop.md.integrate import VelocityVerlet

OFF = Guards(force=None, contact=None, bond=None, heat=None)
NVE = DynamicsSettings(VelocityVerlet(), temperature=300.0, timestep=0.5, stride=1)


@dataclass(frozen=True)
class Distance:
    """Surprise is the bond length."""

    def score(self, batch: Batch, predictions: Predictions) -> Floats:  # noqa: ARG002
        assert predictions.descriptors is not None
        return predictions.descriptors[::2, 0]


@dataclass(frozen=True)
class Sick:
    """A free diatomic; once longer than `limit` Å, something is not finite."""

    limit: float
    what: str

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        r = length(batch)
        ill = np.where(r > self.limit, np.inf if self.what == "inf" else np.nan, 0.0)
        energies = ill if self.what == "energy" else np.zeros(len(batch))
        forces = np.zeros_like(batch.positions)
        if self.what != "energy":
            forces[::2, 0] = ill
        described = np.repeat(r, 2)[:, None] if descriptors else None
        return Predictions(energies, forces, described)


def length(batch: Batch) -> Floats:
    x = batch.positions.reshape(-1, 2, 3)
    out: Floats = np.linalg.norm(x[:, 1] - x[:, 0], axis=1)
    return out


def pair(frame: Frame, speed: float = 0.0) -> list[Walker]:
    """One walker whose atoms part at `speed` Å/fs each, and one that is at rest."""
    v = np.array([[0.0, 0.0, -speed], [0.0, 0.0, speed]])
    return [Walker(0, 0, frame, v, step=100), Walker(1, 0, frame, 0.0 * v)]


def go(
    walkers: list[Walker],
    potential: Potential,
    guards: Guards,
    threshold: float | None = None,
    steps: int = 200,
) -> Exploration:
    return run_dynamics(
        walkers,
        potential,
        replace(NVE, guards=guards),
        steps,
        [random_stream(0, f"{walker.index}") for walker in walkers],
        scorer=Distance(),
        threshold=threshold,
        keep=2,
    )


@pytest.mark.parametrize(
    ("guards", "force", "speed", "origin", "sentence"),
    [
        (replace(OFF, bond=2.0), 0.0, 0.01, "bond", "a bond at 2.0"),
        (replace(OFF, contact=0.6), 0.0, -0.01, "contact", "radii, below 0.6"),
        (replace(OFF, heat=10.0), 2.0, 0.0, "temperature", "times as hot"),
    ],
)
def test_a_guard_stops_its_walker_and_picks_the_frame_before(
    nitrogen: Frame,
    push: Callable[[float], Potential],
    guards: Guards,
    force: float,
    speed: float,
    origin: str,
    sentence: str,
) -> None:
    walkers = pair(nitrogen, speed)
    found = go(walkers, push(force), guards)
    stopped = found.walkers[0]
    assert sentence in (stopped.stopped or "")
    rescued = [c for c in found.candidates if c.walker == 0 and c.origin == origin]
    assert len(rescued) == 1
    assert rescued[0].frame == stopped.frame
    assert rescued[0].step == stopped.step
    assert go(walkers, push(force), OFF).walkers[0].stopped is None
    trip = first_stop(walkers[0], push(force), guards)
    assert 5 <= trip - (stopped.step - 100) <= 10


def first_stop(walker: Walker, potential: Potential, guards: Guards) -> int:
    """The step at which the guard trips: the shortest run that ends with a stop."""
    low, high = 0, 200
    while high - low > 1:
        steps = (low + high) // 2
        (there,) = go([walker], potential, guards, steps=steps).walkers
        low, high = (low, steps) if there.stopped else (steps, high)
    return high


def test_the_force_guard_looks_at_the_largest_force(
    nitrogen: Frame, push: Callable[[float], Potential]
) -> None:
    strong = go(pair(nitrogen), push(31.0), Guards())
    assert [w.stopped for w in strong.walkers] == ["force 31.0 eV/Å above 30"] * 2
    assert {c.origin for c in strong.candidates} == {"force"}
    weak = go(pair(nitrogen), push(29.0), Guards(heat=None), steps=2)
    assert [w.stopped for w in weak.walkers] == [None, None]


def test_a_start_that_is_beyond_a_guard_does_not_move(
    nitrogen: Frame, push: Callable[[float], Potential]
) -> None:
    walkers = pair(nitrogen)
    found = go(walkers, push(99.0), Guards())
    assert [w.frame for w in found.walkers] == [nitrogen, nitrogen]
    assert [w.step for w in found.walkers] == [100, 0]
    assert found.scored == 0


def test_the_surprise_guard_counts_in_thresholds(
    nitrogen: Frame, push: Callable[[float], Potential]
) -> None:
    walkers, guards = pair(nitrogen, 0.01), replace(OFF, surprise=2.0)
    found = go(walkers, push(0.0), guards, threshold=0.7)
    assert (found.walkers[0].stopped or "").startswith("surprise 2.0")
    (rescued,) = [c for c in found.candidates if c.origin == "surprise ceiling"]
    assert rescued.surprise < 1.4
    assert found.walkers[1].stopped is None
    free = go(walkers, push(0.0), guards, threshold=None)
    assert free.walkers[0].stopped is None


@pytest.mark.parametrize("what", ["energy", "force", "inf"])
def test_what_is_not_finite_never_reaches_a_candidate(
    nitrogen: Frame, what: str
) -> None:
    found = go(pair(nitrogen, 0.01), Sick(1.3, what), OFF)
    assert [w.stopped for w in found.walkers] == ["not finite", None]
    assert found.walkers[1].step == 200
    assert any(c.origin == "not finite" for c in found.candidates)
    for candidate in found.candidates:
        assert np.isfinite(candidate.energy)
        assert np.isfinite(candidate.forces).all()
        assert np.isfinite(candidate.surprise)
    for walker in found.walkers:
        assert np.isfinite(walker.velocities).all()


def test_a_start_without_finite_forces_stops_and_is_no_candidate(
    nitrogen: Frame,
) -> None:
    found = go(pair(nitrogen), Sick(0.5, "force"), OFF)
    assert [w.stopped for w in found.walkers] == ["not finite"] * 2
    assert found.candidates == ()


def test_the_others_walk_on_as_if_nothing_had_happened(
    nitrogen: Frame, springs_of: Callable[[Frame, float], Potential]
) -> None:
    fast, slow = pair(nitrogen, 0.05)[0], replace(pair(nitrogen, 0.01)[0], index=1)
    potential, guards = springs_of(nitrogen, 20.0), replace(OFF, contact=0.6)
    both = go([fast, slow], potential, guards).walkers
    (alone,) = go([slow], potential, guards).walkers
    assert [walker.stopped is None for walker in both] == [False, True]
    np.testing.assert_array_equal(both[1].velocities, alone.velocities)
    assert both[1].frame == alone.frame


def test_a_long_bond_is_still_a_bond_when_the_next_piece_begins(
    push: Callable[[float], Potential],
) -> None:
    stretched = Frame(np.array([7, 7]), np.array([[0.0] * 3, [0.0, 0.0, 2.0]]))
    found = go(pair(stretched, 0.01), push(0.0), replace(OFF, bond=2.0))
    assert "a bond at 2.0" in (found.walkers[0].stopped or "")


def test_atoms_that_never_were_bound_may_part(
    push: Callable[[float], Potential],
) -> None:
    apart = Frame(np.array([7, 7]), np.array([[0.0] * 3, [0.0, 0.0, 2.6]]))
    found = go(pair(apart, 0.02), push(0.0), replace(OFF, bond=2.0))
    assert found.walkers[0].stopped is None


def test_distances_are_measured_between_nearest_images() -> None:
    cell = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.0, 0.0, 7.0]])
    x = np.array([[0.1, 0.1, 0.1], [4.9, 0.1, 0.1]])
    boxed = Frame(np.array([6, 6]), x, cell=cell, pbc=(True, True, True))
    batch = pack_frames([boxed, Frame(np.array([6, 6]), x)])
    found = relative_distances(all_pairs(batch), batch.positions) * 1.52
    np.testing.assert_allclose(found, [0.2, 4.8], atol=1e-12)


def test_one_atom_has_no_contact() -> None:
    assert closest_contact(Frame(np.array([18]), np.zeros((1, 3)))) == np.inf


# GFN2-xTB minima (the zwitterion: near one), Å, with a hydrogen, the atom that it is
# bound to and the one to which it forms a hydrogen bond
HYDROGEN_BONDS = {
    "carboxylic acid dimer": (
        "O -1.23 -0.27 0 C -0.12 0.40 0 O 1.00 -0.06 0 H -1.08 -1.26 0 H -0.30 1.49 0 "
        "O 1.63 -2.65 0 C 0.53 -3.32 0 O -0.59 -2.86 0 H 1.49 -1.65 0 H 0.71 -4.40 0",
        (3, 0, 7),
    ),
    "protonated water dimer": (
        "O -0.01 -0.10 -0.10 H -0.48 0.75 -0.09 H -0.43 -0.69 0.55 "
        "O 2.41 0.11 0.22 H 2.85 0.67 -0.44 H 2.86 -0.75 0.25 H 1.20 0.01 0.06",
        (6, 0, 3),
    ),
    "malonaldehyde": (
        "O -1.31 1.27 0 C -1.23 0.05 0 C 0.01 -0.68 0 C 1.18 -0.01 0 O 1.29 1.30 0 "
        "H 0.36 1.67 0 H -2.15 -0.56 0 H -0.02 -1.76 0 H 2.14 -0.52 0",
        (5, 4, 0),
    ),
    "salicylic acid": (
        "C 0 1.41 0 C 1.22 0.71 0 C 1.20 -0.69 0 C 0 -1.37 0 C -1.21 -0.68 0 "
        "C -1.21 0.70 0 C 0.01 2.87 0 O 1.02 3.55 0 O -1.20 3.44 0 H -1.10 4.41 0 "
        "O 2.41 1.32 0 H 2.26 2.29 0 H 2.14 -1.21 0 H 0 -2.45 0 H -2.14 -1.22 0 "
        "H -2.13 1.25 0",
        (11, 10, 7),
    ),
    "glycine zwitterion": (
        "C 0 0 0 C 1.53 0 0 O 2.10 1.10 0 O 2.10 -1.10 0 N -0.50 1.42 0 "
        "H -0.36 -0.51 0.89 H -0.36 -0.51 -0.89 H 0.30 2.05 0 H -1.07 1.60 0.82 "
        "H -1.07 1.60 -0.82",
        (7, 4, 2),
    ),
}


def structure(text: str) -> Frame:
    words = np.array(text.split()).reshape(-1, 4)
    numbers = [atomic_numbers[symbol] for symbol in words[:, 0]]
    return Frame(np.array(numbers), words[:, 1:].astype(float))


def moved(frame: Frame, atom: int, place: Floats) -> Frame:
    positions = frame.positions.copy()
    positions[atom] = place
    return replace(frame, positions=positions)


def bond_trip(start: Frame, later: Frame) -> str | None:
    """What the guard of bonds says of a later frame of the piece of MD."""
    batch, zero = pack_frames([later]), np.zeros(1)
    readings = GuardReadings(
        batch=batch,
        offsets=batch.offsets,
        forces=np.zeros_like(batch.positions),
        finite=np.array([True]),
        heat=zero,
    )
    geometry = guard_geometry(pack_frames([start]))
    trip = tripped_guards(geometry, replace(OFF, bond=2.0), readings).get(0)
    return None if trip is None else trip.reason


@pytest.mark.parametrize("name", HYDROGEN_BONDS)
def test_a_hydrogen_bond_is_no_bond_and_a_proton_transfer_no_break(name: str) -> None:
    text, (proton, donor, acceptor) = HYDROGEN_BONDS[name]
    frame = structure(text)
    ends = frame.positions[[donor, acceptor]]
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    # from short at the donor to short at the acceptor, by way of the middle
    path = [
        moved(frame, proton, place)
        for place in np.linspace(ends[0] + 0.95 * along, ends[1] - 0.95 * along, 7)
    ]
    # the acceptor leaves: a hydrogen bond that opens
    away = ends[1] + 1.5 * along
    opened = [
        moved(x, acceptor, away) for x in path if distance(x, proton, donor) < 1.3
    ]
    for start in path:
        assert [bond_trip(start, later) for later in path] == [None] * 7
        assert not any(bond_trip(start, later) for later in opened)
        up = np.array([0.0, 0.0, 2.5])
        lost = moved(frame, proton, frame.positions[proton] + up)
        assert "a bond at " in (bond_trip(start, lost) or "")
    (transfer,) = proton_transfers(*([Walker(2, 0, x, 0 * ends)] for x in path[::6]))
    assert transfer.startswith(f"H{proton} of walker 2 went from ")
    assert transfer.endswith(str(acceptor))
    assert not proton_transfers(*([Walker(2, 0, x, 0 * ends)] for x in path[:2]))


def distance(frame: Frame, first: int, second: int) -> float:
    x = frame.positions
    return float(np.linalg.norm(x[first] - x[second]))


def test_heavy_bonds_and_those_of_h2_are_watched_and_halogen_bonds_are_not() -> None:
    ethane = structure("C 0 0 0 C 0 0 1.52 H 1.03 0 -0.38 H 1.03 0 1.9")
    parted = moved(ethane, 1, np.array([0.0, 0.0, 3.2]))
    assert "a bond at " in (bond_trip(ethane, parted) or "")
    hydrogen = structure("H 0 0 0 H 0 0 0.74 He 0 0 3")
    assert "a bond at " in (
        bond_trip(hydrogen, moved(hydrogen, 1, np.array([0.0, 0.9, 0.9]))) or ""
    )
    # two hydrogens that leave carbon together are broken bonds, though they are H2
    methylene = structure("C 0 0 0 H 0.9 0 0.6 H -0.9 0 0.6")
    left = structure("C 0 0 0 H 0.37 0 2.6 H -0.37 0 2.6")
    assert "a bond at " in (bond_trip(methylene, left) or "")
    halogen = structure("I 0 0 0 N 0 0 2.85")  # 1.36 summed radii: no bond
    assert bond_trip(halogen, moved(halogen, 1, np.array([0.0, 0.0, 5.0]))) is None
