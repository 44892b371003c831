"""Functions of tensors as machine code: traced by make_fx, compiled by inductor (C++).

All tensors are inputs, weights too, so that new weights run through existing code. What
is not worth compiling can be recorded: traced, and run without Python. Of compiled code
torch keeps the code on the disk (`TORCHINDUCTOR_CACHE_DIR`, by default in the temporary
folder): the next process takes it from there within seconds.

Large matrix products are oneDNN's where torch's own take longer: on processors that are
not Intel's, MKL, which torch calls, does not use AVX-512, and gives some 110 GFLOP/s of
float32 on a core, where oneDNN reaches 230. A call of oneDNN costs more, so small
products stay with MKL. The number of threads changes the bits of neither.
"""

import math
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from alloop.models.private_folder import own_folder

Code: TypeAlias = Callable[..., tuple[Tensor, ...]]

# What tracing, inductor and the compiler raise, whatever the cause.
_FAILURES = (RuntimeError, AssertionError, TypeError, ValueError, AttributeError)
_LARGE = 2e6  # operations of a product, ...
_SHORT = 16  # ... and its shortest length
_CPUINFO = Path("/proc/cpuinfo")
_torch: Any = torch  # parts of it are not typed
_library = _torch.library.Library("alloop", "DEF")
_library.define("matrix_product(Tensor a, Tensor b) -> Tensor")
_compiler_lock = threading.Lock()  # tracing and inductor keep state in the process


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
    with _compiler_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of itself
        return _compile_traced(function, example, any_length)


def record_function(function: Code, example: Sequence[Tensor]) -> Code:
    """Return the function as a recorded list of torch's operations.

    It gives the same bits as the function, in little more than half of its time where
    tensors are small, since Python and autograd are left out. It needs seconds and no
    compiler, is for tensors of the types and shapes of the example, and raises
    NotCompiled where the function cannot be traced.
    """
    with _compiler_lock, warnings.catch_warnings():
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


# --- matrix products -----------------------------------------------------------------


def onednn_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two float32 matrices on a CPU, by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(
        a, b.t(), None, attr="none", scalars=[], algorithm=""
    )
    return result


def _shape_of_product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_library.impl("matrix_product", onednn_product, "CPU")
torch.library.register_fake("alloop::matrix_product", _shape_of_product, lib=_library)


def mkl_is_slow() -> bool:
    """Return True on processors on which MKL leaves AVX-512 unused."""
    backends = _torch.backends
    if not (backends.mkl.is_available() and backends.mkldnn.is_available()):
        return False
    if backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return _CPUINFO.exists() and "GenuineIntel" not in _CPUINFO.read_text("utf-8")


def use_onednn(traced: GraphModule) -> int:
    """Let a traced function take its large products from oneDNN; return how many."""
    products = [node for node in traced.graph.nodes if _is_large_product(node)]
    for node in products:
        *bias, a, b = node.args
        with traced.graph.inserting_before(node):
            new = traced.graph.call_function(
                torch.ops.alloop.matrix_product.default, (a, b)
            )
            new.meta = dict(node.meta)
            if bias:
                add = torch.ops.aten.add.Tensor
                new = traced.graph.call_function(add, (new, bias[0]))
                new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)
    traced.recompile()
    return len(products)


def _is_large_product(node: Node) -> bool:
    aten = torch.ops.aten
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    factors: Any = node.args[-2:]
    a, b = (factor.meta.get("val") for factor in factors)
    if a is None or b is None:  # the trace does not tell what they are
        return False
    lengths = _length(a, 0), _length(a, 1), _length(b, 1)
    return (
        a.dtype == torch.float32
        and a.device.type == "cpu"
        and min(lengths) >= _SHORT
        and 2.0 * math.prod(lengths) >= _LARGE
    )


def _length(value: Any, dimension: int) -> int:
    """Return a length; of a symbolic one that of the example, without a guard."""
    length = value.shape[dimension]
    return length if isinstance(length, int) else length.node.hint or 0
