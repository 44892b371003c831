"""Compiled functions: other lengths where they are allowed, no others."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from alloop.models import compilation
from alloop.models.compilation import (
    Code,
    compile_function,
    compile_obstacle,
    onednn_product,
    use_onednn,
)
from alloop.potentials.devices import torch_threads


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


def chain(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A large product with a bias, one of transposed matrices, and a small one."""
    y = torch.addmm(bias, x, weight.t())
    return torch.mm(y.t(), x), torch.mm(y[:4], weight)


@pytest.fixture
def given() -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(*shape, generator=made) for shape in ((300, 96), (96, 96), (96,))
    )


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_large_products_are_replaced_and_small_ones_are_not(
    given: tuple[Tensor, ...], mode: str
) -> None:
    traced = make_fx(chain, tracing_mode=mode)(*given)  # type: ignore[arg-type]
    assert use_onednn(traced) == 2
    assert sum("aten.mm" in str(x.target) for x in traced.graph.nodes) == 1
    for found, expected in zip(traced(*given), chain(*given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_double_precision_stays_as_it_is(given: tuple[Tensor, ...]) -> None:
    traced = make_fx(chain)(*(x.double() for x in given))
    assert use_onednn(traced) == 0


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_the_number_of_threads_does_not_change_a_product() -> None:
    a, b = torch.randn(1500, 96).t(), torch.randn(1500, 96)
    found = []
    for threads in (1, 2):
        with torch_threads(threads):
            found.append(onednn_product(a, b))
    assert torch.equal(*found)


@pytest.mark.skipif(bool(compile_obstacle()), reason="nothing compiles here")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_compiled_code_takes_them_where_mkl_is_slow(
    given: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(
        compilation, "use_onednn", lambda traced: taken.append(use_onednn(traced))
    )
    for slow in (True, False):
        monkeypatch.setattr(compilation, "mkl_is_slow", lambda slow=slow: slow)
        code = compile_function(chain, given)
        for found, expected in zip(code(*given), chain(*given), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert taken == [2]
