"""Pieces of MD: streams, pieces, what is kept, who moves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from alloop.core.atoms import frame_masses
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN, KINETIC, Floats
from alloop.md.dynamics import DynamicsSettings, Exploration, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import (
    Integrator,
    Langevin,
    VelocityVerlet,
    maxwell_boltzmann,
)
from tests.potentials.harmonic import HarmonicWell

HOT = DynamicsSettings(temperature=400.0, stride=5)


@dataclass(frozen=True)
class Stretch:
    """Surprise is the longest distance in the frame; checks what it is handed."""

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        assert predictions.descriptors is not None
        longest: Floats = np.maximum.reduceat(
            predictions.descriptors.max(axis=1), batch.offsets[:-1]
        )
        return longest


@pytest.fixture
def potential(
    water: Frame, springs_of: Callable[[Frame, float], Potential]
) -> Potential:
    return springs_of(water, 20.0)


def crew(frame: Frame, count: int) -> list[Walker]:
    return [
        Walker(
            i, 0, frame, maxwell_boltzmann(frame, 400.0, random_stream(1, f"start/{i}"))
        )
        for i in range(count)
    ]


def streams(walkers: list[Walker], piece: int = 0) -> list[np.random.Generator]:
    return [random_stream(2, f"piece/{piece}/{walker.index}") for walker in walkers]


def explore(
    walkers: list[Walker], potential: Potential, steps: int = 100, **options: int
) -> Exploration:
    return run_dynamics(
        walkers,
        potential,
        HOT,
        steps,
        streams(walkers),
        scorer=Stretch(),
        control_rng=random_stream(3, "lottery"),
        **options,
    )


def same(one: Walker, other: Walker) -> bool:
    equal = np.array_equal(one.velocities, other.velocities)
    return equal and one.frame.id == other.frame.id and one.step == other.step


def test_a_walkers_path_does_not_depend_on_its_company(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 5)
    together = run_dynamics(walkers, potential, HOT, 150, streams(walkers)).walkers
    pair = [walkers[3], walkers[1]]
    apart = run_dynamics(pair, potential, HOT, 150, streams(pair)).walkers
    assert same(together[3], apart[0])
    assert same(together[1], apart[1])


def test_the_same_pieces_give_the_same_bits(water: Frame, potential: Potential) -> None:
    def in_pieces() -> tuple[Walker, ...]:
        walkers = tuple(crew(water, 3))
        for piece in range(3):
            rngs = streams(list(walkers), piece)
            walkers = run_dynamics(walkers, potential, HOT, 40, rngs).walkers
        return walkers

    first, again = in_pieces(), in_pieces()
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    assert [walker.step for walker in first] == [120, 120, 120]


def test_positions_are_rounded_where_a_piece_ends(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 1)
    (walker,) = run_dynamics(walkers, potential, HOT, 7, streams(walkers)).walkers
    x = walker.frame.positions
    np.testing.assert_array_equal(x, np.round(x, 8))


def test_nve_through_the_door_conserves_energy(
    water: Frame, potential: Potential
) -> None:
    def energy(walker: Walker) -> float:
        kinetic = (
            0.5
            * KINETIC
            * frame_masses(walker.frame.numbers)
            @ (walker.velocities**2).sum(axis=1)
        )
        return float(
            kinetic + potential.predict(pack_frames([walker.frame])).energies[0]
        )

    walkers = crew(water, 1)
    nve = DynamicsSettings(VelocityVerlet(), temperature=400.0, timestep=0.1)
    (after,) = run_dynamics(walkers, potential, nve, 500, streams(walkers)).walkers
    assert energy(after) == pytest.approx(energy(walkers[0]), abs=2e-4)
    drift = (frame_masses(water.numbers)[:, None] * after.velocities).sum(axis=0)
    np.testing.assert_allclose(drift, 0.0, atol=1e-12)


def test_the_mean_temperature_is_the_thermostats(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 60)
    damped = replace(HOT, integrator=Langevin(0.05))
    found = run_dynamics(walkers, potential, damped, 800, streams(walkers))
    assert found.temperature == pytest.approx(400.0, rel=0.05)


def test_each_walker_has_the_temperature_of_its_own_thermostat(
    water: Frame, potential: Potential
) -> None:
    walkers = [
        replace(walker, temperature=700.0 if walker.index % 2 else 200.0)
        for walker in crew(water, 60)
    ]
    damped = replace(HOT, integrator=Langevin(0.05))
    seen: list[Floats] = []
    run_dynamics(
        walkers,
        potential,
        damped,
        800,
        streams(walkers),
        observe=lambda found: seen.append(heat(found)),
    )
    mean = np.mean(seen[len(seen) // 4 :], axis=0)
    assert mean[::2].mean() == pytest.approx(200.0, rel=0.06)
    assert mean[1::2].mean() == pytest.approx(700.0, rel=0.06)


def heat(found: ScoredFrames) -> Floats:
    """Kinetic temperatures (walkers,) in K by equipartition over 3N - 3 freedoms."""
    assert found.velocities is not None
    m = frame_masses(found.batch.numbers)
    twice = KINETIC * m * (found.velocities**2).sum(axis=1)
    size = len(m) // len(found.batch)
    out: Floats = twice.reshape(-1, size).sum(axis=1) / ((3 * size - 3) * BOLTZMANN)
    return out


def test_one_temperature_for_all_is_the_thermostats_down_to_the_bits(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 3)
    plain = run_dynamics(walkers, potential, HOT, 60, streams(walkers)).walkers
    warm = [replace(walker, temperature=HOT.temperature) for walker in walkers]
    cold = replace(HOT, temperature=1.0)
    listed = run_dynamics(warm, potential, cold, 60, streams(walkers)).walkers
    assert all(same(one, other) for one, other in zip(plain, listed, strict=True))


def test_the_most_surprising_frames_are_kept_in_order(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 4)
    everything = explore(walkers, potential, keep=10_000)
    assert everything.scored == len(everything.candidates) == 4 * 100 // 5
    ranked = [candidate.surprise for candidate in everything.candidates]
    assert ranked == sorted(ranked, reverse=True)
    few = explore(walkers, potential, keep=7)
    assert [c.frame.id for c in few.candidates] == [
        c.frame.id for c in everything.candidates[:7]
    ]


def test_a_candidate_carries_what_the_model_said_of_its_frame(
    water: Frame, potential: Potential
) -> None:
    (best, *_) = explore(crew(water, 2), potential, keep=3).candidates
    said = potential.predict(pack_frames([best.frame]), descriptors=True)
    assert said.descriptors is not None
    assert best.energy == pytest.approx(float(said.energies[0]), abs=1e-6)
    np.testing.assert_allclose(best.forces, said.forces, atol=1e-5)
    np.testing.assert_allclose(best.descriptor, said.descriptors.mean(0), atol=1e-6)
    assert best.step % HOT.stride == 0
    assert best.origin == "surprise"


@dataclass(frozen=True)
class Sum:
    """The sum of two potentials, with the descriptors of the first."""

    first: Potential
    second: Potential

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        one = self.first.predict(batch, descriptors=descriptors)
        two = self.second.predict(batch)
        return replace(
            one, energies=one.energies + two.energies, forces=one.forces + two.forces
        )


@pytest.mark.parametrize("integrator", [Langevin(), VelocityVerlet()])
def test_a_bias_moves_the_walkers_and_is_in_no_prediction(
    water: Frame,
    potential: Potential,
    springs_of: Callable[[Frame, float], Potential],
    integrator: Integrator,
) -> None:
    wide = replace(water, positions=1.3 * water.positions)
    bias = springs_of(wide, 30.0)
    observed: list[ScoredFrames] = []

    def walk(model: Potential, *biases: Potential) -> Exploration:
        walkers = crew(water, 3)
        return run_dynamics(
            walkers,
            model,
            replace(HOT, integrator=integrator, guards=Guards(None, None, None, None)),
            60,
            streams(walkers),
            scorer=Stretch(),
            keep=4,
            controls=4,
            control_rng=random_stream(3, "lottery"),
            observe=observed.append,
            biases=biases,
        )

    halves = springs_of(wide, 15.0)
    split = walk(potential, halves, halves)
    whole = walk(Sum(potential, bias))
    for one, other in zip(split.walkers, whole.walkers, strict=True):
        np.testing.assert_allclose(
            one.frame.positions, other.frame.positions, atol=1e-6
        )
    still = walk(potential)
    assert not same(split.walkers[0], still.walkers[0])
    observed.clear()
    biased = walk(potential, bias)
    for candidate in (*biased.candidates, *biased.controls):
        said = potential.predict(pack_frames([candidate.frame]))
        assert candidate.energy == pytest.approx(said.energies[0], abs=1e-6)
        np.testing.assert_allclose(candidate.forces, said.forces, atol=1e-5)
    assert len(observed) == 12
    for frames in observed:
        said = potential.predict(frames.batch)
        np.testing.assert_allclose(frames.predictions.forces, said.forces, atol=1e-9)
        np.testing.assert_allclose(frames.predictions.energies, said.energies)


def test_a_bias_that_is_not_finite_stops_its_walker(
    water: Frame, potential: Potential
) -> None:
    @dataclass(frozen=True)
    class Sick:
        def predict(self, batch: Batch, **_: object) -> Predictions:
            forces = np.zeros_like(batch.positions)
            forces[:3] = np.nan
            return Predictions(np.zeros(len(batch)), forces)

    walkers = crew(water, 2)
    found = run_dynamics(walkers, potential, HOT, 10, streams(walkers), biases=[Sick()])
    assert [walker.stopped for walker in found.walkers] == ["not finite", None]
    assert all(np.isfinite(walker.velocities).all() for walker in found.walkers)


def test_equal_surprise_is_ranked_by_walker_and_step(
    water: Frame, potential: Potential
) -> None:
    @dataclass(frozen=True)
    class Indifferent:
        def score(self, batch: Batch, predictions: Predictions) -> Floats:  # noqa: ARG002
            return np.ones(len(batch))

    walkers = crew(water, 3)
    found = run_dynamics(
        walkers, potential, HOT, 20, streams(walkers), scorer=Indifferent(), keep=5
    )
    assert [(c.walker, c.step) for c in found.candidates] == [
        (0, 5),
        (0, 10),
        (0, 15),
        (0, 20),
        (1, 5),
    ]


def test_controls_are_uniform_over_scored_frames_and_blind_to_surprise(
    water: Frame, potential: Potential
) -> None:
    walkers, drawn = crew(water, 4), []
    for number in range(150):
        found = run_dynamics(
            walkers,
            potential,
            HOT,
            25,
            streams(walkers),
            controls=4,
            control_rng=random_stream(number, "lottery"),
        )
        assert len(found.controls) == 4
        assert len({(c.walker, c.step) for c in found.controls}) == 4
        drawn += [(c.walker, c.step) for c in found.controls]
    counts = np.array([drawn.count((w, s)) for w in range(4) for s in range(5, 26, 5)])
    expected = 150 * 4 / 20
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 43.8  # 19 degrees of freedom, p = 0.001
    surprising = explore(walkers, potential, steps=25, keep=3, controls=4)
    blind = run_dynamics(
        walkers,
        potential,
        HOT,
        25,
        streams(walkers),
        controls=4,
        control_rng=random_stream(3, "lottery"),
    )
    assert [c.frame.id for c in surprising.controls] == [
        c.frame.id for c in blind.controls
    ]
    assert {c.origin for c in blind.controls} == {"control"}
    assert blind.candidates == ()


def test_a_stopped_walker_stays_and_leaves_the_others_alone(
    water: Frame, potential: Potential
) -> None:
    walkers = crew(water, 3)
    stopped = [walkers[0], replace(walkers[1], stopped="force"), walkers[2]]
    found = explore(stopped, potential, keep=100, controls=5)
    assert found.walkers[1] is stopped[1]
    alone = explore([walkers[2]], potential, keep=100)
    assert same(found.walkers[2], alone.walkers[0])
    assert {c.walker for c in found.candidates} == {0, 2}


def test_molecules_of_different_size_walk_in_one_batch(
    water: Frame, nitrogen: Frame
) -> None:
    @dataclass(frozen=True)
    class Nothing:
        """No forces at all."""

        def predict(
            self,
            batch: Batch,
            *,
            descriptors: bool = False,  # noqa: ARG002
        ) -> Predictions:
            return Predictions(np.zeros(len(batch)), np.zeros_like(batch.positions))

    walkers = [crew(water, 1)[0], replace(crew(nitrogen, 1)[0], index=7)]
    found = run_dynamics(walkers, Nothing(), HOT, 30, streams(walkers)).walkers
    (alone,) = run_dynamics(
        walkers[1:], Nothing(), HOT, 30, streams(walkers[1:])
    ).walkers
    assert same(found[1], alone)
    assert [len(walker.frame) for walker in found] == [3, 2]


def test_an_outer_field_moves_the_centre_only_where_it_is_not_held() -> None:
    atom = Frame(np.array([18]), np.zeros((1, 3)))
    still = [Walker(i, 0, atom, np.zeros((1, 3))) for i in range(300)]
    free = DynamicsSettings(
        Langevin(0.05), temperature=300.0, timestep=2.0, centre=False
    )
    found = run_dynamics(still, HarmonicWell(2.0), free, 200, streams(still))
    x = np.stack([walker.frame.positions for walker in found.walkers])
    assert x.var() == pytest.approx(BOLTZMANN * 300.0 / 2.0, rel=0.15)
    held = run_dynamics(
        still, HarmonicWell(2.0), replace(free, centre=True), 5, streams(still)
    )
    assert all(walker.frame == atom for walker in held.walkers)
    assert held.temperature == 0.0


def test_no_walkers_find_nothing(potential: Potential) -> None:
    nothing = run_dynamics([], potential, HOT, 10, [])
    assert nothing.walkers == ()
    assert nothing.scored == 0


def test_a_missing_stream_is_refused(water: Frame, potential: Potential) -> None:
    walkers = crew(water, 2)
    with pytest.raises(ValueError, match="2 random streams, got 1"):
        run_dynamics(walkers, potential, HOT, 1, streams(walkers)[:1])
    with pytest.raises(ValueError, match="control_rng"):
        run_dynamics(walkers, potential, HOT, 1, streams(walkers), controls=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"timestep": 0.0}, "positive timestep"),
        ({"stride": 0}, "positive stride"),
        ({"temperature": -1.0}, "temperature of MD not below 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        DynamicsSettings(**wrong)


def test_a_friction_below_zero_is_refused() -> None:
    for friction in (-0.1, float("nan")):
        with pytest.raises(InputError, match="friction of MD not below 0"):
            Langevin(friction)


def test_guards_look_back_at_least_one_step() -> None:
    with pytest.raises(InputError, match="back 1 step or more, got 0"):
        Guards(back=0)
