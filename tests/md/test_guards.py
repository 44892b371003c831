"""Each guard rail trips, picks a frame before, and leaves the others walking."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.contacts import all_pairs, closest_contact, relative_distances
from alloop.md.dynamics import DynamicsSettings, Exploration, run_dynamics
from alloop.md.guards import Guards
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
