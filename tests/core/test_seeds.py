"""The same name gives the same numbers."""

import numpy as np
import pytest

from alloop.core.seeds import name_share, random_stream, torch_seed


def test_streams_never_change():
    """Resumed campaigns draw these numbers again, in any later version."""
    np.testing.assert_allclose(
        random_stream(7, "explore/1/0/0").random(3),
        [0.4458028807904133, 0.8956198005594241, 0.24561701810432524],
        rtol=1e-15,
    )
    assert torch_seed(7, "train/1") == 1301407862482708776
    assert name_share(7, "heldout/abc") == pytest.approx(0.8047271363344645, rel=1e-15)


def test_a_stream_does_not_depend_on_what_ran_before():
    first = random_stream(1, "a").normal(size=5)
    random_stream(1, "b").normal(size=100)
    np.testing.assert_array_equal(random_stream(1, "a").normal(size=5), first)


def test_names_and_seeds_give_streams_of_their_own():
    draws = {
        random_stream(seed, name).integers(2**62)
        for seed in range(20)
        for name in ("a", "b", "a/1", "a/11")
    }
    assert len(draws) == 80


def test_streams_of_neighbouring_names_are_not_correlated():
    draws = np.array(
        [random_stream(3, f"walker/{i}").normal(size=400) for i in range(30)]
    )
    correlation = np.corrcoef(draws)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / np.sqrt(400)


def test_torch_seeds_fit_a_signed_integer():
    seeds = [torch_seed(seed, "train") for seed in range(200)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert len(set(seeds)) == 200


def test_shares_are_uniform():
    shares = np.array([name_share(5, f"frame/{i}") for i in range(4000)])
    assert 0 <= shares.min() < 0.01
    assert 0.99 < shares.max() < 1
    # Mean and variance within five standard errors of a uniform distribution's.
    assert shares.mean() == pytest.approx(1 / 2, abs=5 * np.sqrt(1 / 12 / 4000))
    assert shares.var() == pytest.approx(1 / 12, abs=5 * np.sqrt(1 / 180 / 4000))
