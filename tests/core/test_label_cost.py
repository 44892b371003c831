"""What labels cost: learnt from few of them, for molecules that nobody measured."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from ase.symbols import string2symbols
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alloop.core.atoms import atomic_number
from alloop.core.cost_curve import Curve
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost, molecule_key
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.levels import pyscf_level, toy_level
from alloop.labels.programs import level_cost
from alloop.store.codec import Codec

CHAIN = ("CH4", "C2H6", "C3H8", "C4H10", "C6H14", "C10H22")

# CPU seconds (median of up to five frames) and basis functions of H and of C, N, O, as
# `python -m benchmarks.labels.cost_prediction` measures them, without stability checks.
MOLECULES = (
    *("H2O", "NH3", "CH4", "H2CO", "CH3OH", "C2H6"),
    *("CH3CHO", "CH3CH2OH", "CH3OCH3", "C6H6"),
)
MEASURED = {
    ("hf", "sto-3g", False): (
        *((1, 5), 0.0257, 0.0249, 0.0311, 0.0503, 0.0711, 0.0974),
        *(0.141, 0.209, 0.211, 1.19),
    ),
    ("hf", "def2-svp", False): (
        *((5, 14), 0.0502, 0.074, 0.115, 0.19, 0.399, 0.73),
        *(0.951, 1.66, 1.63, 9.49),
    ),
    ("b3lyp", "def2-svp", True): (
        *((5, 14), 0.351, 0.548, 0.823, 0.894, 1.59, 2.18),
        *(3.28, 3.93, 4.74, 10.4),
    ),
    ("mp2", "cc-pvdz", False): (
        *((5, 14), 0.0841, 0.143, 0.255, 0.384, 0.749, 1.43),
        *(2.04, 4.03, 4.01),
    ),
    ("ccsd", "cc-pvdz", False): (
        *((5, 14), 0.266, 0.317, 0.445, 0.895, 1.96, 3.61),
        *(6.75, 11.7, 11.6),
    ),
    ("ccsd(t)", "6-31g", False): (
        *((2, 9), 0.141, 0.189, 0.228, 0.977, 1.93, 4.09),
        *(13.7, 19.2, 23.5),
    ),
}


def frame(formula: str, spin: int = 0) -> Frame:
    numbers = np.array([atomic_number(symbol) for symbol in string2symbols(formula)])
    return Frame(numbers, np.arange(3.0 * len(numbers)).reshape(-1, 3), spin=spin)


def label(
    at: Frame,
    level: Level,
    seconds: float,
    functions: int | None = None,
    peak_mb: float | None = None,
) -> tuple[Frame, Label]:
    details = {"functions": functions, "peak_mb": peak_mb}
    forces = np.zeros((len(at), 3))
    return at, Label(at.id, level.id, 0.0, forces, seconds, details)


def recorded(
    key: tuple[str, str, bool],
) -> tuple[Level, dict[str, tuple[Frame, Label]]]:
    method, basis, fitted = key
    level = pyscf_level(method, basis, density_fit=fitted)
    (light, heavy), *seconds = MEASURED[key]
    found = {}
    for name, price in zip(MOLECULES, seconds, strict=False):
        at = frame(name)
        hydrogens = int((at.numbers == 1).sum())
        functions = light * hydrogens + heavy * (len(at) - hydrogens)
        found[name] = label(at, level, price, functions)
    return level, found


def factor(cost: Cost, known: tuple[Frame, Label]) -> float:
    """How far off a prediction is: larger over smaller."""
    at, truth = known
    ratio = cost.seconds(at) / truth.cpu_seconds
    return max(ratio, 1 / ratio)


@pytest.mark.parametrize("key", MEASURED)
def test_a_molecule_left_out_is_priced_within_a_factor_of_one_and_a_half(
    key: tuple[str, str, bool],
) -> None:
    level, known = recorded(key)
    for name in known:
        others = [value for other, value in known.items() if other != name]
        cost = level_cost(level, others)
        assert factor(cost, known[name]) < 1.5, name


@pytest.mark.parametrize("key", MEASURED)
def test_ten_labels_of_two_molecules_price_the_others(
    key: tuple[str, str, bool],
) -> None:
    level, known = recorded(key)
    cost = level_cost(level, [known["H2O"], known["CH3OH"]] * 5)
    off = [factor(cost, x) for n, x in known.items() if n not in ("H2O", "CH3OH")]
    assert np.mean(np.array(off) < 1.5) > 0.8
    assert max(off) < 2
    assert cost.labels == 10


def test_the_spread_that_is_told_covers_two_thirds_of_what_comes() -> None:
    inside = []
    for key in MEASURED:
        level, known = recorded(key)
        for name in known:
            cost = level_cost(level, [known[name]] * 10)
            inside += [
                factor(cost, x) < cost.spread(x[0])
                for n, x in known.items()
                if n != name
            ]
    assert 0.6 < np.mean(inside) < 0.99


LEVELS = (
    pyscf_level("hf", "sto-3g"),
    pyscf_level("b3lyp", "def2-svp", density_fit=True),
    pyscf_level("ccsd(t)", "cc-pvdz"),
    toy_level(),
)
level_and_prices = given(
    level=st.sampled_from(LEVELS),
    prices=st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=4),
)


def labels_of(level: Level, prices: Sequence[float]) -> list[tuple[Frame, Label]]:
    return [label(frame(n), level, s) for n, s in zip(CHAIN, prices, strict=False)]


@level_and_prices
@settings(max_examples=10, deadline=None)
def test_a_larger_molecule_never_costs_less_whatever_was_measured(
    level: Level, prices: list[float]
) -> None:
    cost = level_cost(level, labels_of(level, prices))
    along = [cost.time.value(size, False) for size in np.geomspace(1, 1000, 30)]
    assert all(np.diff(along) >= 0)
    assert cost.size(frame("C6H14")) < cost.size(frame("C10H22"))
    assert cost.seconds(frame("C6H14")) < cost.seconds(frame("C10H22"))


@level_and_prices
@example(LEVELS[2], [12.0, 8.0, 1.0])  # prices against the curve: whole steps cycle
@settings(max_examples=10, deadline=None)
def test_a_machine_that_is_slower_makes_all_prices_higher_alike(
    level: Level, prices: list[float]
) -> None:
    fast = level_cost(level, labels_of(level, prices))
    slow = level_cost(level, labels_of(level, [7.0 * price for price in prices]))
    for name in CHAIN:
        ratio = slow.seconds(frame(name)) / fast.seconds(frame(name))
        assert ratio == pytest.approx(7.0, rel=1e-4)  # a fit by iteration


@level_and_prices
@settings(max_examples=10, deadline=None)
def test_the_order_of_labels_does_not_matter(level: Level, prices: list[float]) -> None:
    labels = [*labels_of(level, prices), *labels_of(level, prices[::-1])]
    shuffled = random.Random(len(prices)).sample(labels, len(labels))
    assert level_cost(level, shuffled) == level_cost(level, labels)


def test_labels_that_went_up_the_ladder_do_not_spoil_the_price() -> None:
    level, known = recorded(("hf", "def2-svp", False))
    at, usual = known["CH3OH"]
    dear = label(at, level, 6 * usual.cpu_seconds, 48)
    clean = level_cost(level, [known["CH3OH"]] * 10)
    spoilt = level_cost(level, [known["CH3OH"]] * 7 + [dear] * 3)
    for name in known:
        ratio = spoilt.seconds(frame(name)) / clean.seconds(frame(name))
        assert ratio == pytest.approx(1)


def test_one_odd_molecule_does_not_spoil_the_others() -> None:
    level, known = recorded(("mp2", "cc-pvdz", False))
    at, usual = known["H2CO"]
    odd = {**known, "H2CO": label(at, level, 8 * usual.cpu_seconds, 38)}
    cost = level_cost(level, odd.values())
    assert max(factor(cost, x) for n, x in known.items() if n != "H2CO") < 1.5


def test_a_molecule_that_was_measured_often_is_priced_by_itself() -> None:
    level, known = recorded(("hf", "sto-3g", False))
    at, usual = known["H2O"]
    own = [label(at, level, 3 * usual.cpu_seconds, 7)] * 10
    cost = level_cost(level, [*own, *(x for n, x in known.items() if n != "H2O")])
    assert cost.seconds(at) == pytest.approx(3 * usual.cpu_seconds, rel=0.1)
    assert cost.spread(at) < cost.spread(frame("C3H8")) < 1.5


def test_the_basis_is_learnt_from_the_functions_that_labels_had() -> None:
    level, known = recorded(("hf", "sto-3g", False))
    guess = level_cost(level, [known["H2O"]])
    assert guess.size(frame("C6H6")) == pytest.approx(36, rel=0.25)
    cost = level_cost(level, [known["H2O"], known["H2CO"]])
    assert cost.size(frame("C6H6")) == pytest.approx(36, rel=0.01)


def test_unpaired_electrons_cost_more_and_how_much_is_learnt() -> None:
    level = pyscf_level("ccsd", "cc-pvdz")
    closed = [label(frame(name), level, s) for name, s in (("CH4", 1), ("C2H6", 9))]
    radical = frame("C2H5", spin=1)
    usual = level_cost(level, closed)
    assert usual.seconds(radical) > usual.seconds(frame("C2H6"))
    dear = [label(frame("CH3", spin=1), level, 3.0)] * 10
    assert level_cost(level, [*closed, *dear]).seconds(radical) > usual.seconds(radical)


def test_without_labels_there_is_experience_and_it_says_how_little_it_knows() -> None:
    ethanol = frame("CH3CH2OH")
    costs = [
        level_cost(pyscf_level(method, basis))
        for method, basis in (
            *(("hf", "sto-3g"), ("mp2", "cc-pvdz")),
            *(("ccsd", "cc-pvdz"), ("ccsd(t)", "cc-pvdz")),
        )
    ]
    assert sorted(costs, key=lambda cost: cost.seconds(ethanol)) == costs
    assert all(cost.labels == 0 and cost.spread(ethanol) > 3 for cost in costs)


def test_memory_is_foretold_from_what_labels_of_smaller_molecules_took() -> None:
    level = pyscf_level("ccsd(t)", "6-31g")
    peaks = {"H2O": (131, 13), "CH4": (140, 17), "CH3OH": (282, 26), "C2H6": (416, 30)}
    cost = level_cost(
        level,
        [label(frame(name), level, 1.0, n, mb) for name, (mb, n) in peaks.items()],
    )
    assert 1712 / 1.5 < cost.megabytes(frame("CH3CH2OH")) < 1712 * 1.5


def test_labels_that_cost_nothing_do_not_count() -> None:
    level = LEVELS[0]
    assert level_cost(level, [label(frame("CH4"), level, 0.0)]) == level_cost(level)


def test_isomers_share_a_price_and_ions_and_radicals_have_their_own() -> None:
    water = frame("H2O")
    ion = Frame(water.numbers, water.positions, charge=1, spin=1)
    assert molecule_key(ion) == "H2O +1 spin 1"
    assert molecule_key(frame("CH3OCH3")) == molecule_key(frame("CH3CH2OH")) == "C2H6O"


def test_a_cost_survives_the_journal() -> None:
    level, known = recorded(("hf", "sto-3g", False))
    cost = level_cost(level, known.values())
    codec = Codec((Cost, Curve))
    assert codec.decode(codec.encode(cost)) == cost
