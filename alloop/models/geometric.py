"""The one door to torch-geometric."""

import sys
import tempfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    # While it is imported it scripts a class, which torch has come to deprecate.
    warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
    from torch_geometric.data import Batch as GraphBatch
    from torch_geometric.data import Data
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.models import schnet, visnet

__all__ = ["Data", "GraphBatch", "MessagePassing", "schnet", "sweep", "visnet"]

_WRITTEN = ("_propagate", "_edge_updater")  # modules made for a layer's class


def sweep() -> None:
    """Remove the sources that torch-geometric wrote to import them once.

    It leaves a file for each class of layers and each process in the temporary folder:
    hundreds after some days of workers.
    """
    folder = Path(tempfile.gettempdir())
    made = [x for name, x in sys.modules.copy().items() if name.endswith(_WRITTEN)]
    for spec in filter(None, (module.__spec__ for module in made)):
        for file in map(Path, filter(None, (spec.origin, spec.cached))):
            if folder in file.parents:
                file.unlink(missing_ok=True)
