"""Functions of tensors as machine code: traced by make_fx, compiled by inductor (C++).

All tensors are inputs, weights too, so that new weights run through existing code. What
is not worth compiling can be recorded: traced, and run without Python. Of compiled code
torch keeps the code on the disk (`TORCHINDUCTOR_CACHE_DIR`, by default in the temporary
folder): the next process takes it from there within seconds.
"""

import os
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alloop.models.matrix_products import mkl_is_slow, use_onednn
from alloop.models.private_folder import own_folder

Code: TypeAlias = Callable[..., tuple[Tensor, ...]]

# What tracing, inductor and the compiler raise, whatever the cause.
_FAILURES = (RuntimeError, AssertionError, TypeError, ValueError, AttributeError)
_one_at_a_time = threading.Lock()  # tracing and inductor keep state in the process


class NotCompiled(Exception):
    """The error for code that cannot be made; the message tells the reason."""


def compile_function(
    function: Code, example: Sequence[Tensor], *, any_length: Sequence[int] = ()
) -> Code:
    """Return the function of tensors as code for the types and shapes of the example.

    any_length: the numbers of those inputs that may have other lengths than in the
    example, as long as equal lengths of theirs stay equal; code for shapes that do not
    fit raises AssertionError, and a result must be checked once for each set of shapes,
    since Python may have looked at a length. Indices in tensors are not checked.

    The function may take derivatives inside; its results cannot be differentiated.
    Python that looks at values or shapes is run once, now. One thread runs the code, so
    that it gives the same bits whatever the number of threads. Raises NotCompiled where
    there is no C++ compiler, torch is older than 2.8, or the function cannot be traced.
    """
    if missing := compile_obstacle():
        raise NotCompiled(missing)
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of itself
        return _compile_traced(function, example, any_length)


def record_function(function: Code, example: Sequence[Tensor]) -> Code:
    """Return the function as a recorded list of torch's operations.

    It gives the same bits as the function, in little more than half of its time where
    tensors are small, since Python and autograd are left out. It needs seconds and no
    compiler, is for tensors of the types and shapes of the example, and raises
    NotCompiled where the function cannot be traced.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which is no longer developed
        try:
            traced = _trace_function(function, example)
            return _recorded(traced, example)
        except _FAILURES as error:
            raise NotCompiled(_first_line(error)) from error


def compile_obstacle() -> str | None:
    """Return the reason why nothing can be compiled on this machine, or None."""
    import torch._inductor

    if not hasattr(torch._inductor, "standalone_compile"):
        return f"torch {torch.__version__} is older than 2.8"
    if not any(map(shutil.which, ("g++", "clang++"))):
        return "there is no C++ compiler (g++ or clang++) here"
    return None


def _compile_traced(
    function: Code, example: Sequence[Tensor], any_length: Sequence[int]
) -> Code:
    import torch._inductor
    from torch._inductor import config

    on_cpu = all(tensor.device.type == "cpu" for tensor in example)
    # Compiling in this process alone: no pool of helpers that outlives it. One thread
    # in the code: sums must not depend on how many there are.
    settings = {
        "compile_threads": 1,
        "cpp.threads": 1,
        "cpp_wrapper": on_cpu,  # faster than a wrapper in Python, and sooner compiled
        "assert_indirect_indexing": False,  # a check of each index, 8 % of the time
    }
    _keep_code_to_ourselves()
    try:
        traced = _trace_function(function, example, any_length)
        if mkl_is_slow():
            use_onednn(traced)
        with config.patch(settings), torch.no_grad():
            code = torch._inductor.standalone_compile(
                traced,
                list(example),
                dynamic_shapes="from_graph" if any_length else "from_example_inputs",
            )
    except _FAILURES as error:
        raise NotCompiled(_first_line(error)) from error

    return _assert_shapes(_without_gradients(code))


def _without_gradients(code: Callable[..., Any]) -> Code:
    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(code(*tensors))

    return run


def _assert_shapes(code: Code) -> Code:
    """Return the code, which raises AssertionError for shapes that do not fit."""

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        try:
            return code(*tensors)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of the wrapper, which compares the shapes
            raise AssertionError(str(error)) from error

    return run


def _recorded(traced: Callable[..., Any], example: Sequence[Tensor]) -> Code:
    record: Callable[..., Any] = torch.jit.trace
    optimised: Callable[[bool], Any] = torch.jit.optimized_execution  # type: ignore[attr-defined]
    with torch.no_grad():
        run = _without_gradients(record(traced, tuple(example), check_trace=False))

    def run_as_recorded(*tensors: Tensor) -> tuple[Tensor, ...]:
        with optimised(False):  # it would change bits
            return run(*tensors)

    return run_as_recorded


def _keep_code_to_ourselves() -> None:
    """Set another cache folder where others can write in torch's default one."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = own_folder(Path(default_cache_dir()))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def _spare_semaphore() -> None:
    """Give the progress bars of torch's passes a lock of this process alone.

    tqdm's own is also a semaphore, which a worker that is killed leaves behind, and
    Python warns of that at the end of a run.
    """
    bar: Any = getattr(torch.hub, "tqdm", None)
    if hasattr(bar, "set_lock"):  # else torch's stand-in, which has no lock
        bar.set_lock(threading.RLock())


def _trace_function(
    function: Code, example: Sequence[Tensor], any_length: Sequence[int] = ()
) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    _spare_semaphore()
    if not any_length:
        return make_fx(function)(*example)
    mode = FakeTensorMode(allow_fallback_kernels=False, shape_env=ShapeEnv())
    inputs = [
        mode.from_tensor(tensor, static_shapes=number not in any_length)
        for number, tensor in enumerate(example)
    ]
    return make_fx(function, tracing_mode="symbolic")(*inputs)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"torch could not compile it ({lines[0] if lines else type(error).__name__})"
