"""The only import of torch-geometric."""

import sys
import tempfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    # Importing it scripts a class, and imports a part that version 2.7 has deprecated.
    warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", r"`torch_geometric", DeprecationWarning)
    from torch_geometric.data import Batch as GraphBatch
    from torch_geometric.data import Data
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.models import schnet, visnet

__all__ = [
    "Data",
    "GraphBatch",
    "MessagePassing",
    "remove_generated_sources",
    "schnet",
    "visnet",
]

_WRITTEN = ("_propagate", "_edge_updater")  # modules generated for a layer's class


def remove_generated_sources() -> None:
    """Remove the sources that torch-geometric wrote to import them once.

    It leaves a file for each class of layers and each process in the temporary folder:
    hundreds after some days of workers.
    """
    folder = Path(tempfile.gettempdir())
    generated = [x for x in sys.modules.copy() if x.endswith(_WRITTEN)]
    for name, spec in ((name, sys.modules[name].__spec__) for name in generated):
        source = Path(spec.origin if spec and spec.origin else "")
        # Only its own files: they lie in that folder, under the module's name and more.
        if spec and source.parent == folder and source.name.startswith(f"{name}_"):
            for file in filter(None, (spec.origin, spec.cached)):
                Path(file).unlink(missing_ok=True)
