"""Spherical Bessel and Legendre functions against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre, spherical_jn

from alloop.models.networks.gemnet_layers import (
    SphericalBessel,
    bessel_roots,
    legendre_polynomials,
)


def test_roots_are_the_first_of_each_function() -> None:
    roots = bessel_roots(7, 6)
    degrees = np.arange(7)[:, None]
    np.testing.assert_allclose(spherical_jn(degrees, roots), 0.0, atol=1e-12)
    for degree, own in enumerate(roots):
        z = np.linspace(1e-3, own[-1] + 1e-3, 5000)
        signs = np.sign(spherical_jn(degree, z))
        assert (signs[1:] != signs[:-1]).sum() == 6


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)]
)
def test_the_fit_is_the_spherical_bessel_function(
    dtype: torch.dtype, tolerance: float
) -> None:
    r = torch.linspace(0.01, 5.0, 997, dtype=torch.float64)
    found = SphericalBessel(7, 6, 5.0).to(dtype)(r.to(dtype)).numpy()
    roots = bessel_roots(7, 6)
    degrees = np.arange(7)[:, None]
    norm = np.sqrt(2.0 / 5.0**3) / np.abs(spherical_jn(degrees + 1, roots))
    wanted = norm * spherical_jn(degrees, r.numpy()[:, None, None] / 5.0 * roots)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_radial_functions_of_one_degree_are_orthonormal() -> None:
    r = (torch.arange(20000, dtype=torch.float64) + 0.5) * (5.0 / 20000)
    f = SphericalBessel(3, 4, 5.0)(r)
    gram = torch.einsum("r,rln,rlm->lnm", r**2, f, f) * (5.0 / 20000)
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(gram, eye, rtol=0, atol=1e-6)


def test_far_beyond_the_cutoff_functions_stay_bounded() -> None:
    assert SphericalBessel(7, 6, 5.0)(torch.linspace(5.0, 500.0, 999)).abs().max() < 10


def test_angular_functions_are_legendre_polynomials() -> None:
    x = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    for degree, found in enumerate(legendre_polynomials(x, 7)):
        P = torch.from_numpy(eval_legendre(degree, x.numpy()))
        wanted = np.sqrt((2 * degree + 1) / (4 * np.pi)) * P
        torch.testing.assert_close(found, wanted)


def test_angular_functions_have_slopes_at_a_straight_angle() -> None:
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(torch.stack(legendre_polynomials(x, 7)).sum(), x)
    degrees = torch.arange(7, dtype=torch.float64)
    norm = torch.sqrt((2 * degrees + 1) / (4 * torch.pi))
    ends = norm * degrees * (degrees + 1) / 2  # of P_l' at 1
    wanted = torch.stack([(ends * (-1.0) ** (degrees + 1)).sum(), ends.sum()])
    torch.testing.assert_close(slopes, wanted)
