"""Learning rates by hand, and the rules that shorten a stage or compile it."""

import pytest

from alloop.core.errors import InputError
from alloop.models.networks.painn import PaiNN
from alloop.models.networks.tensor_painn import TensorPaiNN
from alloop.training.stages import (
    Schedule,
    averaging_decay,
    bounded_steps,
    learning_rate,
    worth_compiling,
)


def rates(schedule: Schedule) -> list[float]:
    return [learning_rate(step, 100, schedule) for step in range(101)]


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    found = rates(Schedule(lr=1.0, warmup=10))
    assert found[0] == pytest.approx(0.1)
    assert max(found) == pytest.approx(found[9])
    assert found[50] == pytest.approx(0.5)
    assert found[100] == pytest.approx(0.0)


def test_a_floor_is_where_every_decay_ends() -> None:
    for decay in ("cosine", "exponential", "wsd"):
        found = rates(Schedule(lr=2.0, warmup=1, decay=decay, floor=0.1))
        assert found[0] == pytest.approx(2.0)
        assert found[100] == pytest.approx(0.2)
        assert found == sorted(found, reverse=True)


def test_an_exponential_decay_falls_by_equal_factors() -> None:
    found = rates(Schedule(lr=1.0, warmup=1, decay="exponential", floor=0.01))
    assert found[50] == pytest.approx(0.1)
    with pytest.raises(InputError, match="floor above 0"):
        Schedule(decay="exponential")


def test_a_late_decay_holds_the_peak_until_then() -> None:
    found = rates(Schedule(lr=1.0, warmup=1, decay="wsd", hold=0.6))
    assert found[:61] == [1.0] * 61
    assert found[80] == pytest.approx(0.5)


def test_the_average_forgets_its_start() -> None:
    assert averaging_decay(0, 0.99) == pytest.approx(0.1)
    assert averaging_decay(10_000, 0.99) == 0.99


def test_epochs_shorten_a_stage_and_never_lengthen_it() -> None:
    schedule = Schedule(batch=10, epochs=3)
    assert bounded_steps(1000, 45, schedule) == 12
    assert bounded_steps(5, 45, schedule) == 5
    assert bounded_steps(1000, 4, schedule) == 3
    assert bounded_steps(1000, 45, Schedule(batch=10)) == 1000


def test_only_much_work_is_compiled_unless_one_says_so() -> None:
    ethanol, water = 720, 60  # edges of ten
    plain = PaiNN.compiled_saving
    assert worth_compiling(4000, ethanol, plain, Schedule())
    assert not worth_compiling(3000, ethanol, plain, Schedule())
    assert not worth_compiling(4000, water, plain, Schedule())
    assert worth_compiling(12_000, water, plain, Schedule())
    assert worth_compiling(4000, water, TensorPaiNN.compiled_saving, Schedule())
    assert worth_compiling(1, 0, plain, Schedule(compile=True))
    assert not worth_compiling(10**9, ethanol, plain, Schedule(compile=False))
