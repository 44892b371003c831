"""The bias of uncertainty-driven MD: its gradient, its depth, and where it leads."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.biases import UncertaintySettings
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.thermal_frames import rattled_frames
from alloop.models.network import build_network
from alloop.potentials.analytic import Morse
from alloop.potentials.learned import LearnedPotential
from alloop.scores.leverage import LeverageScorer
from alloop.workers.surprise_bias import SurpriseBias

WATER = from_atoms(molecule("H2O"))
FREE = UncertaintySettings(force=1e9)


@pytest.fixture(scope="module")
def bias() -> SurpriseBias:
    """The bias of a random network whose scorer knows water near its minimum."""
    import torch

    network = build_network("painn", {"channels": 16}, seed=1, dtype=torch.float64)
    potential = LearnedPotential(network, {1: 0.0, 8: 0.0})
    rng = random_stream(0, "frames")
    learned, heldout = (
        pack_frames(rattled_frames(WATER, 0.02, count, rng)) for count in (40, 20)
    )

    def retrain(*_: object) -> LearnedPotential:
        raise AssertionError("leverage trains nothing")

    scorer = LeverageScorer().fit(potential, learned, heldout, retrain)
    return SurpriseBias(potential, scorer, threshold=1.5, settings=FREE)


@pytest.mark.parametrize("repulsion", [0.0, 3.0])
def test_forces_are_the_gradient_of_the_bias(
    bias: SurpriseBias, repulsion: float
) -> None:
    bias = replace(bias, settings=replace(FREE, repulsion=repulsion))
    frames = rattled_frames(WATER, 0.02, 3, random_stream(1, "frames"))
    batch = pack_frames(frames)
    forces, step = bias.predict(batch).forces, 1e-5
    assert np.abs(forces).max() > 0.01
    for atom in range(len(batch.numbers)):
        for axis in range(3):
            ends = []
            for sign in (1.0, -1.0):
                moved = np.array(batch.positions)
                moved[atom, axis] += sign * step
                ends.append(bias.predict(replace(batch, positions=moved)).energies)
            slope = (ends[0] - ends[1]).sum() / (2 * step)
            assert forces[atom, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-6)


def test_the_bias_is_that_of_the_surprise(bias: SurpriseBias) -> None:
    batch = pack_frames(rattled_frames(WATER, 0.1, 5, random_stream(2, "frames")))
    predictions = bias.potential.predict(batch, descriptors=True)
    surprise = bias.scorer.score(batch, predictions) / bias.threshold
    expected = FREE.strength * (np.exp(-((surprise / FREE.width) ** 2)) - 1.0)
    assert bias.predict(batch).energies == pytest.approx(expected, abs=1e-9)


def test_walkers_of_one_molecule_repel_each_other(bias: SurpriseBias) -> None:
    hydroxyl = from_atoms(molecule("OH"))
    near, far = rattled_frames(WATER, 0.01, 2, random_stream(5, "near"))
    far = replace(far, positions=1.5 * far.positions)
    repelled = replace(bias, settings=replace(FREE, repulsion=2.0))

    def repulsion(*frames: Frame) -> Floats:
        batch = pack_frames(frames)
        out: Floats = repelled.predict(batch).energies - bias.predict(batch).energies
        return out

    assert repulsion(near, near) == pytest.approx([1.0, 1.0])  # half of one hill each
    assert repulsion(near, hydroxyl, near) == pytest.approx([1.0, 0.0, 1.0])
    assert repulsion(near, far).max() < 0.1


def test_forces_are_scaled_down_to_the_limit(bias: SurpriseBias) -> None:
    batch = pack_frames(rattled_frames(WATER, 0.02, 3, random_stream(1, "frames")))
    forces = bias.predict(batch).forces.reshape(3, 3, 3)
    limit = float(np.linalg.norm(forces, axis=2).max() / 2)
    capped = replace(bias, settings=UncertaintySettings(force=limit)).predict(batch)
    lengths = np.linalg.norm(capped.forces.reshape(3, 3, 3), axis=2)
    assert lengths.max() == pytest.approx(limit)
    assert abs(capped.forces.reshape(3, -1).sum()) < 1e-6


def test_walkers_are_driven_to_what_surprises(bias: SurpriseBias) -> None:
    frames = rattled_frames(WATER, 0.02, 8, random_stream(3, "frames"))
    walkers = [Walker(i, 0, x, np.zeros((3, 3))) for i, x in enumerate(frames)]
    surface = Morse(length=0.97, bonds=((0, 1), (0, 2)))  # flat in the angle

    def surprise_after(*biases: SurpriseBias) -> float:
        rngs = [random_stream(4, f"{walker.index}") for walker in walkers]
        settings = DynamicsSettings(temperature=100.0)
        moved = run_dynamics(walkers, surface, settings, 60, rngs, biases=biases)
        batch = pack_frames([walker.frame for walker in moved.walkers])
        predictions = bias.potential.predict(batch, descriptors=True)
        return float(np.median(bias.scorer.score(batch, predictions)))

    gentle = replace(bias, settings=UncertaintySettings(strength=0.3, force=1.0))
    assert surprise_after(gentle) > 1.5 * surprise_after()
