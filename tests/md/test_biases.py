"""Biases: their forces, their hills, and what guards do with a strong one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from alloop.core.arrays import to_numpy
from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import BOLTZMANN, Floats
from alloop.md.biases import (
    HarmonicWindows,
    Hills,
    Metadynamics,
    MetadynamicsSettings,
    ShapeMetadynamics,
    Walls,
    chosen_variables,
    superposed,
)
from alloop.md.collective_variables import (
    CollectiveVariable,
    Distance,
    DistanceDifference,
    Torsion,
    walker_variables,
)
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import maxwell_boltzmann
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.placed import PlacedPotential

KELVIN = 400.0
WARM = DynamicsSettings(temperature=KELVIN, stride=5)
OFTEN = MetadynamicsSettings(pace=5, height=0.1, length_width=0.05)
BY_MOLECULE: dict[int, list[CollectiveVariable]] = {
    0: [Torsion((0, 1, 2, 3)), Distance((0, 2))],
    1: [DistanceDifference((2, 3, 1))],
}


def crew(frames: list[Frame], molecules: list[int]) -> list[Walker]:
    return [
        Walker(i, kind, x, maxwell_boltzmann(x, KELVIN, random_stream(1, str(i))))
        for i, (x, kind) in enumerate(zip(frames, molecules, strict=True))
    ]


def mixed_crew() -> list[Walker]:
    names = ["CH3CH2OH", "CH3COOH", "H2O", "CH3CH2OH"]
    rng = np.random.default_rng(3)
    frames = [from_atoms(molecule(name)) for name in names]
    moved = [
        replace(x, positions=x.positions + 0.05 * rng.normal(size=x.positions.shape))
        for x in frames
    ]
    return crew(moved, [0, 1, 2, 0])


def streams(walkers: list[Walker], piece: int = 0) -> list[np.random.Generator]:
    return [random_stream(2, f"{piece}/{walker.index}") for walker in walkers]


def frames_of(walkers: list[Walker]) -> Batch:
    return pack_frames([walker.frame for walker in walkers])


def mixed_bias(settings: MetadynamicsSettings = OFTEN) -> Metadynamics:
    return Metadynamics.of(mixed_crew(), BY_MOLECULE, settings, temperature=KELVIN)


def require_gradient(bias: Potential, batch: Batch) -> None:
    """Forces are minus the numerical derivatives of the sum of energies."""
    forces, h = bias.predict(batch).forces, 1e-5
    for place in np.ndindex(*batch.positions.shape):
        sides = []
        for move in (h, -h):
            moved = batch.positions.copy()
            moved[place] += move
            sides.append(bias.predict(batch.with_positions(moved)).energies.sum())
        assert forces[place] == pytest.approx((sides[1] - sides[0]) / (2 * h), abs=1e-7)
    assert np.abs(forces).max() > 1e-3


def test_forces_of_hills_are_the_gradient() -> None:
    walkers, bias = mixed_crew(), mixed_bias(replace(OFTEN, force=1e6))
    batch = frames_of(walkers)
    bias.adapt(5, batch, np.ones(4, dtype=bool))
    moved = np.random.default_rng(5).normal(size=batch.positions.shape)
    away = batch.with_positions(batch.positions + 0.03 * moved)
    bias.adapt(10, away, np.ones(4, dtype=bool))
    moved = np.random.default_rng(6).normal(size=batch.positions.shape)
    require_gradient(bias, batch.with_positions(batch.positions + 0.02 * moved))


def test_forces_of_windows_and_walls_are_the_gradient() -> None:
    walkers = mixed_crew()
    batch = frames_of(walkers)
    rows = [BY_MOLECULE.get(walker.molecule, []) for walker in walkers]
    variables = walker_variables(batch, rows)
    values, _ = variables.evaluate(batch.positions)
    stiffness = np.full_like(values, 3.0)
    centres = values + 6.1  # of a torsion: less than a period away
    require_gradient(HarmonicWindows(variables, centres, stiffness), batch)
    distances = [[Distance((0, 1))], [Distance((0, 2))], [], [Distance((0, 1))]]
    variables = walker_variables(batch, distances)
    values, _ = variables.evaluate(batch.positions)
    offset = np.array([[0.2], [-0.3], [0.0], [-0.05]])  # the last is inside
    walls = Walls(variables, values + offset, values + offset + 0.1, 5.0)
    require_gradient(walls, batch)
    energies = walls.predict(batch).energies
    np.testing.assert_allclose(energies, [0.1, 0.1, 0.0, 0.0], atol=1e-12)


def test_a_window_of_a_torsion_pulls_the_short_way() -> None:
    frame = from_atoms(molecule("CH3CH2OH"))
    batch = pack_frames([frame])
    variables = walker_variables(batch, [[Torsion((0, 1, 2, 3))]])
    values, _ = variables.evaluate(batch.positions)
    stiffness = np.full_like(values, 2.0)
    windows = HarmonicWindows(variables, values + 2.0 * np.pi - 0.1, stiffness)
    assert windows.predict(batch).energies == pytest.approx([0.01])


def test_a_torsion_has_no_wall() -> None:
    batch = pack_frames([from_atoms(molecule("CH3CH2OH"))])
    variables = walker_variables(batch, [[Torsion((0, 1, 2, 3))]])
    with pytest.raises(InputError, match="without a period"):
        Walls(variables, np.zeros((1, 1)), np.full((1, 1), np.inf), 1.0)


def test_hills_are_tempered_by_the_sum_before_them() -> None:
    walkers, bias = mixed_crew(), mixed_bias()
    batch, everyone = frames_of(walkers), np.ones(4, dtype=bool)
    bias.adapt(4, batch, everyone)
    assert len(bias.hills) == 0
    for step in (5, 10):
        bias.adapt(step, batch, everyone)
    hills = bias.hills
    assert hills.molecules.tolist() == [0, 1, 0] * 2  # water has no variable
    np.testing.assert_array_equal(hills.heights[:3], 0.1)
    torsion, length = (
        [x.evaluate(w.frame.positions[None, x.atoms])[0][0] for w in walkers[::3]]
        for x in BY_MOLECULE[0]
    )
    turn = (torsion[0] - torsion[1] + np.pi) % (2 * np.pi) - np.pi
    apart = np.exp(
        -0.5 * (turn / 0.3) ** 2 - 0.5 * ((length[0] - length[1]) / 0.05) ** 2
    )
    sums = np.array([1.0 + apart, 1.0, 1.0 + apart]) * 0.1
    expected = 0.1 * np.exp(-sums / (BOLTZMANN * 9.0 * KELVIN))
    np.testing.assert_allclose(hills.heights[3:], expected, rtol=1e-12)
    np.testing.assert_array_equal(hills.centres[:3], hills.centres[3:])


def test_each_walkers_hills_are_tempered_by_its_own_thermostat() -> None:
    walkers = mixed_crew()
    walkers[3] = replace(walkers[3], frame=walkers[0].frame, temperature=800.0)
    bias = Metadynamics.of(walkers, BY_MOLECULE, OFTEN, temperature=KELVIN)
    for step in (5, 10):
        bias.adapt(step, frames_of(walkers), np.ones(4, dtype=bool))
    first, last = bias.hills.heights[[3, 5]] / 0.1
    assert last == pytest.approx(np.sqrt(first))
    assert first == pytest.approx(np.exp(-0.2 / (BOLTZMANN * 9.0 * KELVIN)))


def test_stopped_walkers_make_no_hills() -> None:
    bias = mixed_bias()
    moving = np.array([True, False, True, False])
    bias.adapt(5, frames_of(mixed_crew()), moving)
    assert bias.hills.molecules.tolist() == [0]


def test_a_strong_force_is_scaled_for_the_whole_walker() -> None:
    walkers = mixed_crew()
    batch = frames_of(walkers)
    rows = [BY_MOLECULE.get(walker.molecule, []) for walker in walkers]
    variables = walker_variables(batch, rows)
    values, _ = variables.evaluate(batch.positions)
    windows = [
        HarmonicWindows(variables, values + 0.5, np.full_like(values, 40.0), force)
        for force in (None, 2.0)
    ]
    free, capped = (x.predict(batch).forces for x in windows)
    for span in batch.atom_slices():
        largest = np.linalg.norm(free[span], axis=1).max()
        scale = min(1.0, 2.0 / largest) if largest else 1.0
        np.testing.assert_allclose(capped[span], scale * free[span], atol=1e-12)
    assert np.linalg.norm(capped, axis=1).max() == pytest.approx(2.0)


@pytest.fixture
def potential(
    water: Frame, springs_of: Callable[[Frame, float], Potential]
) -> Potential:
    return springs_of(water, 20.0)


def biased(
    walkers: list[Walker],
    potential: Potential,
    settings: MetadynamicsSettings,
    lengths: tuple[int, ...],
) -> tuple[list[Walker], Hills]:
    """Return walkers and hills after pieces; each is a run of its own."""
    hills = None
    for piece, steps in enumerate(lengths):
        bias = Metadynamics.of(
            walkers, {0: [Distance((0, 1))]}, settings, temperature=KELVIN, hills=hills
        )
        rngs = streams(walkers, piece)
        moved = run_dynamics(walkers, potential, WARM, steps, rngs, biases=[bias])
        walkers, hills = list(moved.walkers), bias.hills
    assert hills is not None
    return walkers, hills


def bits(state: tuple[list[Walker], Hills]) -> tuple[object, ...]:
    walkers, hills = state
    return (
        [(x.frame.id, x.velocities.tobytes(), x.step, x.stopped) for x in walkers],
        hills.centres.tobytes(),
        hills.heights.tobytes(),
    )


@pytest.mark.parametrize("cut", [1, 2])
def test_a_run_resumed_after_any_piece_has_the_same_bits(
    water: Frame, potential: Potential, cut: int
) -> None:
    walkers = crew([water] * 3, [0] * 3)
    lengths = (20, 17, 20)
    whole = biased(walkers, potential, OFTEN, lengths)
    assert bits(whole) == bits(biased(walkers, potential, OFTEN, lengths))
    walkers, hills = biased(walkers, potential, OFTEN, lengths[:cut])
    copied = Hills(
        *(
            x.copy()
            for x in (hills.centres, hills.heights, hills.widths, hills.molecules)
        )
    )
    for piece in range(cut, 3):
        bias = Metadynamics.of(
            walkers, {0: [Distance((0, 1))]}, OFTEN, temperature=KELVIN, hills=copied
        )
        rngs = streams(walkers, piece)
        moved = run_dynamics(
            walkers, potential, WARM, lengths[piece], rngs, biases=[bias]
        )
        walkers, copied = list(moved.walkers), bias.hills
    assert bits((walkers, copied)) == bits(whole)
    assert len(copied) == 3 * (4 + 3 + 4)


def test_without_hills_the_path_is_that_of_plain_md(
    water: Frame, potential: Potential
) -> None:
    walkers = crew([water] * 2, [0] * 2)
    rare = replace(OFTEN, pace=1000)
    moved, _ = biased(walkers, potential, rare, (30,))
    plain = run_dynamics(walkers, potential, WARM, 30, streams(walkers)).walkers
    for one, other in zip(moved, plain, strict=True):
        np.testing.assert_array_equal(one.velocities, other.velocities)


def test_hills_drive_walkers_further(water: Frame, potential: Potential) -> None:
    walkers = crew([water] * 4, [0] * 4)
    reach = []
    for settings in (replace(OFTEN, pace=1000), OFTEN):
        lengths: list[Floats] = []
        bias = Metadynamics.of(
            walkers, {0: [Distance((0, 1))]}, settings, temperature=KELVIN
        )

        def see(frames: ScoredFrames, lengths: list[Floats] = lengths) -> None:
            x = frames.batch.positions.reshape(-1, 3, 3)
            lengths.append(np.linalg.norm(x[:, 1] - x[:, 0], axis=1))

        run_dynamics(
            walkers, potential, WARM, 300, streams(walkers), biases=[bias], observe=see
        )
        reach.append(np.ptp(lengths))
    assert reach[1] > 1.3 * reach[0]


@pytest.mark.parametrize(
    ("guards", "reason"),
    [
        (Guards(), "covalent radii|force|times as hot"),
        (Guards(force=None, contact=None, bond=None), "times as hot"),
        (Guards(force=None, contact=None, heat=None), "a bond at"),
    ],
)
def test_a_bias_that_tears_a_molecule_apart_ends_at_a_guard(
    water: Frame, potential: Potential, guards: Guards, reason: str
) -> None:
    walkers = crew([water] * 3, [0] * 3)
    strong = MetadynamicsSettings(
        pace=1, height=10.0, factor=1000.0, length_width=0.2, force=1e4
    )
    bias = Metadynamics.of(walkers, {0: [Distance((0, 1))]}, strong, temperature=KELVIN)
    dynamics = replace(WARM, guards=guards)
    moved = run_dynamics(
        walkers, potential, dynamics, 400, streams(walkers), biases=[bias]
    )
    for walker in moved.walkers:
        assert walker.stopped is not None
        assert any(part in walker.stopped for part in reason.split("|"))
        assert np.isfinite(walker.frame.positions).all()
        assert np.isfinite(walker.velocities).all()
    assert np.isfinite(bias.hills.centres).all()
    assert len(bias.hills) < 3 * 400


def test_a_device_gives_the_same() -> None:
    network = build_network("painn", {"channels": 8, "layers": 2}, 1, torch.float64)
    references = {1: -13.6, 6: -1029.4, 8: -2041.8}
    learned = LearnedPotential(network, references, 0.3)
    walkers = mixed_crew()
    placed = PlacedPotential(learned, frames_of(walkers))
    results = []
    for potential, place in ((learned, None), (placed, placed.place)):
        options = {} if place is None else {"place": place}
        bias = Metadynamics.of(
            walkers, BY_MOLECULE, OFTEN, temperature=KELVIN, **options
        )
        moved = run_dynamics(
            walkers, potential, WARM, 20, streams(walkers), biases=[bias]
        )
        results.append((moved.walkers, bias.hills))
    (here, hills), (there, others) = results
    assert isinstance(others.heights, torch.Tensor)
    others = others.moved(to_numpy)
    np.testing.assert_allclose(others.heights, hills.heights, atol=1e-9)
    np.testing.assert_allclose(others.centres, hills.centres, atol=1e-7)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other.velocities, one.velocities, atol=1e-9)


def test_mistakes_are_told_in_a_sentence(water: Frame) -> None:
    walkers = crew([water], [0])
    variables = {0: [Distance((0, 1))]}
    with pytest.raises(InputError, match="temperature above 0"):
        Metadynamics.of(walkers, variables, OFTEN, temperature=0.0)
    with pytest.raises(InputError, match="the walkers', 1, got 2"):
        Metadynamics.of(walkers, variables, OFTEN, temperature=1.0, hills=Hills.none(2))


def test_rounds_bias_the_variables_in_turn() -> None:
    butane, acid = (from_atoms(molecule(x)) for x in ("trans-butane", "CH3COOH"))
    one = MetadynamicsSettings(dimensions=1)
    turns = [chosen_variables(butane, one, turn)[0].atoms for turn in range(4)]
    assert len(set(turns[:3])) == 3
    assert turns[3] == turns[0]
    assert len(chosen_variables(butane, replace(one, dimensions=3))) == 3
    both = chosen_variables(acid, MetadynamicsSettings(variables="both", dimensions=3))
    assert [type(x) for x in both] == [Torsion, DistanceDifference, Torsion]
    (transfer,) = chosen_variables(acid, replace(one, variables="transfers"))
    assert isinstance(transfer, DistanceDifference)
    assert not chosen_variables(from_atoms(molecule("H2O")), one)


def shape_bias() -> tuple[ShapeMetadynamics, list[Walker]]:
    """Two walkers of ethanol and one of water, with hills at shapes near by."""
    frames = [from_atoms(molecule(x)) for x in ("CH3CH2OH", "H2O", "CH3CH2OH")]
    walkers = crew(frames, [0, 1, 0])
    settings = MetadynamicsSettings(variables="shape", pace=1, height=0.3, force=1e9)
    bias = ShapeMetadynamics.of(walkers, settings, temperature=KELVIN)
    rng = random_stream(5, "shapes")
    for step in (1, 2):
        batch = pack_frames(frames)
        moves = 0.1 * rng.standard_normal(batch.positions.shape)
        moved = batch.with_positions(batch.positions + moves)
        bias.adapt(step, moved, np.array([True, True, step == 1]))
    return bias, walkers


def test_hills_in_shapes_are_shared_and_have_a_gradient() -> None:
    bias, walkers = shape_bias()
    assert [len(bias.shapes[x]) for x in (0, 1)] == [3, 2]
    batch = pack_frames([walker.frame for walker in walkers])
    noise = random_stream(6, "x").standard_normal(batch.positions.shape)
    batch = batch.with_positions(batch.positions + 0.05 * noise)
    require_gradient(bias, batch)
    forces = bias.predict(batch).forces
    light = batch.numbers[:9] == 1
    assert np.abs(forces[:9][light]).max() == 0.0 < np.abs(forces[9:12]).max()


def test_hills_in_shapes_turn_no_molecule() -> None:
    bias, walkers = shape_bias()
    batch = pack_frames([walker.frame for walker in walkers])
    noise = random_stream(6, "x").standard_normal(batch.positions.shape)
    x = batch.positions + 0.05 * noise
    turn = Rotation.from_rotvec([0.3, 1.2, -2.0]).as_matrix()
    plain, turned = (
        bias.predict(batch.with_positions(y)) for y in (x, x @ turn.T + 4.0)
    )
    assert turned.energies == pytest.approx(plain.energies, abs=1e-10)
    assert turned.forces == pytest.approx(plain.forces @ turn.T, abs=1e-9)
    torque = np.cross(x[:9], plain.forces[:9]).sum(axis=0)
    assert np.abs(torque).max() < 1e-10
    mirrored = superposed(x[:9], x[None, :9] * [1.0, 1.0, -1.0], np.ones(9))
    assert np.abs(mirrored).max() > 0.1
    assert superposed(x[:9], (x[None, :9] @ turn), np.ones(9)) == pytest.approx(0.0)


def test_hills_in_shapes_shrink_where_others_stand() -> None:
    frame = from_atoms(molecule("H2O"))
    walkers, settings = crew([frame], [0]), MetadynamicsSettings(variables="shape")
    bias = ShapeMetadynamics.of(walkers, settings, temperature=KELVIN)
    for step in (settings.pace, 2 * settings.pace, 2 * settings.pace + 1):
        bias.adapt(step, pack_frames([frame]), np.array([True]))
    (first, _), (second, _) = bias.shapes[0]
    scale = BOLTZMANN * (settings.factor - 1.0) * KELVIN
    assert first == settings.height
    assert second == pytest.approx(first * np.exp(-first / scale))
    with pytest.raises(InputError, match="got a cell"):
        ShapeMetadynamics.of(
            crew([from_atoms(bulk("Ar"))], [0]), settings, temperature=KELVIN
        )
