"""Compiled functions: other lengths where they are allowed, no others."""

import pytest
import torch
from torch import Tensor

from alloop.models.compilation import Code, compile_function, compile_obstacle


def gather(rows: Tensor, others: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    return torch.sin(rows.index_select(0, index)) @ weight + (rows + others).sum()


def inputs(rows: int, count: int, width: int = 24, out: int = 20) -> list[Tensor]:
    values = [torch.randn(rows, width) for _ in range(2)]
    return [*values, torch.arange(count) % rows, torch.randn(width, out)]


@pytest.fixture(scope="module")
def code() -> Code:
    if why := compile_obstacle():
        pytest.skip(why)
    return compile_function(
        lambda *given: (gather(*given),), inputs(11, 7), any_length=range(3)
    )


def test_a_killed_process_leaves_no_semaphore_of_a_progress_bar(code: Code) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    assert not hasattr(tqdm.get_lock(), "mp_lock")
    assert vars(torch.hub)["tqdm"] is tqdm


@pytest.mark.parametrize(("rows", "count"), [(11, 7), (13, 29), (5, 3)])
def test_code_serves_other_lengths(code: Code, rows: int, count: int) -> None:
    given = inputs(rows, count)
    torch.testing.assert_close(code(*given)[0], gather(*given), rtol=1e-4, atol=1e-4)


def test_lengths_that_do_not_fit_are_refused(code: Code) -> None:
    for width, out in ((20, 20), (24, 12)):  # those of the weight
        with pytest.raises(AssertionError, match="size"):
            code(*inputs(11, 7, width, out))
    rows, others, *rest = inputs(11, 7)
    with pytest.raises(AssertionError, match="size"):  # equal ones stay equal
        code(rows, others[:9], *rest)
