"""Limits of errors: coverage, scorers of any scale, control frames, too few frames."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.error_limits import ErrorLimits
from alloop.core.units import Floats
from alloop.scores.error_limits import fit_error_limits, needed_frames


def _frames(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return surprise and errors whose spread grows with it, as z-scores do."""
    rng = np.random.default_rng(seed)
    raw = rng.lognormal(0.0, 1.0, n)
    errors = 0.02 * raw**0.7 * rng.lognormal(0.0, 0.4, n)
    return (raw - 1.6) / 2.2, errors


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [30, 200])
def test_limits_hold_for_the_promised_share_of_new_frames(
    n: int, coverage: float
) -> None:
    held = []
    for seed in range(60):
        limits = fit_error_limits(*_frames(n, seed), coverage)
        assert limits is not None
        surprise, errors = _frames(400, 10_000 + seed)
        said = limits.limits(surprise)
        held.append(np.mean((errors <= said)[np.isfinite(said)]))
    rank = np.ceil((n + 1) * coverage)  # few frames promise a little more
    assert np.mean(held) == pytest.approx(rank / (n + 1), abs=0.02)


def test_limits_follow_the_error_and_are_sharper_than_one_number() -> None:
    limits = fit_error_limits(*_frames(400, 1), 0.9)
    assert limits is not None
    surprise, errors = _frames(4000, 2)
    low, high = np.quantile(surprise, [0.1, 0.9])
    for part in (surprise < low, surprise > high):  # also where it is large or small
        held = np.mean(errors[part] <= limits.limits(surprise[part]))
        assert held == pytest.approx(0.9, abs=0.06)
    constant = np.quantile(errors, 0.9)
    assert np.median(limits.limits(surprise)) < 0.7 * constant


@pytest.mark.parametrize(
    "change", [lambda s: 1e4 * s - 3e5, lambda s: s, lambda s: 1e-9 * s]
)
def test_limits_do_not_depend_on_the_scale_of_a_scorer(change) -> None:
    surprise, errors = _frames(60, 3)
    usual = fit_error_limits(surprise, errors, 0.9)
    other = fit_error_limits(change(surprise), errors, 0.9)
    assert usual is not None
    assert other is not None
    assert other.limits(change(surprise)) == pytest.approx(usual.limits(surprise))


def test_limits_never_fall_with_surprise_and_are_constant_where_it_misleads() -> None:
    surprise, errors = _frames(50, 4)
    limits = fit_error_limits(-surprise, errors, 0.9)
    assert limits is not None
    assert limits.limit(0.0) == pytest.approx(limits.limit(-9.0))
    flat = fit_error_limits(np.zeros(20), errors[:20], 0.9)
    assert flat is not None
    assert flat.limits(np.array([-1.0, 0.0])) == pytest.approx(
        [np.sort(errors[:20])[18]] * 2, rel=0.2
    )


def test_the_threshold_of_an_error_is_where_the_limit_exceeds_it() -> None:
    limits = fit_error_limits(*_frames(80, 5), 0.9)
    assert limits is not None
    low, high = np.exp(limits.logarithms[0]), np.exp(limits.logarithms[-1])
    for error in (1.1 * low, np.sqrt(low * high)):
        at = limits.surprise_at(float(error))
        assert limits.limit(at) == pytest.approx(error)
        assert limits.limit(at + 0.1) > error
    last = limits.surprise_at(float(1.1 * high))
    assert limits.limit(last - 1e-6) < 1.1 * high
    assert limits.limit(last + 1e-6) == np.inf
    assert limits.surprise_at(0.9 * low) == -math.inf
    old = ErrorLimits(0.9, 20, 0.0, 1.0, (0.0,), (math.log(0.05),), 0.0)
    assert old.surprise_at(0.1) == pytest.approx(math.sinh(1.0))  # none beyond
    flat = replace(old, beyond=0.0)
    assert flat.surprise_at(0.1) == 0.0
    assert flat.surprise_at(0.01) == -math.inf


def test_nothing_is_promised_from_too_few_frames() -> None:
    assert [needed_frames(x) for x in (0.5, 0.9, 0.95, 0.99)] == [10, 10, 19, 99]
    surprise, errors = _frames(18, 6)
    assert fit_error_limits(surprise, errors, 0.95) is None
    surprise = np.where(np.arange(18) < 9, np.nan, surprise)  # no scorer, no limit
    assert fit_error_limits(surprise, errors, 0.9) is None


def test_control_frames_raise_limits_that_did_not_hold_in_md() -> None:
    surprise, errors = _frames(60, 7)
    alone = fit_error_limits(surprise, errors, 0.9)
    assert alone is not None
    few = fit_error_limits(surprise, errors, 0.9, [5.0] * 8)
    raised = fit_error_limits(surprise, errors, 0.9, [0.5, 2.0] * 10)
    kept = fit_error_limits(surprise, errors, 0.9, [0.1] * 20)
    assert few == alone
    assert kept is not None
    assert (kept.factor, kept.controls) == (1.0, 20)
    assert raised is not None
    assert (raised.factor, raised.controls) == (2.0, 20)
    assert raised.limits(surprise) == pytest.approx(2.0 * alone.limits(surprise))


def test_surprise_beyond_all_frames_has_no_limit() -> None:
    surprise, errors = _frames(60, 8)
    limits = fit_error_limits(surprise, errors, 0.9)
    assert limits is not None
    most = float(surprise.max())
    inside, beyond, none = limits.limits(np.array([most - 1e-6, 1.01 * most, np.nan]))
    assert inside < np.inf
    assert beyond == np.inf
    assert np.isnan(none)
    older = replace(limits, beyond=1.0)  # as in the stores of an older alloop
    assert inside < older.limit(1.01 * most) < older.limit(1e6) == np.inf


def _waters(lengths: list[float], pbc: bool = False) -> Batch:
    """Waters with a first O-H bond of these lengths, Å; pbc: across a cell's wall."""
    frames = []
    for length in lengths:
        atoms = molecule("H2O")
        atoms.set_distance(0, 1, length, fix=0)
        if pbc:
            atoms.set_cell([8.0, 8.0, 8.0])
            atoms.pbc = True
            atoms.positions += [0.0, 0.0, 7.9]
            atoms.wrap()
        frames.append(from_atoms(atoms))
    return pack_frames(frames)


@pytest.mark.parametrize("pbc", [False, True])
def test_a_bond_beyond_all_frames_has_no_limit(pbc: bool) -> None:
    lengths = np.linspace(0.9, 1.1, 20)
    surprise, errors = np.linspace(1.0, 2.0, 20), np.linspace(0.1, 0.2, 20)
    limits = fit_error_limits(surprise, errors, 0.9, batch=_waters([*lengths], pbc))
    assert limits is not None
    asked = _waters([0.8, 0.88, 1.0, 1.12, 1.2, 1.4], pbc)
    said = limits.limits(np.full(6, 1.5), asked)
    assert np.isfinite(said).tolist() == [False, True, True, True, False, False]
    assert np.isfinite(limits.limits(np.full(6, 1.5))).all()
    assert limits.limit(1.5, asked.frame(5)) == np.inf
    other = pack_frames([from_atoms(molecule("CH4"))])
    assert limits.limits(np.array([1.5]), other)[0] == np.inf
    apart = molecule("H2O") + Atoms("He", [[0.0, 0.0, 9.0]])  # far is not looked at
    assert limits.limit(1.5, from_atoms(apart)) < np.inf
    fields = json.loads(json.dumps(asdict(limits)))
    assert ErrorLimits.from_fields(fields) == limits
    fields["distances"]["intervals"][0] = [2.0, 1.0]
    with pytest.raises(ValueError, match="intervals of distances"):
        ErrorLimits.from_fields(fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": -1.0},
        {"logarithms": (0.0, math.nan)},
        {"logarithms": (0.0, -1.0)},
        {"knots": (0.0,)},
        {"knots": (0.0, 0.0)},
        {"coverage": 1.0},
        {"width": 0.0},
        {"beyond": -1.0},
    ],
)
def test_malformed_limits_are_refused(wrong: dict[str, Any]) -> None:
    right = {"coverage": 0.9, "frames": 20, "centre": 0.0, "width": 1.0, "slope": 1.0}
    right |= {"knots": (0.0, 1.0), "logarithms": (0.0, 1.0)}
    assert ErrorLimits.from_fields({**right, "knots": [0.0, 1.0]}).limit(0.0) == 1.0
    with pytest.raises(ValueError, match="expected"):
        ErrorLimits.from_fields({**right, **wrong})
