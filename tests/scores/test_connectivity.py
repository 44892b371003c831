"""Spectra of neighbour graphs against graph theory, and the scorer by them."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.integrate import quad

import alloop
from alloop import Campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.potentials.analytic import Morse
from alloop.scores.connectivity import (
    Connectivity,
    ConnectivityScorer,
    fit_connectivity,
    laplacian_spectra,
    spectrum_quantiles,
)
from alloop.testing import check_scorer
from tests.conftest import write_toy


def batch_of(*positions: object) -> Batch:
    frames = [Frame(np.ones(len(x), dtype=np.int64), np.asarray(x)) for x in positions]
    return pack_frames(frames)


def ring(n: int) -> np.ndarray:
    """Points whose neighbours on the ring are 1 Å apart."""
    angle = 2.0 * np.pi * np.arange(n) / n
    radius = 0.5 / np.sin(np.pi / n)
    return radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)


def line(n: int) -> np.ndarray:
    return np.arange(float(n))[:, None] * [1.0, 0.0, 0.0]


def test_spectra_are_those_of_graph_theory() -> None:
    n = 7
    star = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    batch = batch_of(ring(n), line(n), star, 0.1 * line(n), 9.0 * line(n))
    cycle, path, hub, complete, apart = laplacian_spectra(batch, 1.2)
    k = np.arange(n)
    np.testing.assert_allclose(cycle, np.sort(1 - np.cos(2 * np.pi * k / n)), atol=1e-9)
    np.testing.assert_allclose(path, 1 - np.cos(np.pi * k / (n - 1)), atol=1e-9)
    np.testing.assert_allclose(hub, [0, *[1] * (n - 2), 2], atol=1e-9)
    np.testing.assert_allclose(complete, [0, *[n / (n - 1)] * (n - 1)], atol=1e-9)
    np.testing.assert_allclose(apart, np.zeros(n), atol=1e-9)


def test_a_periodic_chain_is_a_ring() -> None:
    chain = Atoms("H6", line(6), cell=[6, 20, 20], pbc=[True, False, False])
    (found,) = laplacian_spectra(pack_frames([from_atoms(chain)]), 1.2)
    (wanted,) = laplacian_spectra(batch_of(ring(6)), 1.2)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_distances_are_those_of_eigenvalues_where_sizes_agree() -> None:
    fitted = fit_connectivity(batch_of(ring(6), line(6)), 1.2)
    tight = batch_of(0.1 * line(6))
    a, b, new = laplacian_spectra(batch_of(ring(6), line(6), 0.1 * line(6)), 1.2)
    quantiles = fitted.quantiles(tight)
    nearest = min(np.linalg.norm(new - a), np.linalg.norm(new - b))
    assert fitted.nearest(quantiles) * np.sqrt(6) == pytest.approx(nearest)
    mean = np.linalg.norm(new - (a + b) / 2)
    assert fitted.from_mean(quantiles) * np.sqrt(6) == pytest.approx(mean)
    assert fitted.nearest(fitted.quantiles(batch_of(ring(6)))) == pytest.approx(0.0)


def test_distances_of_unlike_sizes_are_integrals_over_quantiles() -> None:
    spectra = list(laplacian_spectra(batch_of(ring(5), line(8)), 1.2))

    def quantile(spectrum: np.ndarray, q: float) -> float:
        return np.interp(q, (np.arange(len(spectrum)) + 0.5) / len(spectrum), spectrum)

    square, _ = quad(
        lambda q: (quantile(spectra[0], q) - quantile(spectra[1], q)) ** 2, 0, 1
    )
    fine = [spectrum_quantiles(batch_of(x), 1.2, 500)[0] for x in (ring(5), line(8))]
    found = np.sqrt(((fine[0] - fine[1]) ** 2).mean())
    assert found == pytest.approx(np.sqrt(square), rel=1e-3)
    fitted = fit_connectivity(batch_of(line(8)), 1.2)
    assert fitted.nearest(fitted.quantiles(batch_of(ring(5)))) == pytest.approx(
        found, rel=0.1
    )


def test_the_number_of_atoms_alone_is_no_shift_of_a_long_chain() -> None:
    fitted = fit_connectivity(batch_of(line(40)), 1.2)
    longer, hub = fitted.quantiles(batch_of(line(44))), np.eye(3)
    star = fitted.quantiles(batch_of(np.concatenate([np.zeros((1, 3)), hub, -hub])))
    assert fitted.nearest(longer) < 0.01 < 0.1 < fitted.nearest(star)


def test_a_broken_bond_surprises_and_the_scorer_is_lawful() -> None:
    water = molecule("H2O")
    frames = []
    for k in range(8):
        near = water.copy()
        near.rattle(0.03, seed=k)
        frames.append(from_atoms(near))
    check_scorer(ConnectivityScorer(2.0), Morse(), frames)
    water.positions[1] *= 4.0
    scorer = ConnectivityScorer(2.0)
    fitted = scorer.fit(Morse(), pack_frames(frames), pack_frames([]), None)
    batch = pack_frames([*frames, from_atoms(water)])
    surprise = fitted.score(batch, Morse().predict(batch))
    assert (surprise[:-1] == 0.0).all()
    assert surprise[-1] > 0.1


def test_arrays_that_do_not_fit_and_no_frames_are_refused() -> None:
    scorer = ConnectivityScorer()
    arrays = dict(fit_connectivity(batch_of(ring(5)), 1.2).arrays())
    for wrong in (
        {"mean": np.zeros(4)},
        {"radius": np.array([-1.0])},
        {"spectra": np.zeros((0, 5))},
    ):
        with pytest.raises(ValueError, match="scorer"):
            scorer.restore(arrays | wrong, None)
    with pytest.raises(InputError, match="expected training frames"):
        fit_connectivity(batch_of(), 3.0)


def test_a_campaign_flags_by_connectivity(tmp_path: Path) -> None:
    file = write_toy(tmp_path, flag={"kind": "connectivity", "radius": 1.6})
    campaign = Campaign.from_yaml(file)
    assert campaign.run().finished is not None
    model = campaign.export_model(tmp_path / "a.model")
    scorer = alloop.load(model).scorer
    assert isinstance(scorer, Connectivity)
    assert scorer.radius == 1.6
