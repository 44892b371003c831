"""The files of weights that other packages install, opened without their code."""

import importlib.util
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alloop.core.errors import InputError


def package_file(package: str, name: str, extra: str) -> Path:
    """Return a file or folder within an installed package, which is not imported.

    Raises InputError, with the line for pip, where package or file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder, name)).exists():
            return file
    raise InputError(
        f"expected the package {package} with its file {name}, which is not "
        f"installed; pip install 'alloop[{extra}]'"
    )


class _Part:
    """A stand-in for an object of a class that is not imported: it holds its fields."""


def pickled_tensors(file: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of a pickled torch module by name, as its state lists them.

    Nothing of the file is executed: torch's restricted unpickler puts a stand-in in
    place of each of `classes` (their full names), and refuses all others.
    Raises InputError where the file holds anything else.
    """
    stand_ins: list[Any] = [
        *((_Part, name) for name in classes),
        (set, "__builtin__.set"),
    ]
    try:
        with torch.serialization.safe_globals(stand_ins):
            root = torch.load(file, map_location="cpu", weights_only=True)
        return dict(_named_tensors(root, ""))
    except (pickle.UnpicklingError, AttributeError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"expected pretrained weights in {file}, got a file that cannot be read "
            f"({reason}); install the version of the package that the extra names"
        ) from error


def _named_tensors(part: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and of the modules within it."""
    fields = vars(part)
    for name, tensor in {**fields["_parameters"], **fields["_buffers"]}.items():
        if tensor is not None:
            yield f"{prefix}{name}", tensor.detach()
    for name, inner in fields["_modules"].items():
        if inner is not None:
            yield from _named_tensors(inner, f"{prefix}{name}.")
