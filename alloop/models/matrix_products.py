"""Large matrix products of compiled code by oneDNN, where torch's own take longer.

On processors that are not Intel's, MKL, which torch calls, does not use AVX-512: some
110 GFLOP/s of float32 on a core, where oneDNN reaches 230. A call of oneDNN costs more,
so small products stay with MKL. The number of threads changes the bits of neither.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

_LARGE = 2e6  # operations of a product, ...
_SHORT = 16  # ... and its least length
_CPUINFO = Path("/proc/cpuinfo")
_torch: Any = torch  # parts of it are not typed
_library = _torch.library.Library("alloop", "DEF")
_library.define("matrix_product(Tensor a, Tensor b) -> Tensor")


def onednn_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two float32 matrices on a CPU, by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
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
