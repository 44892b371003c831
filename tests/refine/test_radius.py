"""Refined radii: the laws hold, bonds keep what was trained, the choice is careful."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.models.checkpoint import checkpoint_from_bytes, checkpoint_to_bytes
from alloop.models.layers import Envelope, cutoff_envelope, late_envelope
from alloop.potentials.analytic import Morse
from alloop.potentials.compiled import _code_key
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.restore import restore_potential
from alloop.refine.radius import choose_radius, trained_radius, with_radius
from alloop.refine.shifts import describe_frames, fit_shifts
from alloop.testing import check_potential
from tests.models.kinds import small

REFERENCES = {1: -13.6, 6: -1029.4, 8: -2041.8}


def potential(kind: str, cutoff: float = 4.0) -> LearnedPotential:
    return LearnedPotential(small(kind, cutoff=cutoff), REFERENCES)


def frames(*names: str) -> list[Frame]:
    rng = np.random.default_rng(1)
    made = []
    for name in names:
        atoms = molecule(name)
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        made.append(from_atoms(atoms))
    return made


def line(n: int, spacing: float, count: int = 1, seed: int = 0) -> Batch:
    """Carbon atoms in a line."""
    rng = np.random.default_rng(seed)
    x = spacing * np.arange(float(n))[:, None] * [1.0, 0.0, 0.0]
    numbers = np.full(n, 6)
    return pack_frames(
        [Frame(numbers, x + rng.normal(0, 0.01, x.shape)) for _ in range(count)]
    )


@pytest.mark.parametrize("kind", ["painn", "gemnet"])
@pytest.mark.parametrize("radius", [3.0, 6.0])
def test_a_refined_model_obeys_the_laws(kind: str, radius: float) -> None:
    refined = with_radius(potential(kind), radius)
    assert refined.cutoff == radius
    check_potential(refined, frames("H2O", "CH3OH"))
    batch = pack_frames(frames("CH3OH"))
    told = checkpoint_from_bytes(checkpoint_to_bytes(refined.checkpoint()))
    again = restore_potential(told).predict(batch)
    assert np.array_equal(again.forces, refined.predict(batch).forces)
    back = with_radius(refined, 4.0)
    assert back.checkpoint().settings == potential(kind).checkpoint().settings
    assert np.array_equal(
        back.predict(batch).forces, potential(kind).predict(batch).forces
    )


@pytest.mark.parametrize("kind", ["painn", "gemnet"])
def test_atoms_farther_than_the_training_radius_are_seen_by_a_larger_one(
    kind: str,
) -> None:
    near, far = line(2, 4.5), line(2, 30.0)
    plain = potential(kind)
    wide = with_radius(plain, 6.0)
    apart = plain.predict(far).energies
    assert plain.predict(near).energies == pytest.approx(apart, abs=1e-12)
    assert abs(wide.predict(near).energies - apart) > 1e-6
    narrow, at = with_radius(plain, 3.0), line(2, 3.5)
    assert narrow.predict(at).energies == pytest.approx(apart, abs=1e-12)
    assert abs(plain.predict(at).energies - apart) > 1e-6
    for refined in (wide, narrow):
        bond = line(2, 1.5)
        assert refined.predict(bond).forces == pytest.approx(plain.predict(bond).forces)


@pytest.mark.parametrize("shape", [cutoff_envelope, late_envelope])
@pytest.mark.parametrize("radius", [3.0, 5.0, 7.5, 10.0])
def test_moved_envelopes_are_smooth_and_end_at_the_radius(shape, radius: float) -> None:
    envelope = Envelope(shape, 5.0, radius)
    r = torch.linspace(0.5, 11.0, 4001, dtype=torch.float64)
    value = envelope(r)
    assert (value[r >= radius] == 0.0).all()
    assert ((value >= 0.0) & (value <= 1.0)).all()
    torch.testing.assert_close(value[r < 2.0], shape(r[r < 2.0], 5.0))
    second = np.diff(value.numpy(), n=2) / float(r[1] - r[0]) ** 2
    assert np.abs(np.diff(second)).max() < 0.2  # no jump of the second derivative


def test_compiled_code_is_not_shared_between_radii() -> None:
    plain = potential("painn")
    assert _code_key(plain) == _code_key(with_radius(plain, 4.0))
    assert _code_key(plain) != _code_key(with_radius(plain, 3.0))


def test_the_radius_follows_a_lattice_that_grew() -> None:
    trained = describe_frames(Morse(), line(12, 1.5, count=40))
    known = fit_shifts(trained, 4.0)
    grown = choose_radius(known, line(12, 1.5 * 1.5, count=10, seed=1))
    assert grown.changed
    assert 4.5 < grown.radius < 6.75  # two neighbours on each side, as in training
    assert grown.distances[grown.radius] == pytest.approx(0.0, abs=1e-6)
    same = choose_radius(known, line(12, 1.5, count=10, seed=2))
    assert not same.changed
    assert same.why == "the graphs are like those of the training"


def test_a_radius_that_is_hardly_better_is_not_taken() -> None:
    trained = describe_frames(Morse(), line(12, 1.5, count=40))
    known = fit_shifts(trained, 4.0)
    ring = line(12, 0.2)
    kept = choose_radius(known, ring, candidates=(3.0, 3.5), margin=0.99)
    assert kept.radius == kept.trained == 4.0
    assert "no radius" in kept.why


def test_what_cannot_be_refined_is_told_in_a_sentence() -> None:
    known = fit_shifts(describe_frames(Morse(), line(12, 1.5, count=40)), 4.0)
    with pytest.raises(InputError, match="one system, got CH4O, H2O"):
        choose_radius(known, pack_frames(frames("H2O", "CH3OH")))
    with pytest.raises(InputError, match="up to 8 Å"):
        with_radius(potential("painn"), 9.0)
    with pytest.raises(InputError, match="above 2 Å"):
        with_radius(potential("painn"), 1.0)
    with pytest.raises(InputError, match="painn or gemnet to change its radius"):
        trained_radius(Morse())
    with pytest.raises(InputError, match="got schnet"):
        with_radius(LearnedPotential(small("schnet"), REFERENCES), 4.0)
