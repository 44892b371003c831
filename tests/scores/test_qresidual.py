"""The Q-residual against a plain SVD, planted outliers and its own round trip."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Scorer
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.scores.leverage import LeverageScorer, fit_leverage
from alloop.scores.qresidual import (
    UNSEEN,
    QResidual,
    QResidualScorer,
    fit_qresidual,
)
from alloop.scores.subspace import principal_subspace, ridge_space
from alloop.testing import check_scorer

FEATURES = 12
RANK = 4


@dataclass(frozen=True)
class World:
    """Descriptors of methane-like frames: each element on its own flat of RANK
    dimensions, with noise; hydrogen's noise is a tenth of carbon's."""

    seed: int = 0

    def batch(self, frames: int) -> Batch:
        return pack_frames(
            [Frame(np.array([6, 1, 1, 1, 1]), np.eye(5, 3) * 3.0)] * frames
        )

    def describe(self, batch: Batch, name: str) -> Floats:
        fixed, rng = random_stream(self.seed, "world"), random_stream(self.seed, name)
        out = np.zeros((len(batch.numbers), FEATURES))
        for element, noise in ((1, 0.01), (6, 0.1)):
            flat = fixed.standard_normal((RANK, FEATURES))
            atoms = np.flatnonzero(batch.numbers == element)
            inside = rng.standard_normal((len(atoms), RANK)) @ flat
            out[atoms] = inside + noise * rng.standard_normal((len(atoms), FEATURES))
        return out


def predicted(batch: Batch, descriptors: Floats) -> Predictions:
    none = np.zeros((len(batch.numbers), 3))
    return Predictions(np.zeros(len(batch)), none, descriptors)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["q", "ppca"])
def fitted(world: World, request: pytest.FixtureRequest) -> QResidual:
    train, heldout = world.batch(80), world.batch(30)
    return fit_qresidual(
        train,
        world.describe(train, "train"),
        heldout,
        world.describe(heldout, "heldout"),
        components=RANK,
        kind=request.param,
    )


def test_residuals_and_their_standardisation_are_those_of_a_plain_svd(
    world: World,
) -> None:
    train, heldout, new = world.batch(50), world.batch(40), world.batch(3)
    x, y, z = (
        world.describe(batch, name)
        for batch, name in ((train, "train"), (heldout, "heldout"), (new, "new"))
    )
    found = fit_qresidual(train, x, heldout, y, components=3).per_atom(new, z)
    for element in (1, 6):
        mine = x[train.numbers == element]
        mean = mine.mean(axis=0)
        _, _, axes = np.linalg.svd(mine - mean)
        outside = np.eye(FEATURES) - axes[:3].T @ axes[:3]

        apart, q = (
            (((rows[batch.numbers == element] - mean) @ outside) ** 2).sum(axis=1)
            for batch, rows in ((heldout, y), (new, z))
        )
        expected = (q - apart.mean()) / apart.std()
        np.testing.assert_allclose(found[new.numbers == element], expected, rtol=1e-8)


def test_probabilistic_distance_is_mahalanobis_under_the_model_covariance(
    world: World,
) -> None:
    batch = world.batch(60)
    x = world.describe(batch, "train")[batch.numbers == 1]
    space = principal_subspace(x, 3)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    sigma2 = variances[3:].mean()
    np.testing.assert_allclose(space.rest, sigma2, rtol=1e-9)
    w = space.axes.T
    covariance = w @ np.diag(space.variances - sigma2) @ w.T
    covariance += sigma2 * np.eye(FEATURES)
    away = x - x.mean(axis=0)
    expected = np.einsum("af,af->a", away, np.linalg.solve(covariance, away.T).T)
    np.testing.assert_allclose(space.distance(x), expected, rtol=1e-8)


@pytest.mark.parametrize("frames", [60, 2])  # more, and fewer atoms than features
def test_leverage_is_the_variance_of_a_ridge_regression(
    world: World, frames: int
) -> None:
    batch = world.batch(frames)
    x = world.describe(batch, "train")[batch.numbers == 1]
    space = ridge_space(x, ridge=1e-3)
    new = world.describe(batch, "new")[batch.numbers == 1]
    covariance = np.cov(x.T, bias=True)
    covariance += 1e-3 * np.trace(covariance) * np.eye(FEATURES)
    away = new - x.mean(axis=0)
    expected = np.einsum("af,af->a", away, np.linalg.solve(covariance, away.T).T)
    np.testing.assert_allclose(space.distance(new), expected, rtol=1e-8)
    # y = w·x with noise: the ridge estimate of w varies by the noise of every label
    rng = random_stream(1, "labels")
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + len(x) * space.rest * np.eye(FEATURES)
    weights = rng.normal(0.0, np.sqrt(space.rest), (4000, FEATURES))
    noise = rng.normal(0.0, np.sqrt(len(x)) * space.rest, (4000, len(x)))
    fitted = np.linalg.solve(gram, centred.T @ (weights @ centred.T + noise).T).T
    spread = ((fitted - weights) @ away.T).std(axis=0)
    np.testing.assert_allclose(spread, space.rest * np.sqrt(expected), rtol=0.1)


def test_a_share_of_variance_takes_as_few_axes_as_hold_it(world: World) -> None:
    batch = world.batch(60)
    x = world.describe(batch, "train")[batch.numbers == 6]
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    held = np.cumsum(variances) / variances.sum()
    for share in (0.3, 0.8, 0.95):
        kept = len(principal_subspace(x, share).axes)
        assert held[kept - 1] >= share
        assert kept == 1 or held[kept - 2] < share
    assert len(principal_subspace(x, 1000).axes) == FEATURES - 1


def test_a_planted_atom_is_the_most_surprising(world: World, fitted: QResidual) -> None:
    batch = world.batch(40)
    x = world.describe(batch, "new")
    x[5 * 17 + 3] += 0.15 * random_stream(1, "odd").standard_normal(FEATURES)
    surprise = fitted.score(batch, predicted(batch, x))
    assert np.argmax(surprise) == 17
    assert surprise[17] > 3.0 * np.sort(surprise)[-2]
    assert np.argmax(fitted.per_atom(batch, x)) == 5 * 17 + 3


def test_without_elements_of_its_own_the_noisy_one_would_hide_the_outlier(
    world: World,
) -> None:
    train, heldout, batch = world.batch(80), world.batch(30), world.batch(40)
    x = world.describe(batch, "new")
    x[5 * 23 + 3] += 0.03 * random_stream(1, "odd").standard_normal(FEATURES)
    sets = [world.describe(train, "train"), world.describe(heldout, "heldout")]
    own = fit_qresidual(train, sets[0], heldout, sets[1], components=RANK)
    one = Frame(np.ones(5, dtype=np.int64), np.eye(5, 3) * 3.0)
    blind = [pack_frames([one] * len(b)) for b in (train, heldout, batch)]
    common = fit_qresidual(blind[0], sets[0], blind[1], sets[1], components=2 * RANK)
    assert np.argmax(own.score(batch, predicted(batch, x))) == 23
    assert np.argmax(common.score(blind[2], predicted(blind[2], x))) != 23


def test_ordinary_atoms_have_mean_zero_and_spread_one(
    world: World, fitted: QResidual
) -> None:
    batch = world.batch(400)
    z = fitted.per_atom(batch, world.describe(batch, "ordinary"))
    for element in (1, 6):
        assert z[batch.numbers == element].mean() == pytest.approx(0.0, abs=0.5)
        assert z[batch.numbers == element].std() == pytest.approx(1.0, abs=0.4)


def test_probabilistic_surprise_also_sees_far_out_inside_the_subspace(
    world: World,
) -> None:
    train, heldout, batch = world.batch(80), world.batch(30), world.batch(20)
    x, y = world.describe(train, "train"), world.describe(heldout, "heldout")
    new = world.describe(batch, "new")
    q = fit_qresidual(train, x, heldout, y, RANK)
    new[7] = q.subspaces[0].mean + 100.0 * q.subspaces[0].axes[0]
    assert q.per_atom(batch, new)[7] < 5.0
    ppca = fit_qresidual(train, x, heldout, y, RANK, kind="ppca")
    assert np.argmax(ppca.per_atom(batch, new)) == 7
    assert ppca.per_atom(batch, new)[7] > 10.0


def test_arrays_bring_the_same_scorer_back(world: World, fitted: QResidual) -> None:
    batch = world.batch(5)
    x = world.describe(batch, "new")
    again = QResidual.from_arrays(fitted.arrays())
    np.testing.assert_array_equal(fitted.per_atom(batch, x), again.per_atom(batch, x))
    assert again.kind == fitted.kind
    for array in fitted.arrays().values():
        assert array.ndim >= 1
        assert array.dtype in (np.dtype("int64"), np.dtype("float64"))


def test_an_element_that_was_never_seen_surprises_finitely(fitted: QResidual) -> None:
    batch = pack_frames([Frame(np.array([6, 9]), np.eye(2, 3))])
    surprise = fitted.score(batch, predicted(batch, np.zeros((2, FEATURES))))
    assert surprise[0] == UNSEEN


@pytest.mark.parametrize("kind", ["q", "ppca"])
@pytest.mark.parametrize("components", [2, 0.99])
def test_rare_elements_are_scored_without_running_wild(
    world: World, components: float, kind: str
) -> None:
    usual = world.batch(40).frames()
    odd = Frame(np.array([6, 1, 1, 1, 9]), np.eye(5, 3) * 3.0)
    train, heldout = pack_frames([*usual, odd]), world.batch(20)
    rng = random_stream(3, "rare")
    x, y = world.describe(train, "train"), world.describe(heldout, "heldout")
    x[-1] = rng.standard_normal(FEATURES)
    scorer = fit_qresidual(train, x, heldout, y, components, kind)
    seen = pack_frames([odd])
    same = scorer.score(seen, predicted(seen, x[-5:]))
    assert np.isfinite(same).all()
    assert same[0] < UNSEEN
    far = x[-5:].copy()
    far[4] += 10.0 * rng.standard_normal(FEATURES)
    assert scorer.score(seen, predicted(seen, far))[0] > same[0]


def test_identical_training_atoms_leave_a_finite_scale(world: World) -> None:
    batch = world.batch(3)
    same = np.ones((15, FEATURES))
    scorer = fit_qresidual(batch, same, batch, same)
    assert np.isfinite(scorer.per_atom(batch, same)).all()
    assert (scorer.score(batch, predicted(batch, same + 1.0)) > 10.0).all()


def test_without_held_out_frames_training_frames_stand_in(world: World) -> None:
    train, none = world.batch(20), pack_frames([])
    x = world.describe(train, "train")
    alone = fit_qresidual(train, x, none, np.zeros((0, FEATURES)), RANK)
    both = fit_qresidual(train, x, train, x, RANK)
    np.testing.assert_array_equal(alone.spread, both.spread)


def test_held_out_frames_of_other_elements_leave_the_training_variance_as_scale(
    world: World,
) -> None:
    train, other = (
        world.batch(20),
        pack_frames([Frame(np.array([9]), np.zeros((1, 3)))]),
    )
    x = world.describe(train, "train")
    scorer = fit_qresidual(train, x, other, np.zeros((1, FEATURES)), RANK)
    totals = [space.total for space in scorer.subspaces]
    np.testing.assert_allclose(scorer.centre, totals)


def test_what_cannot_be_scored_or_fitted_is_refused(
    world: World, fitted: QResidual
) -> None:
    batch, none = world.batch(1), pack_frames([])
    with pytest.raises(InputError, match="expected per-atom descriptors"):
        fitted.score(batch, Predictions(np.zeros(1), np.zeros((5, 3))))
    with pytest.raises(InputError, match="expected training frames"):
        fit_qresidual(none, np.zeros((0, 2)), none, np.zeros((0, 2)))
    with pytest.raises(InputError, match="got 'soap'"):
        fit_qresidual(batch, np.zeros((5, 2)), none, np.zeros((0, 2)), kind="soap")


def test_no_frames_have_no_surprise(fitted: QResidual) -> None:
    none = pack_frames([])
    assert fitted.score(none, predicted(none, np.zeros((0, FEATURES)))).shape == (0,)


def test_surprise_by_leverage_is_the_norm_of_multiples_of_held_out_means(
    world: World,
) -> None:
    train, heldout, batch = world.batch(60), world.batch(40), world.batch(7)
    sets = ((b, world.describe(b, n)) for b, n in ((train, "t"), (heldout, "h")))
    scorer = fit_leverage(*sets, ridge=1e-3)
    new = world.describe(batch, "new")
    held = world.describe(heldout, "h")
    multiples = np.zeros(len(new))
    for element in (1, 6):
        space = ridge_space(world.describe(train, "t")[train.numbers == element], 1e-3)
        usual = space.distance(held[heldout.numbers == element]).mean()
        mine = batch.numbers == element
        multiples[mine] = space.distance(new[mine]) / usual
    expected = np.linalg.norm(multiples.reshape(7, 5), axis=1)
    found = scorer.score(batch, predicted(batch, new))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    again = QResidual.from_arrays(scorer.arrays())
    np.testing.assert_array_equal(again.score(batch, predicted(batch, new)), found)


@pytest.mark.parametrize("scorer", [QResidualScorer(), LeverageScorer()])
def test_scorers_of_descriptors_keep_the_laws_of_a_scorer(scorer: Scorer) -> None:
    network = build_network("painn", {"channels": 8}, dtype=torch.float64)
    potential = LearnedPotential(network, dict.fromkeys((1, 6, 7, 8), 0.0))
    names = ("H2O", "CH4", "NH3", "H2O2", "CH3OH", "H2CO")
    check_scorer(scorer, potential, [from_atoms(molecule(name)) for name in names])


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_surprise_does_not_depend_on_the_order_of_atoms_or_on_rotated_features(
    seed: int, order: list[int]
) -> None:
    world = World(seed)
    train, heldout, batch = world.batch(20), world.batch(20), world.batch(1)
    x, y = world.describe(train, "train"), world.describe(heldout, "heldout")
    new = world.describe(batch, "new")
    turn, _ = np.linalg.qr(
        random_stream(seed, "turn").standard_normal((FEATURES, FEATURES))
    )
    plain = fit_qresidual(train, x, heldout, y, RANK).score(
        batch, predicted(batch, new)
    )
    turned = fit_qresidual(train, x @ turn, heldout, y @ turn, RANK)
    shuffled = pack_frames([Frame(batch.numbers[order], batch.positions[order])])
    other = turned.score(shuffled, predicted(shuffled, (new @ turn)[order]))
    np.testing.assert_allclose(plain, other, rtol=1e-6, atol=1e-6)
