"""What a user's mistake costs: an exit code, one sentence."""

import pytest

from alloop.core import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InputError, 2),
        (errors.StoreError, 2),
        (errors.LockedError, 2),
        (errors.DamagedError, 2),
        (errors.Interrupted, 3),
    ],
)
def test_errors_have_the_exit_code_of_what_to_do_next(kind, code):
    assert issubclass(kind, errors.AlloopError)
    assert kind.exit_code == code


def test_a_locked_or_damaged_store_is_a_store_that_cannot_be_used():
    assert issubclass(errors.LockedError, errors.StoreError)
    assert issubclass(errors.DamagedError, errors.StoreError)
    assert not issubclass(errors.InputError, errors.StoreError)
