"""Collective variables against numerical derivatives and ASE's geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.core.arrays import to_numpy
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats
from alloop.md.collective_variables import (
    SMALLEST_SINE,
    Angle,
    CollectiveVariable,
    Coordination,
    Distance,
    DistanceDifference,
    Torsion,
    nearest_difference,
    rotatable_torsions,
    transfer_differences,
    walker_variables,
)

VARIABLES: list[CollectiveVariable] = [
    Distance((0, 1)),
    DistanceDifference((0, 1, 2)),
    Angle((0, 1, 2)),
    Torsion((0, 1, 2, 3)),
    Coordination((0, 1, 2, 3), 1.5),
]


def numerical_gradients(variable: CollectiveVariable, x: Floats) -> Floats:
    out, h = np.zeros_like(x), 1e-5
    for place in np.ndindex(x.shape[1:]):
        sides = []
        for move in (h, -h):
            moved = x.copy()
            moved[(slice(None), *place)] += move
            sides.append(variable.evaluate(moved)[0])
        difference = nearest_difference(sides[0] - sides[1], np.array(variable.period))
        out[(slice(None), *place)] = difference / (2.0 * h)
    return out


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda x: type(x).__name__)
def test_gradients_are_those_of_the_values(variable: CollectiveVariable) -> None:
    x = np.random.default_rng(1).normal(size=(40, len(variable.atoms), 3))
    if variable.unit == "rad":  # away from the caps
        triples = [x[:, i : i + 3] for i in range(x.shape[1] - 2)]
        sines = [np.sin(Angle((0, 1, 2)).evaluate(triple)[0]) for triple in triples]
        x = x[np.min(sines, axis=0) > 0.15]
    _, gradients = variable.evaluate(x)
    assert len(x) > 20
    np.testing.assert_allclose(gradients, numerical_gradients(variable, x), atol=1e-7)
    np.testing.assert_allclose(gradients.sum(1), 0.0, atol=1e-12)
    torque = np.cross(x, gradients).sum(1)  # no variable turns a molecule as a whole
    np.testing.assert_allclose(torque, 0.0, atol=1e-11)


def test_values_are_those_of_ase() -> None:
    x = np.random.default_rng(2).normal(size=(20, 4, 3))
    values = [
        variable.evaluate(x[:, : len(variable.atoms)])[0] for variable in VARIABLES
    ]
    for row, positions in enumerate(x):
        atoms = Atoms("H4", positions)
        r = atoms.get_all_distances()
        assert values[0][row] == pytest.approx(r[0, 1])
        assert values[1][row] == pytest.approx(r[0, 1] - r[1, 2])
        assert np.degrees(values[2][row]) == pytest.approx(atoms.get_angle(0, 1, 2))
        degrees = np.degrees(values[3][row]) % 360.0
        assert degrees == pytest.approx(atoms.get_dihedral(0, 1, 2, 3))
        t = r[0, 1:] / 1.5
        ratio = (1.0 - t**6) / (1.0 - t**12)
        assert values[4][row] == pytest.approx(ratio.sum())


def bent_chain(*angles: float) -> Floats:
    """Four atoms 1 Å apart in a zigzag with these deviations from a line, rad."""
    x = np.zeros((4, 3))
    x[1] = [1.0, 0.0, 0.0]
    x[2] = x[1] + [np.cos(angles[0]), np.sin(angles[0]), 0.0]
    turn = angles[0] + np.pi / 2
    across = np.array([np.cos(turn), np.sin(turn), 0.0])
    lift = 0.6 * across + 0.8 * np.array([0.0, 0.0, 1.0])  # a torsion of its own
    x[3] = x[2] + np.cos(angles[1]) * (x[2] - x[1]) + np.sin(angles[1]) * lift
    return x


@pytest.mark.parametrize("deviation", [0.0, 1e-9, 1e-4, 0.03, 0.0999, 0.1001, 0.5])
@pytest.mark.parametrize("other", [0.0, 0.02, 1.0])
def test_gradients_near_a_line_are_capped(deviation: float, other: float) -> None:
    x = bent_chain(deviation, other)[None]
    for variable in (Torsion((0, 1, 2, 3)), Angle((0, 1, 2))):
        value, gradient = variable.evaluate(x[:, : len(variable.atoms)])
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
        ends = np.linalg.norm(gradient[0, [0, -1]], axis=1)
        assert (ends <= 1.0001 / SMALLEST_SINE).all()
        np.testing.assert_allclose(
            np.cross(x[:, : gradient.shape[1]], gradient).sum(1), 0.0, atol=1e-9
        )
        if deviation == 0.0:
            np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_the_cap_of_a_torsion_has_its_documented_factor() -> None:
    x = bent_chain(0.05, 1.0)[None]
    torsion = Torsion((0, 1, 2, 3))
    exact = numerical_gradients(torsion, x)
    factor = (np.sin(0.05) / SMALLEST_SINE) ** 2
    np.testing.assert_allclose(torsion.evaluate(x)[1], factor * exact, atol=1e-6)


def mixed_frames() -> list[Frame]:
    names = ("CH3CH2OH", "H2O", "CH3COOH", "CH3CH2OH")
    rng = np.random.default_rng(3)
    frames = [from_atoms(molecule(name)) for name in names]
    return [
        replace(x, positions=x.positions + 0.1 * rng.normal(size=x.positions.shape))
        for x in frames
    ]


MIXED: list[list[CollectiveVariable]] = [
    [Torsion((0, 1, 2, 3)), Distance((0, 2))],
    [],
    [DistanceDifference((2, 3, 1)), Torsion((1, 0, 2, 3))],
    [Torsion((0, 1, 2, 3)), Coordination((0, 1, 2), 1.6)],
]


def test_a_batch_gives_each_walker_its_own() -> None:
    frames = mixed_frames()
    batch = pack_frames(frames)
    variables = walker_variables(batch, MIXED)
    values, gradients = variables.evaluate(batch.positions)
    slopes = np.random.default_rng(4).normal(size=values.shape)
    forces = variables.forces(batch.positions, gradients, slopes)
    for walker, (frame, row) in enumerate(zip(frames, MIXED, strict=True)):
        expected = np.zeros((len(frame), 3))
        for column, variable in enumerate(row):
            value, gradient = variable.evaluate(frame.positions[None, variable.atoms])
            assert values[walker, column] == value[0]
            assert variables.periods[walker, column] == variable.period
            expected[list(variable.atoms)] -= slopes[walker, column] * gradient[0]
        span = slice(*batch.offsets[walker : walker + 2])
        np.testing.assert_allclose(forces[span], expected, atol=1e-13)
    assert not values[1].any()
    assert variables.used.tolist() == [[1, 1], [0, 0], [1, 1], [1, 1]]


def test_arrays_of_torch_give_the_same() -> None:
    batch = pack_frames(mixed_frames())
    here = walker_variables(batch, MIXED)
    there = walker_variables(batch, MIXED, torch.tensor)
    positions = torch.tensor(batch.positions)
    values, gradients = here.evaluate(batch.positions)
    forces = here.forces(batch.positions, gradients, values)
    moved, slopes = there.evaluate(positions)
    pushed = there.forces(positions, slopes, moved)
    assert isinstance(pushed, torch.Tensor)
    np.testing.assert_allclose(to_numpy(moved), values, atol=1e-13)
    np.testing.assert_allclose(to_numpy(pushed), forces, atol=1e-12)


def test_differences_are_between_nearest_images() -> None:
    periods = np.array([2.0 * np.pi, 0.0])
    difference = nearest_difference(np.array([[6.0, 6.0], [-3.5, -3.5]]), periods)
    np.testing.assert_allclose(
        difference, [[6.0 - 2.0 * np.pi, 6.0], [2.0 * np.pi - 3.5, -3.5]]
    )


def test_mistakes_are_told_in_a_sentence() -> None:
    batch = pack_frames([from_atoms(molecule("H2O"))])
    with pytest.raises(InputError, match=r"atoms from 0 to 2 .* got 0, 3"):
        walker_variables(batch, [[Distance((0, 3))]])
    with pytest.raises(InputError, match="got 1, 1"):
        walker_variables(batch, [[Distance((1, 1))]])
    with pytest.raises(InputError, match="got none"):
        walker_variables(batch, [[]])
    crystal = pack_frames([from_atoms(Atoms("Ar2", cell=[5, 5, 5], pbc=True))])
    with pytest.raises(InputError, match="without a cell"):
        walker_variables(crystal, [[Distance((0, 1))]])


@pytest.mark.parametrize(
    ("name", "torsions"),
    [
        ("trans-butane", [(0, 1, 2, 3), (2, 1, 0, 4), (1, 2, 3, 5)]),  # heavy first
        ("CH3CH2OH", [(0, 1, 2, 3), (2, 1, 0, 6)]),  # hydroxyl before methyl
        ("C6H6", []),
        ("H2O", []),
        ("2-butyne", []),  # all in a line
    ],
)
def test_each_rotatable_bond_has_one_torsion(
    name: str, torsions: list[tuple[int, ...]]
) -> None:
    frame = from_atoms(molecule(name))
    assert [x.atoms for x in rotatable_torsions(frame)] == torsions


def test_a_cell_has_no_variables() -> None:
    atoms = molecule("HCOOH", cell=[8, 8, 8], pbc=True)
    assert not rotatable_torsions(from_atoms(atoms))
    assert not transfer_differences(from_atoms(atoms), 3.0)


@pytest.mark.parametrize(
    ("name", "transfers"),
    [
        ("CH3COOH", [(2, 3, 1)]),  # O-H to O
        ("CH3CH2OH", []),  # no acceptor
        ("H2O", []),
    ],
)
def test_hydrogens_go_from_donors_to_acceptors(
    name: str, transfers: list[tuple[int, ...]]
) -> None:
    frame = from_atoms(molecule(name))
    assert [x.atoms for x in transfer_differences(frame, 3.0)] == transfers
    assert not transfer_differences(frame, 1.5)


def test_the_closest_acceptor_comes_first() -> None:
    water = molecule("H2O")
    pair = water.copy()
    pair.translate([0.0, 0.0, -2.9])  # both hydrogens of one near the other's oxygen
    pair.translate([0.0, 0.3, 0.0])
    frame = from_atoms(water + pair)
    transfers = transfer_differences(frame, 4.0)
    lengths = [
        np.linalg.norm(frame.positions[x.atoms[1]] - frame.positions[x.atoms[2]])
        for x in transfers
    ]
    assert len(transfers) >= 2
    assert lengths == sorted(lengths)
    assert {x.atoms[0] for x in transfers} <= {0, 3}
