"""The one door to torch-geometric."""

import warnings

with warnings.catch_warnings():
    # While it is imported it scripts a class, which torch has come to deprecate.
    warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
    from torch_geometric.data import Batch as GraphBatch
    from torch_geometric.data import Data
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.models import schnet, visnet

__all__ = ["Data", "GraphBatch", "MessagePassing", "schnet", "visnet"]
