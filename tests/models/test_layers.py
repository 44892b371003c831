"""The envelope and the radial functions against calculus."""

import math

import pytest
import torch

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.models.graph import to_graph
from alloop.models.layers import AtomEmbedding, BesselBasis, cutoff_envelope


def derivatives(r: float, order: int) -> list[float]:
    x = torch.tensor([r], dtype=torch.float64, requires_grad=True)
    value = cutoff_envelope(x, 5.0)
    found = [value.item()]
    for _ in range(order):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        found.append(value.item())
    return found


def test_the_envelope_starts_at_one_and_ends_with_two_derivatives() -> None:
    assert derivatives(0.0, 2) == pytest.approx([1.0, 0.0, 0.0])
    assert derivatives(5.0, 2) == [0.0, 0.0, 0.0]
    near = derivatives(5.0 - 1e-5, 2)
    assert max(map(abs, near)) < 1e-4


def test_the_envelope_is_zero_beyond_the_cutoff() -> None:
    r = torch.linspace(5.0, 50.0, 100)
    assert not cutoff_envelope(r, 5.0).any()


def test_the_envelope_falls() -> None:
    values = cutoff_envelope(torch.linspace(0.0, 5.0, 200, dtype=torch.float64), 5.0)
    assert (values.diff() < 0).all()


def test_radial_functions_are_orthonormal_in_the_sphere() -> None:
    """∫ r² φ_m φ_n dr over the cutoff is δ_mn for spherical Bessel functions."""
    r = (torch.arange(20000, dtype=torch.float64) + 0.5) * (5.0 / 20000)
    phi = BesselBasis(6, 5.0).double()(r)
    gram = torch.einsum("r,rm,rn->mn", r**2, phi, phi) * (5.0 / 20000)
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64))


def test_the_first_radial_function_is_a_sinc() -> None:
    value = BesselBasis(1, 5.0)(torch.tensor([2.5])).item()
    assert value == pytest.approx(math.sqrt(2 / 5) / 2.5)


def test_charge_and_spin_leave_neutral_singlets_exact() -> None:
    embedding = AtomEmbedding(4)
    positions = torch.zeros(1, 3).numpy()
    frames = [
        Frame([8], positions, charge, spin)
        for charge, spin in ((0, 0), (1, 0), (0, 2), (2, 0))
    ]
    features = embedding(to_graph(pack_frames(frames), 5.0))
    own = embedding.element(torch.tensor([8]))[0]
    assert torch.equal(features[0], own)
    shifts = features[1:] - own
    assert (shifts[:2].abs().max(dim=1).values > 1e-3).all()
    torch.testing.assert_close(shifts[2], 2 * shifts[0])  # linear in the charge
